"""The in-tree plugin of TFLite: the backend, the target and the pipeline ``tflite``."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.plugins import Entry, NamedPipeline, hookimpl
from ..core.target import Target

_CLEAN_UP = "fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"
_TEXT = (
    f"inline,{_CLEAN_UP},fold-batch-norm,loop-fission,phase(simplify),layout{{to=nhwc}},fuse{{with-kernel=true}},"
    "phase(optimize),"
    f"{_CLEAN_UP},lower-composites{{keep=tflite.*}},resize-tflite,merge-scales,fold-batch-norm,split-depthwise,"
    f"split-transposed,legalize-tflite,{_CLEAN_UP},"
    "phase(legalize),phase(finish)"
)


@hookimpl
def xlapass_passes() -> Mapping[str, Entry]:
    """Legalization, and what TFLite has an operator for."""
    return {
        "split-depthwise": Entry(
            "xlapass.backends.tflite.depthwise:SplitDepthwise", "large depthwise convolutions as sums of small ones"
        ),
        "split-transposed": Entry(
            "xlapass.backends.tflite.transposed:SplitTransposed", "transposed convolutions as ordinary ones"
        ),
        "resize-tflite": Entry(
            "xlapass.backends.tflite.resize:ResizeTFLite", "image resizing as the operators that TFLite has for it"
        ),
        "legalize-tflite": Entry(
            "xlapass.backends.tflite.legalize:LegalizeTFLite", "say what TFLite lacks in operations that it has"
        ),
    }


@hookimpl
def xlapass_composites() -> Mapping[str, Entry]:
    """Composites that are one TFLite operator."""
    here = "xlapass.backends.tflite.kernels"
    names = ("gelu", "hard_swish", "softmax", "log_softmax", "elu", "leaky_relu")
    return {f"xlapass.{n}/tflite": Entry(f"{here}:{n.upper()}", f"the operator {n.upper()}") for n in names}


@hookimpl
def xlapass_backends() -> Mapping[str, Entry]:
    """TFLite."""
    return {"tflite": Entry("xlapass.backends.tflite.backend:TfliteBackend", "TFLite files, for LiteRT on phones")}


@hookimpl
def xlapass_targets() -> Mapping[str, Entry]:
    """Any runtime that reads TFLite."""
    return {"tflite": Entry(Target("tflite", "tflite"), "any runtime that reads TFLite files")}


@hookimpl
def xlapass_pipelines() -> Mapping[str, NamedPipeline]:
    """The pipeline that ends in a TFLite file."""
    return {"tflite": NamedPipeline(_TEXT, backend="tflite", target="tflite", summary="a file for phones, by LiteRT")}
