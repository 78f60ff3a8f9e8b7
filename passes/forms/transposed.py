"""Transposed convolution without the zeros: one small convolution per output phase.

Output ``o`` of a convolution whose image is spread by ``d`` only sees the taps that fall on elements, not on holes.
Those depend on ``o`` modulo ``d``; each of the ``d`` phases per dimension is an ordinary convolution with its part of
the kernel (W. Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network", CVPR 2016).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...core.forms import Form, Signature
from . import costs
from .convolution_costs import convolution_seconds, tap_sum_seconds
from .depthwise import MAX_TAPS, tap_sum
from .geometry import (
    Geometry,
    channels_last,
    dilated,
    from_channels_last,
    geometry,
    kernel_last,
    plain_convolution,
    result_dtype,
    signature_geometry,
    why_unusual,
)

TAKEN_KERNEL_SECONDS = 2e-9
"""Per element of a kernel that is no constant and is taken apart at each call."""

MAX_PHASES = 16
"""More phases than this make too large a program."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """The taps that one phase of one dimension sees: every ``step``-th from ``first``, ``count`` of them.

    Attributes:
      offset: the image element that the first tap sees for the phase's first output; may lie outside the image.
      spacing: image elements between neighbouring taps.
    """

    first: int
    step: int
    count: int
    offset: int
    spacing: int


def phase_of(remainder: int, dilation: int, taps: int, tap_dilation: int, low: int) -> Phase | None:
    """The phase of the outputs that leave ``remainder`` modulo ``dilation``; None when they see no tap."""
    seen = [t for t in range(taps) if (remainder + t * tap_dilation - low) % dilation == 0]
    if not seen:
        return None
    step = dilation // math.gcd(dilation, tap_dilation)
    offset = (remainder + seen[0] * tap_dilation - low) // dilation
    return Phase(seen[0], step, len(seen), offset, step * tap_dilation // dilation)


def phase_sum(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A convolution of stride 1 with a dilated image, as one convolution per phase, interleaved."""
    shape = geometry(lhs.shape, rhs.shape, params)
    image, kernel = channels_last(lhs, params), kernel_last(rhs, params)
    counts = [-(-size // up) for size, up in zip(shape.out_image, shape.lhs_dilation, strict=True)]
    dtype = result_dtype(lhs, params)
    blank = jnp.zeros((shape.batch, *counts, shape.out_features), dtype)
    parts = []
    for remainders in itertools.product(*map(range, shape.lhs_dilation)):
        phases = _phases(shape, remainders)
        parts.append(blank if None in phases else _one_phase(image, kernel, phases, counts, shape, params))
    out = interleave(parts, shape.lhs_dilation, first_axis=1)
    out = lax.slice(out, (0,) * out.ndim, (shape.batch, *shape.out_image, shape.out_features))
    return from_channels_last(out, params)


def _phases(shape: Geometry, remainders: Sequence[int]) -> list[Any]:
    return [
        phase_of(remainder, up, taps, down, low)
        for remainder, up, taps, down, (low, _) in zip(
            remainders, shape.lhs_dilation, shape.kernel, shape.rhs_dilation, shape.padding, strict=True
        )
    ]


def _one_phase(
    image: jax.Array, kernel: jax.Array, phases: Sequence[Phase], counts: Sequence[int], shape: Geometry, params: Any
) -> jax.Array:
    taps = tuple(slice(p.first, p.first + (p.count - 1) * p.step + 1, p.step) for p in phases)
    padding = []
    for phase, size, count in zip(phases, shape.image, counts, strict=True):
        reach = dilated(phase.count, phase.spacing) - 1
        padding.append((-phase.offset, count + reach + phase.offset - size))
    strides = (1,) * shape.rank
    part = kernel[taps]
    spacing = tuple(phase.spacing for phase in phases)
    if shape.group_features != 1:
        return plain_convolution(
            image, part, params, strides=strides, padding=padding, rhs_dilation=spacing, groups=shape.groups
        )
    order = (0, shape.rank + 1, *range(1, shape.rank + 1))
    kernel_order = (shape.rank + 1, shape.rank, *range(shape.rank))
    return tap_sum(
        image,
        part,
        **params
        | {
            "window_strides": strides,
            "padding": padding,
            "lhs_dilation": strides,
            "rhs_dilation": spacing,
            "dimension_numbers": lax.ConvDimensionNumbers(order, kernel_order, order),
        },
    )


def interleave(parts: list[jax.Array], dilation: Sequence[int], first_axis: int = 0) -> jax.Array:
    """Joins phases, that of the last dimension fastest, to an array ``dilation`` times their size."""
    for axis in range(first_axis + len(dilation) - 1, first_axis - 1, -1):
        up = dilation[axis - first_axis]
        if up == 1:
            continue
        shape = list(parts[0].shape)
        shape[axis] *= up
        groups = [parts[start : start + up] for start in range(0, len(parts), up)]
        parts = [jnp.stack(group, axis=axis + 1).reshape(shape) for group in groups]
    return parts[0]


def _applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if set(shape.lhs_dilation) == {1}:
        return "its image is not dilated"
    if set(shape.strides) != {1}:
        return "it has strides besides the dilation of its image"
    if shape.batch_groups != 1:
        return "it has batch groups"
    if math.prod(shape.lhs_dilation) > MAX_PHASES:
        return f"it has more than {MAX_PHASES} phases"
    if shape.group_features == 1 and shape.taps > MAX_TAPS:
        return f"its kernel has {shape.taps} taps, more than {MAX_TAPS}"
    return why_unusual(signature)


def _cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    phases = math.prod(shape.lhs_dilation)
    interleaving = costs.loop(8.0 * shape.out_positions * shape.out_features) + phases * costs.WAKE_SECONDS
    if shape.group_features == 1:
        return tap_sum_seconds(dataclasses.replace(shape, lhs_dilation=(1,) * shape.rank)) / phases + interleaving
    # Each phase has its part of the taps and of the outputs, which together are all taps of one phase's outputs.
    outputs = tuple(-(-size // up) for size, up in zip(shape.out_image, shape.lhs_dilation, strict=True))
    phase = dataclasses.replace(shape, lhs_dilation=(1,) * shape.rank, out_image=outputs)
    kernel = 0.0 if signature.operands[1].constant else TAKEN_KERNEL_SECONDS * signature.operands[1].size
    return convolution_seconds(phase) + interleaving + kernel


FORMS = (Form("phase-sum", "conv_general_dilated", phase_sum, _applies, _cost),)
