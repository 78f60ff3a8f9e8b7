"""Two routes to ONNX that share no lowering, on the same programs."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

import xlapass
from jax import lax
from xlapass.backends.onnx.backend import OnnxBackend
from xlapass.core.errors import MissingDependencyError, UsageError

RNG = np.random.default_rng(0)
X, IMAGE = RNG.standard_normal((2, 6)).astype(np.float32), RNG.standard_normal((1, 8, 8, 3)).astype(np.float32)
KERNEL, WEIGHT = RNG.standard_normal((3, 3, 3, 4)).astype(np.float32), RNG.standard_normal((6, 5)).astype(np.float32)
NUMBERS = ("NHWC", "HWIO", "NHWC")


def has(package):
    return importlib.util.find_spec(package) is not None


with_both = pytest.mark.skipif(
    not (has("tf2onnx") and has("tensorflow") and has("litert_converter")),
    reason="the tf2onnx extra is not installed, which brings TensorFlow",
)

PROGRAMS = {
    "dense": (lambda x: jax.nn.softmax(jnp.tanh(x @ WEIGHT)), (X,)),
    "image": (
        lambda x: jnp.mean(
            jax.nn.relu6(lax.conv_general_dilated(x, KERNEL, (2, 2), "SAME", dimension_numbers=NUMBERS)), (1, 2)
        ),
        (IMAGE,),
    ),
    "pooling": (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), (IMAGE,)),
    "two of each": (lambda a, b: {"sum": a + b, "top": jnp.max(a * b, 1)}, (X, X[::-1].copy())),
    "whole numbers": (lambda x: jnp.sum((x > 0).astype(jnp.int32), 1), (X,)),
}


@with_both
@pytest.mark.parametrize("name", PROGRAMS)
def test_both_routes_agree(name):
    function, arguments = PROGRAMS[name]
    results = []
    for route in ("direct", "tf2onnx"):
        artifact = xlapass.compile(function, *arguments, pipeline="onnx", backend=OnnxBackend(route=route))
        assert "agrees with JAX" in artifact.verification
        results.append(artifact.executable()(*arguments))
    for one, other in zip(*map(jax.tree_util.tree_leaves, results), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@with_both
def test_names_are_those_of_the_program():
    artifact = xlapass.compile(*PROGRAMS["dense"][:1], X, pipeline="onnx", backend="onnx{route=tf2onnx,opset=17}")
    assert [v.name for v in artifact.model.graph.inputs] == ["x"]
    assert artifact.model.opset_imports[""] == 17


def test_an_opset_that_tf2onnx_does_not_write():
    with pytest.raises(UsageError, match="tf2onnx writes no opset 23"):
        xlapass.compile(jnp.sin, X, pipeline="onnx", backend=OnnxBackend(route="tf2onnx", opset=23))


@pytest.mark.skipif(has("tf2onnx") and has("tensorflow"), reason="nothing is missing here")
def test_what_is_missing_is_named():
    with pytest.raises(MissingDependencyError, match="tf2onnx"):
        xlapass.compile(jnp.sin, X, pipeline="onnx", backend=OnnxBackend(route="tf2onnx"))
