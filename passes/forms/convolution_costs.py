"""Costs of convolutions as XLA:CPU runs them, and of the loops that their forms are made of."""

from __future__ import annotations

import math

from ...core.forms import Signature
from . import costs
from .geometry import Geometry, dilated, signature_geometry

CONVOLUTION_FLOPS = 400e9
"""The 2-D convolution of YNNPACK, which XLA takes, on two cores."""

PARALLEL_OUTPUTS = 64
PARALLEL_ROW = 4e5
"""It stays on one core with fewer output features than the first, or twice as many in an image of one row, or where a
row of outputs has fewer products per tap than the second, or twice as many with strides."""

FULL_DEPTH = 288
FULL_DEPTH_POWER = 0.3
"""With fewer multiply-adds than this per output, its rate falls by this power of them."""

AWKWARD_OUTPUTS = (16, 32)
AWKWARD_FLOPS = 15e9
"""For so few output features, or for so few and an odd number of input features, it falls back to slow loops."""

KERNEL_BYTES_PER_SECOND = 9e9
CACHED_KERNEL_BYTES = 256e3
"""How fast the kernel is brought into the library's own order, at each call; a small one costs nothing."""

TURNED_KERNEL_SECONDS = 1.5e-9
"""Per element of a kernel whose last two dimensions change places at each call."""

EIGEN_FLOPS = 330e9
EIGEN_SECONDS = 100e-6
EIGEN_KERNEL_BYTES_PER_SECOND = 15e9
"""The convolution of Eigen, which XLA takes for lines and for dilated images: its rate, what it takes to get there, and
how fast it brings the kernel into its own order."""

EIGEN_OUTPUTS = 48
EIGEN_DEPTH = 8
"""With fewer output or input features than these, it is slower in proportion, but not more than by half."""

VOLUME_FLOPS = 45e9
"""3-D convolutions, which neither library takes."""

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
    if groups is None and rank == 2 and shape.is_plain and set(shape.lhs_dilation) != {1}:
        return eigen_seconds(shape)
    weights = 4.0 * shape.taps * shape.group_features * shape.out_features
    flops = 2.0 * shape.multiply_adds / math.prod(shape.lhs_dilation)
    if groups is not None:
        joined = shape.groups / groups
        seconds = flops * joined / CONVOLUTION_FLOPS + weights * joined / KERNEL_BYTES_PER_SECOND
        return seconds + groups * 2 * costs.WAKE_SECONDS
    if shape.groups > 1:
        return flops / GROUP_FLOPS + costs.kernel(weights)
    if rank == 1:
        return eigen_seconds(shape) - EIGEN_SECONDS
    if rank != 2:
        return flops / VOLUME_FLOPS + costs.kernel(weights)
    traffic = _traffic(shape)
    arithmetic = max(flops / _library_flops(shape), traffic / costs.CACHE_BYTES_PER_SECOND)
    packing = max(0.0, weights - CACHED_KERNEL_BYTES) / KERNEL_BYTES_PER_SECOND
    return costs.kernel(traffic) + arithmetic + packing


def eigen_seconds(shape: Geometry) -> float:
    """A 2-D convolution without groups by XLA:CPU's other library."""
    traffic, flops = _traffic(shape), 2.0 * shape.multiply_adds / math.prod(shape.lhs_dilation)
    rate = EIGEN_FLOPS * _depth_fill(shape)
    for side, wanted in ((shape.out_features, EIGEN_OUTPUTS), (shape.in_features, EIGEN_DEPTH)):
        rate *= min(1.0, max(0.5, side / wanted))
    arithmetic = max(flops / rate, traffic / costs.CACHE_BYTES_PER_SECOND)
    packing = 4.0 * shape.taps * shape.in_features * shape.out_features / EIGEN_KERNEL_BYTES_PER_SECOND
    return EIGEN_SECONDS + arithmetic + packing


def _traffic(shape: Geometry) -> float:
    """Bytes of image and result."""
    return 4.0 * (shape.in_positions * shape.in_features + shape.out_positions * shape.out_features)


def _depth_fill(shape: Geometry) -> float:
    """The part of its full rate that a library reaches with so many multiply-adds per output."""
    return math.pow(min(1.0, shape.group_features * shape.taps / FULL_DEPTH), FULL_DEPTH_POWER)


def _is_parallel(shape: Geometry) -> bool:
    """Whether the library spreads the convolution over the cores."""
    row = shape.out_image[-1] * shape.group_features * shape.out_features
    outputs = PARALLEL_OUTPUTS * (2 if shape.out_positions == shape.out_image[-1] else 1)
    return shape.out_features >= outputs and row >= PARALLEL_ROW * (1 if set(shape.strides) == {1} else 2)


def _library_flops(shape: Geometry) -> float:
    """The rate of the 2-D library convolution, which depends on the features most of all."""
    depth, out = shape.group_features, shape.out_features
    rate = CONVOLUTION_FLOPS * (1.0 if _is_parallel(shape) else 0.5) * _depth_fill(shape)
    if out <= AWKWARD_OUTPUTS[0] or (depth % 2 and out <= AWKWARD_OUTPUTS[1]):
        rate = min(rate, AWKWARD_FLOPS * (1 + depth))
    return rate


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
