"""Running a function through the ONNX backend and ONNX Runtime, beside JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

import onnx_ir as ir
import onnxruntime
from xlapass.backends.onnx.check import check_structure, complex_output
from xlapass.backends.onnx.export import ExportOptions, export
from xlapass.backends.onnx.operand import is_key, stored_array
from xlapass.backends.onnx.runtime import session_model


def run_model(model: ir.Model, args: Any, avals: Any) -> list[np.ndarray]:
    """The model's outputs under ONNX Runtime, in JAX's dtypes."""
    proto = session_model(ir.to_proto(model))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {}
    for meta, value in zip(session.get_inputs(), args, strict=True):
        array = stored_array(value)
        feed[meta.name] = array.astype(np.float32) if meta.type == "tensor(float)" else array
    outputs = session.run(None, feed)
    results = []
    for array, aval in zip(outputs, avals, strict=True):
        kept = array if is_key(aval.dtype) or np.dtype(aval.dtype).kind == "c" else array.astype(aval.dtype)
        results.append(complex_output(kept, aval.dtype))
    return results


@pytest.fixture(scope="session")
def agrees() -> Callable[..., ir.Model]:
    """``agrees(fn, *args, rtol=, atol=, opset=)``: exports, checks, runs, compares with ``jax.jit``; gives the model.

    With rtol=0 and atol=0 the comparison is exact (NaN equals NaN).
    """

    def check(fn: Callable[..., Any], *args: Any, rtol: float = 1e-5, atol: float = 1e-6, opset: int = 0) -> ir.Model:
        closed = jax.make_jaxpr(fn)(*args)
        model = export(closed, options=ExportOptions(opset=opset))
        check_structure(model)
        expected = jax.tree_util.tree_leaves(jax.jit(fn)(*args))
        results = run_model(model, args, closed.out_avals)
        assert len(expected) == len(results)
        for want, have in zip(expected, results, strict=True):
            a, b = (stored_array(v) for v in (want, have))
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            if a.dtype.kind in "biu":
                np.testing.assert_array_equal(b, a)
            else:
                np.testing.assert_allclose(
                    b.astype(np.float64), a.astype(np.float64), rtol=rtol, atol=atol, equal_nan=True
                )
        return model

    return check


@pytest.fixture(scope="session")
def operators() -> Callable[..., list[str]]:
    """``operators(fn, *args)``: the operators of the exported graph, in order."""

    def listed(fn: Callable[..., Any], *args: Any, **options: Any) -> list[str]:
        return [node.op_type for node in export(jax.make_jaxpr(fn)(*args), options=ExportOptions(**options)).graph]

    return listed
