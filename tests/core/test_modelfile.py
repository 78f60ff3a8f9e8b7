"""Models named in text."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from xlapass.core.errors import UsageError, UserCodeError
from xlapass.core.modelfile import load_model, parse_inputs, trace_model

MODELS = """
import dataclasses
import functools

import equinox as eqx
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import xlapass

@dataclasses.dataclass
class Scale:
    by: float
    def __call__(self, x):
        return self.by * x

def function(x):
    return x + 1
scale = Scale(2.0)
partial = functools.partial(lambda y, x: x * y, 3.0)
net = nn.Dense(4)
linen = (net, net.init(jax.random.key(0), jnp.ones((2, 3))))
nnx_module = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
equinox = jax.vmap(eqx.nn.Linear(3, 4, key=jax.random.key(0)))
program = xlapass.trace(function, jax.ShapeDtypeStruct((2, 3), jnp.float32))
class space:
    nested = function
def no_arguments():
    return jnp.arange(3)

def example_inputs():
    return (jnp.ones((2, 3)),)
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "models_of_every_kind.py").write_text(MODELS)
    yield "models_of_every_kind.py"
    sys.modules.pop("models_of_every_kind", None)


KINDS = ["function", "scale", "partial", "linen", "nnx_module", "equinox", "program", "space.nested"]


def test_every_kind_of_model(models):
    for entry in KINDS:
        loaded = load_model(f"{models}:{entry}")
        program = trace_model(loaded)
        assert program.examples is not None
        x = jnp.ones((2, 3))
        expected = loaded.model[0].apply(loaded.model[1], x) if entry == "linen" else loaded.model(x)
        np.testing.assert_allclose(program(x), expected, rtol=1e-5)


def test_references(models):
    in_file, in_module = f"{models}:function", "models_of_every_kind:function"
    for reference, entry in [
        (models, "function"),
        (in_file, None),
        (in_module, None),
        (f"{Path.cwd()}/{in_file}", None),
    ]:
        loaded = load_model(reference, entry)
        assert loaded.entry == "function" and loaded.model(1) == 2
    with pytest.raises(UsageError, match="names 'function', and the entry is said to be 'scale'"):
        load_model(in_file, "scale")


def test_a_file_named_like_a_library(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "jax.py"
    file.write_text("def model():\n    return 1.0\n")
    assert load_model(str(file)).model() == 1.0
    assert sys.modules["jax"] is jax


def test_inputs_take_the_place_of_examples(models):
    program = trace_model(load_model(models, "function"), ["f32[batch, 2*batch]"])
    assert program.is_symbolic and [np.shape(e) for e in program.examples] == [(3, 6)]
    program = trace_model(load_model(models, "function"), ["i8[5]"])
    assert program.in_avals[0].dtype == jnp.int8 and program.examples[0].shape == (5,)


def test_dynamic_sizes_of_examples(models):
    program = trace_model(load_model(models, "function"), dynamic=["batch, ..."])
    assert program.is_symbolic and program.examples[0].shape == (2, 3)
    assert not trace_model(load_model(models, "function"), dynamic=["none"]).is_symbolic


def test_a_model_without_parameters_needs_no_inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "nothing.py"
    file.write_text("def model(*rest, scale=2.0):\n    return scale\n")
    assert trace_model(load_model(str(file))).in_avals == []


def test_a_program_takes_the_files_examples(models):
    assert trace_model(load_model(models, "program")).examples[0].shape == (2, 3)
    with pytest.raises(UsageError, match="is compiled as it was traced"):
        trace_model(load_model(models, "program"), ["f32[2,3]"])


def test_what_the_users_code_raises_is_kept(models):
    with pytest.raises(UserCodeError) as caught:
        trace_model(load_model(models, "linen"), ["f32[2,5]"])
    assert type(caught.value.__cause__).__name__ == "ScopeParamShapeError"


@pytest.mark.parametrize(
    "text, shape, dtype",
    [
        ("f32[1,224,224,3]", (1, 224, 224, 3), "float32"),
        ("bf16[2, 3]", (2, 3), "bfloat16"),
        ("i32", (), "int32"),
        ("u8[]", (), "uint8"),
        ("pred[0]", (0,), "bool"),
        ("bool[4]", (4,), "bool"),
        ("c64[1]", (1,), "complex64"),
        ("float8_e4m3fn[2]", (2,), "float8_e4m3fn"),
    ],
)
def test_types_in_text(text, shape, dtype):
    (spec,) = parse_inputs([text])
    assert spec.shape == shape and spec.dtype == jnp.dtype(dtype)


def test_one_name_is_one_size():
    first, second = parse_inputs(["f32[batch,3]", "i32[batch]"])
    assert first.shape[0] == second.shape[0]
