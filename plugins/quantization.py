"""The in-tree plugin of quantization: the pass, its composites, and the pipelines that end in small integers."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.plugins import Entry, NamedPipeline, hookimpl

_CLEAN_UP = "fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"


def _text(layout: str, *steps: str) -> str:
    """The float pipeline of a backend in that layout, then ``steps``, then what every backend ends with."""
    first = f"inline,{_CLEAN_UP},fold-batch-norm,loop-fission,phase(simplify)"
    front = f"{first},layout{{to={layout}}},fuse,phase(optimize),{_CLEAN_UP}"
    return ",".join([front, *steps, "phase(legalize),phase(finish)"])


_XLA = (_CLEAN_UP, "integer-products{required=true}", "lower-composites", "select-forms", _CLEAN_UP)
_TFLITE = ("fake-quantize", "lower-composites{keep=tflite.*+quant.*}", "legalize-tflite", _CLEAN_UP)


@hookimpl
def xlapass_passes() -> Mapping[str, Entry]:
    """The passes of the package `xlapass.passes.quantize`."""
    return {
        "quantize": Entry("xlapass.passes.quantize.pass_:Quantize", "products and convolutions in small integers"),
        "equalize": Entry(
            "xlapass.passes.quantize.equalization:Equalize", "scale moved between layers, for channels of like ranges"
        ),
        "integer-products": Entry(
            "xlapass.passes.quantize.integer:IntegerProducts", "products of integers, where XLA is faster with them"
        ),
        "fake-quantize": Entry(
            "xlapass.backends.tflite.quantize:FakeQuantize", "quantizers as TFLite's converters read them"
        ),
    }


@hookimpl
def xlapass_rules() -> Mapping[str, Entry]:
    """What moves, merges and cancels quantizers."""
    return {"simplify": Entry("xlapass.passes.quantize.rules:RULES", "quantizers, moved and cancelled")}


@hookimpl
def xlapass_composites() -> Mapping[str, Entry]:
    """Arrays as small integers, and products of them."""
    here = "xlapass.passes.quantize"
    return {
        "xlapass.quantize": Entry(f"{here}.composites:QUANTIZE", "floats to small integers"),
        "xlapass.dequantize": Entry(f"{here}.composites:DEQUANTIZE", "small integers to the floats they stand for"),
        "xlapass.dynamic_range": Entry(f"{here}.dynamic:DYNAMIC_RANGE", "a value whose range the runtime measures"),
        "xlapass.dynamic_dot": Entry(f"{here}.dynamic:DYNAMIC_DOT", "a product whose range is measured at run time"),
    }


@hookimpl
def xlapass_pipelines() -> Mapping[str, NamedPipeline]:
    """Pipelines whose products are integer kernels."""
    return {
        "cpu-int8": NamedPipeline(
            _text("nhwc", "quantize{target=xla}", *_XLA),
            backend="xla",
            target="cpu",
            summary="int8 for this machine's CPU by XLA, with ranges from calibration data",
        ),
        "onnx-int8": NamedPipeline(
            _text("nchw", "quantize{target=onnx}", _CLEAN_UP),
            backend="onnx{integer-kernels=true}",
            target="onnx",
            summary="int8 for ONNX Runtime, with ranges from calibration data",
        ),
        "onnx-dynamic": NamedPipeline(
            _text("nchw", "quantize{target=onnx,scheme=dynamic}", _CLEAN_UP),
            backend="onnx{integer-kernels=true}",
            target="onnx",
            summary="int8 for ONNX Runtime, with ranges measured at run time",
        ),
        "mobile": NamedPipeline(
            _text("nhwc", "quantize{target=tflite}", *_TFLITE),
            backend="tflite{integer-kernels=true}",
            target="tflite",
            summary="int8 for phones, by LiteRT, with ranges from calibration data",
        ),
        "edge": NamedPipeline(
            _text("nhwc", "quantize{target=tflite,scheme=dynamic}", *_TFLITE),
            backend="tflite{integer-kernels=true}",
            target="tflite",
            summary="int8 for small machines, by LiteRT, with ranges measured at run time",
        ),
    }
