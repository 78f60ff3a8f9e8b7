"""Running a model under ONNX Runtime, with the types that its Python interface lacks."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import onnx
import onnx_ir as ir

from ...core.backend import Executable
from ...core.errors import CompileError, MissingDependencyError, UsageError
from ...core.program import Program
from .check import complex_output
from .operand import stored_array, stored_dtype

#: Element types for which ONNX Runtime gives and takes no numpy arrays; the session gets casts to float around them.
_NO_ARRAYS = frozenset(
    int(t)
    for t in (
        ir.DataType.BFLOAT16,
        ir.DataType.FLOAT8E4M3FN,
        ir.DataType.FLOAT8E4M3FNUZ,
        ir.DataType.FLOAT8E5M2,
        ir.DataType.FLOAT8E5M2FNUZ,
    )
)

#: A serialized model must stay below this to be one protobuf message.
PROTOBUF_LIMIT = 2**31 - 2**20


def require_onnxruntime() -> Any:
    """The module ``onnxruntime``; raises `MissingDependencyError` where it is not installed."""
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingDependencyError("running ONNX files", "onnx", "onnxruntime") from error
    return onnxruntime


class OnnxExecutable(Executable):
    """A model in an ONNX Runtime session; takes and returns the structures that the program was traced with."""

    def __init__(self, program: Program, model: bytes | str, providers: Sequence[str] = (), threads: int = 0) -> None:
        runtime = require_onnxruntime()
        available = runtime.get_available_providers()
        missing = [p for p in providers if p not in available]
        if missing:
            raise UsageError(f"this onnxruntime has no provider {missing[0]!r}", hint=f"it has: {', '.join(available)}")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        self.program = program
        self.session = runtime.InferenceSession(model, options, providers=list(providers) or ["CPUExecutionProvider"])

    def __call__(self, *args: Any) -> Any:
        """Runs on arguments of the traced structure; results are numpy arrays."""
        flat = self.run_flat(self.program.flatten_arguments(args))
        return jax.tree_util.tree_unflatten(self.program.out_tree, flat)

    def run_flat(self, flat: Sequence[Any], limit_s: float | None = None) -> list[Any]:
        """Runs on flat inputs and returns flat outputs; raises `CompileError` after ``limit_s`` seconds."""
        feed = {}
        for meta, value, aval in zip(self.session.get_inputs(), flat, self.program.in_avals, strict=True):
            array = stored_array(value if hasattr(value, "dtype") else np.asarray(value, aval.dtype))
            array = array.astype(stored_dtype(aval.dtype), copy=False)
            feed[meta.name] = array.astype(np.float32) if _faces_float(meta, array) else array
        outputs = self.session.run(None, feed) if limit_s is None else self._run_within(limit_s, feed)
        return [
            complex_output(array.astype(stored_dtype(aval.dtype), copy=False), aval.dtype)
            for array, aval in zip(outputs, self.program.out_avals, strict=True)
        ]

    def _run_within(self, limit_s: float, feed: dict[str, Any]) -> list[Any]:
        options = require_onnxruntime().RunOptions()
        late = threading.Event()

        def stop() -> None:
            late.set()
            options.terminate = True  # which the runtime looks at before each operator

        timer = threading.Timer(limit_s, stop)
        timer.start()
        try:
            outputs: list[Any] = self.session.run(None, feed, options)
        except Exception as error:  # the runtime's own types of errors share no other base
            if not late.is_set():
                raise
            raise CompileError(
                f"under ONNX Runtime the file has not ended after {limit_s:g} s",
                hint="where that is how long it takes: onnx{timeout=SECONDS}, or --no-verify, which leaves the run out",
            ) from error
        finally:
            timer.cancel()
        return outputs


def _faces_float(meta: Any, array: np.ndarray[Any, Any]) -> bool:
    return bool(meta.type == "tensor(float)" and array.dtype != np.float32)


def session_model(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with casts to and from float where an input or output has a type without numpy arrays."""
    graph = proto.graph
    inputs = [v for v in graph.input if v.type.tensor_type.elem_type in _NO_ARRAYS]
    outputs = [v for v in graph.output if v.type.tensor_type.elem_type in _NO_ARRAYS]
    if not inputs and not outputs:
        return proto
    faced = onnx.ModelProto()
    faced.CopyFrom(proto)
    graph = faced.graph
    before, after = [], []
    for value in graph.input:
        kind = value.type.tensor_type.elem_type
        if kind in _NO_ARRAYS:
            before.append(onnx.helper.make_node("Cast", [f"{value.name}:float"], [value.name], to=kind))
            value.name = f"{value.name}:float"
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for value in graph.output:
        if value.type.tensor_type.elem_type in _NO_ARRAYS:
            after.append(
                onnx.helper.make_node("Cast", [value.name], [f"{value.name}:float"], to=onnx.TensorProto.FLOAT)
            )
            value.name = f"{value.name}:float"
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return faced


def load_session(path: str | os.PathLike[str], providers: Sequence[str] = ()) -> Any:
    """An ``onnxruntime.InferenceSession`` of a file."""
    runtime = require_onnxruntime()
    return runtime.InferenceSession(os.fspath(path), providers=list(providers) or ["CPUExecutionProvider"])
