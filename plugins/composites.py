"""The in-tree plugin of composites: the operations, the passes that find and lower them, and their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.plugins import Entry, PhasePasses, hookimpl

_XLA = ("cpu", "gpu")
"""XLA knows no composites: those for which no plugin brings a kernel are neither looked for nor left."""


@hookimpl
def xlapass_passes() -> Mapping[str, Entry]:
    """Finding composites, and getting rid of them."""
    return {
        "fuse": Entry("xlapass.passes.fuse:Fuse", "recognise operations that together mean one"),
        "lower-composites": Entry(
            "xlapass.passes.lower_composites:LowerComposites", "replace composites by kernels or decompositions"
        ),
    }


@hookimpl
def xlapass_composites() -> Mapping[str, Entry]:
    """The operations of the package `xlapass.passes.composites`."""
    here = "xlapass.passes.composites"
    return {
        "xlapass.gelu": Entry(f"{here}.gelu:GELU", "x * normal_cdf(x), exact or by tanh"),
        "xlapass.silu": Entry(f"{here}.silu:SILU", "x * sigmoid(x)"),
        "xlapass.softmax": Entry(f"{here}.softmax:SOFTMAX", "normalized exponentials"),
        "xlapass.attention": Entry(f"{here}.attention:ATTENTION", "softmax(scale * q . k + masks) . v"),
        "xlapass.layer_norm": Entry(f"{here}.layer_norm:LAYER_NORM", "zero mean and unit variance along axes"),
        "xlapass.rms_norm": Entry(f"{here}.rms_norm:RMS_NORM", "unit mean square along axes"),
        "xlapass.group_norm": Entry(f"{here}.group_norm:GROUP_NORM", "layer norm of groups of channels"),
        "xlapass.instance_norm": Entry(f"{here}.group_norm:INSTANCE_NORM", "layer norm of each channel"),
    }


@hookimpl
def xlapass_phases() -> Sequence[PhasePasses]:
    """Kernels that plugins bring for a CPU or GPU are used without being asked for."""
    return [
        PhasePasses("optimize", "fuse{with-kernel=true}", pipelines=_XLA),
        PhasePasses("legalize", "lower-composites", pipelines=_XLA),
    ]
