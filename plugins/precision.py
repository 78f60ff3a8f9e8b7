"""The in-tree plugin of mixed precision: the pass, its policies, and pipelines that begin with it."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.plugins import Entry, NamedPipeline, hookimpl

_CLEAN_UP = "fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"
# Weights are rounded once all that is known about them is folded into them, and after what wants to know them or takes
# products away: the passes of the pipelines of XLA that come again later find nothing more to do.
_GPU = f"inline,{_CLEAN_UP},fold-batch-norm,loop-fission,fuse{{with-kernel=true}}"
_CPU = f"inline,{_CLEAN_UP},fold-batch-norm,loop-fission,layout{{to=nhwc}},fuse{{with-kernel=true}},banded-products"


@hookimpl
def xlapass_passes() -> Mapping[str, Entry]:
    """Mixed precision."""
    return {
        "mixed-precision": Entry(
            "xlapass.passes.mixed_precision:MixedPrecision", "products in a small float, the rest in float32"
        )
    }


@hookimpl
def xlapass_precision_policies() -> Mapping[str, Entry]:
    """The policies of `xlapass.passes.mixed_precision.tables`."""
    here = "xlapass.passes.mixed_precision.tables"
    return {
        "every": Entry(f"{here}:FOLLOWERS", "what moves values, in whatever type: part of every policy"),
        "products": Entry(f"{here}:PRODUCTS", "products and convolutions; the usual one"),
        "cuda": Entry(f"{here}:CUDA", "products and convolutions, as NVIDIA GPUs do them"),
        "cpu": Entry(f"{here}:CPU", "products of bfloat16 that XLA:CPU runs faster"),
        "activations": Entry(f"{here}:ACTIVATIONS", "products and convolutions, and what stands between them"),
    }


@hookimpl
def xlapass_pipelines() -> Mapping[str, NamedPipeline]:
    """The pipelines of XLA, after mixed precision."""
    return {
        "cpu-bf16": NamedPipeline(
            f"{_CPU},mixed-precision,cpu",
            backend="xla",
            target="cpu",
            summary="cpu, with large products in bfloat16 where this CPU has instructions for it",
        ),
        "gpu-bf16": NamedPipeline(
            f"{_GPU},mixed-precision,gpu",
            backend="xla",
            target="gpu",
            summary="gpu, with products and convolutions in bfloat16",
        ),
        "gpu-f16": NamedPipeline(
            f"{_GPU},mixed-precision{{dtype=float16}},gpu",
            backend="xla",
            target="gpu",
            summary="gpu, with products and convolutions in float16",
        ),
    }
