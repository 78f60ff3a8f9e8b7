"""``tflite{int8-inputs=true,int8-outputs=true}``: files that take and give int8."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from xlapass.backends.tflite.artifact import TfliteArtifact
from xlapass.cli import main
from xlapass.core.errors import CompileError

RNG = np.random.default_rng(0)
W, D = RNG.standard_normal((3, 3, 2, 4)).astype(np.float32), RNG.standard_normal((4, 3)).astype(np.float32)
X = RNG.standard_normal((1, 6, 6, 2)).astype(np.float32)
DATA = [(RNG.standard_normal(X.shape).astype(np.float32),) for _ in range(4)]


def model(x):
    numbers = ("NHWC", "HWIO", "NHWC")
    y = jax.nn.relu(jax.lax.conv_general_dilated(x, W, (1, 1), "SAME", dimension_numbers=numbers))
    return y.mean((1, 2)) @ D


def compiled(options="", fn=model, x=(X,), data=DATA):
    backend = f"tflite{{integer-kernels=true{options}}}"
    return xlapass.compile(fn, *x, pipeline="mobile", backend=backend, calibration_data=data)


def edges(artifact):
    interpreter = artifact.executable().interpreter
    return [
        [(d["name"], d["dtype"]) for d in f()] for f in (interpreter.get_input_details, interpreter.get_output_details)
    ]


def operators(artifact):
    return [op["op_name"] for op in artifact.executable().interpreter._get_ops_details()]


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("outputs", [False, True])
def test_edges_are_what_was_asked_for(inputs, outputs):
    plain = compiled()
    found = compiled(f",int8-inputs={str(inputs).lower()},int8-outputs={str(outputs).lower()}")
    assert edges(plain) == [[("x", np.float32)], [("output", np.float32)]]
    assert edges(found) == [
        [("x", np.int8 if inputs else np.float32)],
        [("output", np.int8 if outputs else np.float32)],
    ]
    assert ("QUANTIZE" in operators(found)) != inputs and ("DEQUANTIZE" in operators(found)) != outputs
    np.testing.assert_allclose(found.executable()(X), plain.executable()(X), atol=1e-6)
    assert found.kernels.summary() == plain.kernels.summary()


def test_the_file_says_what_its_integers_stand_for(tmp_path):
    """Any interpreter can run it: scale and zero point are in the file."""
    artifact = compiled(",int8-inputs=true,int8-outputs=true")
    artifact.save(tmp_path / "model.tflite")
    interpreter = type(artifact).load(tmp_path / "model.tflite")
    runner = interpreter.get_signature_runner()
    scale, zero = runner.get_input_details()["x"]["quantization"]
    numbers = runner(x=np.clip(np.rint(X / scale) + zero, -128, 127).astype(np.int8))["output"]
    scale, zero = runner.get_output_details()["output"]["quantization"]
    np.testing.assert_allclose((numbers.astype(int) - zero) * scale, artifact.executable()(X), atol=1e-6)


def test_several_inputs_and_outputs():
    def two(x, y, n):
        return {"a": x @ D, "b": jnp.tanh(y @ D), "n": n + 1}

    x, y = (RNG.standard_normal((8, 4)).astype(np.float32) for _ in range(2))
    arguments = (x, 3 * y, np.int32(4))
    artifact = compiled(",int8-inputs=true", two, arguments, [arguments])
    assert edges(artifact)[0] == [("x", np.int8), ("y", np.int8), ("n", np.int32)]
    found = artifact.executable()(*arguments)
    np.testing.assert_allclose(found["a"], x @ D, atol=0.2)
    np.testing.assert_allclose(found["b"], np.tanh(3 * y @ D), atol=0.2)
    assert found["n"] == 5


def test_what_a_float_operation_reads_cannot_be_int8():
    def fn(x):
        return jax.nn.relu(x @ D) @ D.T + jnp.sin(x)

    x = RNG.standard_normal((8, 4)).astype(np.float32)
    with pytest.raises(CompileError, match="the input 'x' cannot be int8"):
        compiled(",int8-inputs=true", fn, (x,), [(x,)])
    with pytest.raises(CompileError, match="the output 'output' cannot be int8"):
        compiled(",int8-outputs=true", fn, (x,), [(x,)])


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.py").write_text(
        "import numpy as np\n"
        "W = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)\n"
        "def model(x):\n    return x @ W\n"
        "example_inputs = (np.ones((2, 8), np.float32),)\n"
        "calibration_data = [(np.full((2, 8), k, np.float32),) for k in range(3)]\n"
    )
    backend = "--backend=tflite{integer-kernels=true,int8-inputs=true}"
    assert main(["--pipeline=mobile", backend, "--report=none", "-o", "m.tflite", "m.py"]) == 0, capsys.readouterr().err
    interpreter = TfliteArtifact.load("m.tflite")
    assert interpreter.get_input_details()[0]["dtype"] == np.int8
