"""The policies that come with xlapass."""

from __future__ import annotations

from ...core.precision import Treatment
from .cpu import why_slower

# Rounding commutes with these bit for bit: they move values, or pick the larger of two.
_FOLLOWERS = (
    "abs", "broadcast_in_dim", "clamp", "concatenate", "copy", "copy_p", "dynamic_slice", "expand_dims", "gather",
    "max", "min", "name", "neg", "pad", "reshape", "rev", "select_n", "slice", "squeeze", "stop_gradient", "transpose",
)  # fmt: skip

FOLLOWERS = tuple(Treatment(name, "follow") for name in _FOLLOWERS)
"""In every policy. Reductions to the largest are not among them, which would round more than they leave."""

PRODUCTS = (
    Treatment("dot_general"),
    Treatment("ragged_dot_general"),
    Treatment("conv_general_dilated"),
    # Kernels of attention take queries, keys and values of one type, and give a result of it; masks stay what they are.
    Treatment("composite:xlapass.attention", operands=(0, 1, 2)),
)
"""Products and convolutions, added up in float32. All else stays in float32."""

CUDA = (
    *(row for row in PRODUCTS if row.operation != "conv_general_dilated"),
    Treatment("conv_general_dilated", accumulate="small"),
)
"""The same on NVIDIA GPUs, where cuDNN adds convolutions up in float32 and gives them in the type of its operands."""

CPU = (
    Treatment("dot_general", check=why_slower),
    Treatment("conv_general_dilated", check=lambda _: "XLA:CPU is no faster with it"),
)
"""What XLA:CPU runs faster: large products of bfloat16."""

# Where a rounding more makes little difference, and memory traffic is what takes time. Sums over many terms,
# exponentials, and divisions by what may be small are not here.
_ACTIVATIONS = ("add", "add_any", "max", "min", "mul", "neg", "select_n", "sub")

# What must not be taken apart: the operations above also occur inside.
_WHOLE = (
    "celu", "elu", "gelu", "group_norm", "hard_sigmoid", "hard_swish", "instance_norm", "l2_norm", "layer_norm",
    "log_softmax", "mish", "quick_gelu", "rms_norm", "rotary_embedding", "selu", "silu", "softmax", "softplus",
)  # fmt: skip

ACTIVATIONS = (
    *PRODUCTS,
    *(Treatment(name, between=True) for name in _ACTIVATIONS),
    *(Treatment(f"composite:xlapass.{name}", "keep") for name in _WHOLE),
)
"""As `PRODUCTS`, and what stands between them, so that their results are held small too."""
