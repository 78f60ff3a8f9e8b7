"""The example files are what the command takes: each defines a model and its inputs, and traces."""

import importlib.util
import re
from pathlib import Path

import jax
import pytest
import xlapass

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("mobilenet_v2", ["float32[1,1000]"]),
        ("resnet", ["float32[1,1000]"]),
        ("nnx_transformer", ["float32[1,64,8192]"]),
        ("equinox_cnn", ["float32[4,10]"]),
    ],
)
def test_example_defines_model_and_inputs(name, outputs):
    example = load(name)
    inputs = example.example_inputs() if callable(example.example_inputs) else example.example_inputs
    program = xlapass.trace(example.model, *inputs)
    assert [aval.str_short() for aval in program.out_avals] == outputs
    assert program.constant_bytes > 0


def test_every_example_is_tested_and_shows_its_command():
    files = {path.stem: path for path in EXAMPLES.glob("*.py")}
    assert set(files) == {"mobilenet_v2", "resnet", "nnx_transformer", "equinox_cnn", "train_step"}
    for name, path in files.items():
        assert f"xlapass --pipeline=cpu examples/{name}.py" in path.read_text()


def test_training_step_trains_and_agrees_with_its_compilation(monkeypatch, capsys):
    example = load("train_step")
    monkeypatch.setattr(example, "LAYERS", (32, 16, 10))
    example.main()
    printed = capsys.readouterr().out
    eager, compiled, trained = (float(text) for text in re.findall(r"(?:eager|compiled|batch:) (\d+\.\d{6})", printed))
    assert compiled == pytest.approx(eager, abs=1e-5)
    assert float(re.search(r"of a weight: (\S+)", printed)[1]) < 1e-5
    assert trained < eager
    params, loss = jax.eval_shape(example.model, *example.example_inputs())
    assert [weights.shape for weights, _ in params] == [(32, 16), (16, 10)]
    assert loss.shape == ()
