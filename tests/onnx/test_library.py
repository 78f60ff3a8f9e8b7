"""JAX's library through the whole ``onnx`` pipeline: what the file computes is checked against JAX as it is written."""

import os

import jax
import numpy as np
import onnx_library
import pytest

pytest.importorskip("onnx_ir", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

import xlapass

CALLS = dict(onnx_library.calls())
#: A sample in `make test`, all of them in `make sweep`.
NAMES = list(CALLS) if os.environ.get("XLAPASS_SWEEP") == "1" else list(CALLS)[::29]


@pytest.mark.parametrize("name", NAMES)
def test_call(name):
    function, arguments = CALLS[name]
    with jax.enable_x64(name.startswith("x64")):
        artifact = xlapass.compile(function, *arguments, pipeline="onnx")
        assert "agrees with JAX" in artifact.verification
        have = jax.tree_util.tree_leaves(artifact.executable()(*arguments))
    for array in have:
        assert isinstance(np.asarray(array), np.ndarray)
