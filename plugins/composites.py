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
        "xlapass.gelu/cpu": Entry(f"{here}.gelu:GELU_ON_CPU", "the exact one by erf, which XLA:CPU runs faster"),
        "xlapass.silu": Entry(f"{here}.silu:SILU", "x * sigmoid(x)"),
        "xlapass.softmax": Entry(f"{here}.softmax:SOFTMAX", "normalized exponentials"),
        "xlapass.quick_gelu": Entry(f"{here}.gelu:QUICK_GELU", "x * sigmoid(1.702 * x)"),
        "xlapass.log_softmax": Entry(f"{here}.log_softmax:LOG_SOFTMAX", "logarithm of softmax"),
        "xlapass.relu6": Entry(f"{here}.hard_swish:RELU6", "x between 0 and 6"),
        "xlapass.hard_sigmoid": Entry(f"{here}.hard_swish:HARD_SIGMOID", "relu6(x + 3) / 6"),
        "xlapass.hard_swish": Entry(f"{here}.hard_swish:HARD_SWISH", "x * hard_sigmoid(x)"),
        "xlapass.softplus": Entry(f"{here}.softplus:SOFTPLUS", "log(1 + exp(x))"),
        "xlapass.mish": Entry(f"{here}.softplus:MISH", "x * tanh(softplus(x))"),
        "xlapass.elu": Entry(f"{here}.exponential_units:ELU", "x, or alpha * (exp(x) - 1) below zero"),
        "xlapass.selu": Entry(f"{here}.exponential_units:SELU", "the multiple of elu that normalizes itself"),
        "xlapass.celu": Entry(f"{here}.exponential_units:CELU", "elu with a continuous slope"),
        "xlapass.leaky_relu": Entry(f"{here}.exponential_units:LEAKY_RELU", "x, or slope * x below zero"),
        "xlapass.attention": Entry(f"{here}.attention:ATTENTION", "softmax(scale * q . k + masks) . v"),
        "xlapass.layer_norm": Entry(f"{here}.layer_norm:LAYER_NORM", "zero mean and unit variance along axes"),
        "xlapass.rms_norm": Entry(f"{here}.rms_norm:RMS_NORM", "unit mean square along axes"),
        "xlapass.l2_norm": Entry(f"{here}.l2_norm:L2_NORM", "x divided by its norm along axes"),
        "xlapass.rotary_embedding": Entry(
            f"{here}.rotary_embedding:ROTARY_EMBEDDING", "pairs of elements turned by angles"
        ),
        "xlapass.conv_bias_act": Entry(
            f"{here}.biased_products:CONV_BIAS_ACT", "convolution, bias, activation; where asked for or with a kernel"
        ),
        "xlapass.linear_bias_act": Entry(
            f"{here}.biased_products:LINEAR_BIAS_ACT", "dense layer, bias, activation; where asked for or with a kernel"
        ),
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
