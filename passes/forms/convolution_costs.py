"""Costs of convolutions as XLA:CPU runs them, and of the loops that their forms are made of."""

from __future__ import annotations

import math

from ...core.forms import Signature
from . import costs
from .geometry import Geometry, dilated, signature_geometry

CONVOLUTION_FLOPS = 400e9
"""The library's 2-D convolution."""

FULL_DEPTH = 512
FULL_DEPTH_POWER = 0.3
"""With fewer multiply-adds than this per output, its rate falls by this power of them."""

AWKWARD_OUTPUTS = (16, 32)
AWKWARD_FLOPS = 15e9
"""For so few output features, or for so few and an odd number of input features, it falls back to slow loops."""

KERNEL_BYTES_PER_SECOND = 15e9
CACHED_KERNEL_BYTES = 256e3
"""How fast the kernel is brought into the library's own order, at each call; a small one costs nothing."""

TURNED_KERNEL_SECONDS = 1.5e-9
"""Per element of a kernel whose last two dimensions change places at each call."""

LINE_FLOPS = 180e9
VOLUME_FLOPS = 45e9
"""1-D and 3-D convolutions, which the library does not take."""

GROUP_FLOPS = 20e9
"""Convolutions with groups of features."""

DEPTHWISE_OUTPUT_SECONDS = 12e-9
DEPTHWISE_TAP_SECONDS = 0.65e-9
"""Per output, and per tap of it, of a depthwise convolution: scalar code on one core."""

BATCH_GROUP_TAP_SECONDS = 1e-9
"""Per multiply-add of a convolution with batch groups."""


def direct_seconds(signature: Signature) -> float:
    """The primitive itself."""
    shape = signature_geometry(signature)
    outputs = shape.out_positions * shape.out_features
    if shape.is_depthwise:
        return outputs * (DEPTHWISE_OUTPUT_SECONDS + shape.taps * DEPTHWISE_TAP_SECONDS)
    if shape.batch_groups > 1:
        return shape.multiply_adds * BATCH_GROUP_TAP_SECONDS
    return turning_seconds(signature) + convolution_seconds(shape)


def turning_seconds(signature: Signature) -> float:
    """Bringing a kernel that is no constant from ``[..., out, in]``, as gradients have it, to ``[..., in, out]``."""
    kernel = signature.operands[1]
    if kernel.constant or signature.params["dimension_numbers"].rhs_spec[0] == len(kernel.shape) - 1:
        return 0.0
    return kernel.size * TURNED_KERNEL_SECONDS


def convolution_seconds(shape: Geometry, *, rank: int | None = None, groups: int | None = None) -> float:
    """A convolution by XLA:CPU, as if it had ``rank`` spatial dimensions or ``groups`` separate parts."""
    rank = shape.rank if rank is None else rank
    weights = 4.0 * shape.taps * shape.group_features * shape.out_features
    flops = 2.0 * shape.multiply_adds / math.prod(shape.lhs_dilation)
    if groups is not None:
        joined = shape.groups / groups
        seconds = flops * joined / CONVOLUTION_FLOPS + weights * joined / KERNEL_BYTES_PER_SECOND
        return seconds + groups * 2 * costs.WAKE_SECONDS
    if shape.groups > 1:
        return flops / GROUP_FLOPS + costs.kernel(weights)
    if rank != 2:
        return flops / (LINE_FLOPS if rank == 1 else VOLUME_FLOPS) + costs.kernel(weights)
    traffic = 4.0 * (shape.in_positions * shape.in_features + shape.out_positions * shape.out_features)
    arithmetic = max(flops / _library_flops(shape), traffic / costs.CACHE_BYTES_PER_SECOND)
    packing = max(0.0, weights - CACHED_KERNEL_BYTES) / KERNEL_BYTES_PER_SECOND
    return costs.kernel(traffic) + arithmetic + packing


def _library_flops(shape: Geometry) -> float:
    """The rate of the 2-D library convolution, which depends on the features most of all."""
    depth, out = shape.group_features, shape.out_features
    if out <= AWKWARD_OUTPUTS[0] or (depth % 2 and out <= AWKWARD_OUTPUTS[1]):
        return min(CONVOLUTION_FLOPS, AWKWARD_FLOPS * (1 + depth))
    return CONVOLUTION_FLOPS * math.pow(min(1.0, depth * shape.taps / FULL_DEPTH), FULL_DEPTH_POWER)


def tap_sum_seconds(shape: Geometry) -> float:
    """One loop over shifted slices, and the padding before it."""
    operations = 2.0 * shape.multiply_adds
    outputs = 4.0 * shape.out_positions * shape.out_features
    return padding_seconds(shape) + costs.loop(2 * outputs, operations, width=shape.out_features)


def padding_seconds(shape: Geometry) -> float:
    """Padding the image, when it is padded."""
    if not any(map(any, shape.padding)) and set(shape.lhs_dilation) == {1}:
        return 0.0
    sizes = (
        dilated(size, up) + low + high
        for size, up, (low, high) in zip(shape.image, shape.lhs_dilation, shape.padding, strict=True)
    )
    return costs.loop(8.0 * shape.batch * shape.in_features * math.prod(max(size, 0) for size in sizes))
