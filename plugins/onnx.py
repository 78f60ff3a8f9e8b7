"""The in-tree plugin of ONNX: the backend, the target and the pipeline ``onnx``."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.plugins import Entry, NamedPipeline, hookimpl
from ..core.target import Target

_CLEAN_UP = "fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"
_TEXT = (
    f"inline,{_CLEAN_UP},fold-batch-norm,phase(simplify),layout{{to=nchw}},fuse,phase(optimize),{_CLEAN_UP},"
    "phase(legalize),phase(finish)"
)


@hookimpl
def xlapass_backends() -> Mapping[str, Entry]:
    """ONNX."""
    return {"onnx": Entry("xlapass.backends.onnx.backend:OnnxBackend", "ONNX files, for ONNX Runtime and others")}


@hookimpl
def xlapass_targets() -> Mapping[str, Entry]:
    """Any runtime that reads ONNX."""
    return {"onnx": Entry(Target("onnx", "onnx"), "any runtime that reads ONNX")}


@hookimpl
def xlapass_pipelines() -> Mapping[str, NamedPipeline]:
    """The pipeline that ends in an ONNX file."""
    return {"onnx": NamedPipeline(_TEXT, backend="onnx", target="onnx", summary="a file for ONNX Runtime and others")}
