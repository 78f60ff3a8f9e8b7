"""The in-tree plugin of ONNX: the backend, the target and the pipeline ``onnx``."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.plugins import Entry, NamedPipeline, hookimpl
from ..core.target import Target

_CLEAN_UP = "fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"
#: What works along an axis is recognised before transposes move, and stops those that would spread from a
#: convolution into a whole transformer; what works on elements lets them pass, and is recognised behind them.
_ALONG_AXES = "fuse{of=xlapass.layer_norm+xlapass.rms_norm+xlapass.attention}"
_TEXT = (
    f"inline,{_CLEAN_UP},fold-batch-norm,loop-fission,phase(simplify),{_ALONG_AXES},layout{{to=nchw}},fuse,phase(optimize),"
    f"{_CLEAN_UP},phase(legalize),phase(finish)"
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
