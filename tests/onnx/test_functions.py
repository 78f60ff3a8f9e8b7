"""Repeated modules as functions of the file."""

import flax.linen as nn
import jax
import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

import xlapass
from xlapass.backends.onnx.backend import OnnxBackend

X = np.random.default_rng(0).standard_normal((2, 6, 8)).astype(np.float32)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.gelu(nn.Dense(16)(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1])(y)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = Block()(x)
        return nn.Dense(4)(x)


def exported(functions, tmp_path):
    variables = Net().init(jax.random.key(0), X)
    backend = OnnxBackend(functions=functions)
    artifact = xlapass.compile(lambda x: Net().apply(variables, x), X, pipeline="onnx", backend=backend)
    artifact.save(tmp_path / "net.onnx")
    return artifact, variables


def test_repeated_modules_are_one_function(tmp_path):
    artifact, variables = exported(True, tmp_path)
    (function,) = artifact.model.functions.values()
    assert function.name == "Block"
    calls = [node for node in artifact.model.graph if node.domain == "xlapass"]
    assert [node.name.split("/")[-1] for node in calls] == ["Block_0", "Block_1", "Block_2"]
    plain, _ = exported(False, tmp_path)
    assert not plain.model.functions
    assert len(list(artifact.model.graph)) < len(list(plain.model.graph)) / 2
    want = jax.jit(Net().apply)(variables, X)
    np.testing.assert_allclose(artifact.executable()(X), want, rtol=1e-4, atol=1e-5)


def test_what_differs_stays_apart(tmp_path):
    """Blocks of other widths are other functions; one alone is none."""

    class Uneven(nn.Module):
        @nn.compact
        def __call__(self, x):
            for width in (8, 8, 4, 4, 2):
                x = nn.gelu(nn.LayerNorm()(nn.Dense(width)(x)))
                x = Block()(x)
            return x

    variables = Uneven().init(jax.random.key(0), X)
    backend = OnnxBackend(functions=True)
    artifact = xlapass.compile(lambda x: Uneven().apply(variables, x), X, pipeline="onnx", backend=backend)
    names = sorted(function.name for function in artifact.model.functions.values())
    assert names[:2] == ["Block", "Block_2"]
    assert "agrees with JAX" in artifact.verification
