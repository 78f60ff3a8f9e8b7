"""The command line: options of the file."""

import textwrap

import onnx
import pytest
from xlapass.cli import main

MODEL = """
    import jax.numpy as jnp

    def model(x, params):
        return {"y": jnp.sin(x @ params["w"]), "total": x.sum()}

    example_inputs = (jnp.ones((2, 3)), {"w": jnp.ones((3, 4))})
"""


@pytest.fixture
def compiled(tmp_path, capsys, monkeypatch):
    """``compiled(*flags)``: exit status, the file or None, what was said on standard error."""
    (tmp_path / "model.py").write_text(textwrap.dedent(MODEL))
    monkeypatch.chdir(tmp_path)

    def run(*flags):
        status = main(["--pipeline=onnx", "-o", "model.onnx", *flags, "model.py"])
        path = tmp_path / "model.onnx"
        return status, onnx.load(path) if path.exists() else None, capsys.readouterr().err

    return run


def test_opset_and_names(compiled):
    status, model, _ = compiled("--opset=21", "--input-names=image,kernel", "--output-names=total,scores")
    assert status == 0
    assert model.opset_import[0].version == 21
    assert [v.name for v in model.graph.input] == ["image", "kernel"]
    assert [v.name for v in model.graph.output] == ["total", "scores"]
    status, model, _ = compiled()
    assert status == 0
    assert [v.name for v in model.graph.input] == ["x", "params.w"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--opset=12", "opset 12 is not offered"),
        ("--input-names=image", "1 input names for 2 inputs"),
        ("--output-names=a,a", "two outputs cannot have one name"),
    ],
)
def test_wrong_options(compiled, flag, message):
    status, model, said = compiled(flag)
    assert status == 2
    assert model is None
    assert message in said
