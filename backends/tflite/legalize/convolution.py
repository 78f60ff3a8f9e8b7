"""Convolutions: channels last, one batch group, and transposed ones as TFLite pads them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ....core.node import Node
from .rule import node_lowering

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a convolution of known sizes is, spatial dimensions in order.

    Attributes:
      image, kernel: sizes.
      strides, lhs_dilation, rhs_dilation: steps.
      padding: in front and behind.
      groups, batch_groups: how often the features, or the batch, are divided.
      features: of the image.
    """

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    groups: int
    batch_groups: int
    features: int

    @property
    def rank(self) -> int:
        """Number of spatial dimensions."""
        return len(self.image)

    @property
    def out(self) -> tuple[int, ...]:
        """Spatial sizes of the result."""
        sizes = []
        for k in range(self.rank):
            spread = (self.image[k] - 1) * self.lhs_dilation[k] + 1 + sum(self.padding[k])
            reach = (self.kernel[k] - 1) * self.rhs_dilation[k] + 1
            sizes.append(max((spread - reach) // self.strides[k] + 1, 0))
        return tuple(sizes)


def shape_of(node: Node) -> Shape:
    """The convolution that a node is."""
    params = node.params
    numbers = params["dimension_numbers"]
    image, kernel = node.inputs[0].shape, node.inputs[1].shape
    rank = len(image) - 2
    return Shape(
        tuple(image[a] for a in numbers.lhs_spec[2:]),
        tuple(kernel[a] for a in numbers.rhs_spec[2:]),
        tuple(params["window_strides"]),
        tuple((int(low), int(high)) for low, high in params["padding"]),
        tuple(params["lhs_dilation"] or (1,) * rank),
        tuple(params["rhs_dilation"] or (1,) * rank),
        params["feature_group_count"],
        params["batch_group_count"],
        image[numbers.lhs_spec[1]],
    )


def channels_last(rank: int) -> lax.ConvDimensionNumbers:
    """``[batch, *image, features]`` and ``[*kernel, in, out]``."""
    image = (0, rank + 1, *range(1, rank + 1))
    return lax.ConvDimensionNumbers(image, (rank + 1, rank, *range(rank)), image)


def _is_channels_last(node: Node) -> bool:
    numbers = node.params["dimension_numbers"]
    return tuple(map(tuple, numbers)) == tuple(map(tuple, channels_last(len(numbers.lhs_spec) - 2)))


def convolve(image: Array, kernel: Array, shape: Shape, dtype: Any, **changes: Any) -> Array:
    """A convolution, channels last."""
    shape = dataclasses.replace(shape, **changes)
    return lax.conv_general_dilated(
        image,
        kernel,
        window_strides=shape.strides,
        padding=shape.padding,
        lhs_dilation=shape.lhs_dilation,
        rhs_dilation=shape.rhs_dilation,
        dimension_numbers=channels_last(shape.rank),
        feature_group_count=shape.groups,
        batch_group_count=shape.batch_groups,
        preferred_element_type=dtype,
    )


# -- layout ------------------------------------------------------------------------------------------------------------


def _turned(node: Node, image: Array, kernel: Array) -> Array:
    numbers, rank = node.params["dimension_numbers"], len(node.inputs[0].shape) - 2
    image = lax.transpose(image, (numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1]))
    kernel = lax.transpose(kernel, (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0]))
    out = convolve(image, kernel, shape_of(node), node.params["preferred_element_type"])
    place = {numbers.out_spec[0]: 0, numbers.out_spec[1]: rank + 1}
    place.update({axis: k + 1 for k, axis in enumerate(numbers.out_spec[2:])})
    return lax.transpose(out, [place[axis] for axis in range(rank + 2)])


def _why_not_turned(node: Node) -> str | None:
    return "its channels are last" if _is_channels_last(node) else None


# -- groups ------------------------------------------------------------------------------------------------------------


def _batch_groups(node: Node, image: Array, kernel: Array) -> Array:
    """Part of the batch with part of the kernel; the results are features."""
    shape, dtype = shape_of(node), node.params["preferred_element_type"]
    images, kernels = jnp.split(image, shape.batch_groups, 0), jnp.split(kernel, shape.batch_groups, -1)
    parts = [convolve(i, k, shape, dtype, batch_groups=1) for i, k in zip(images, kernels, strict=True)]
    return jnp.concatenate(parts, axis=-1)


def _why_not_batch_groups(node: Node) -> str | None:
    if not _is_channels_last(node):
        return "its channels are not last"
    return "it has one batch group" if node.params["batch_group_count"] == 1 else None


def _feature_groups(node: Node, image: Array, kernel: Array) -> Array:
    shape, dtype = shape_of(node), node.params["preferred_element_type"]
    images, kernels = jnp.split(image, shape.groups, -1), jnp.split(kernel, shape.groups, -1)
    parts = [convolve(i, k, shape, dtype, groups=1) for i, k in zip(images, kernels, strict=True)]
    return jnp.concatenate(parts, axis=-1)


def _why_not_feature_groups(node: Node) -> str | None:
    shape = shape_of(node)
    if not _is_channels_last(node) or shape.groups == 1 or shape.batch_groups != 1:
        return "it has no groups to split"
    is_spread = any(d != 1 for d in shape.lhs_dilation)
    if shape.rank <= 2 and not is_spread:
        return "TFLite has it with groups"
    return None


# -- transposed convolutions -------------------------------------------------------------------------------------------


def _is_transposed(shape: Shape) -> bool:
    return any(d != 1 for d in shape.lhs_dilation)


def _fits_transposed(shape: Shape) -> bool:
    """Whether TRANSPOSE_CONV can compute it, once its result is cropped."""
    plain = all(s == 1 for s in (*shape.strides, *shape.rhs_dilation)) and shape.groups == shape.batch_groups == 1
    return plain and shape.rank <= 2 and all(shape.image)


def _is_as_tflite_pads(shape: Shape) -> bool:
    """Whether the padding is one that the converter reads rightly: none of the result is cropped, or evenly."""
    cropped = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(shape.kernel, shape.padding, strict=True)]
    if all(low == high == 0 for low, high in cropped):
        return True
    for k, (low, high) in enumerate(cropped):
        total = (shape.image[k] - 1) * shape.lhs_dilation[k] + shape.kernel[k] - shape.image[k] * shape.lhs_dilation[k]
        if low < 1 or total < 0 or (low, high) != (total // 2, total - total // 2):
            return False
    return True


def _cropped(node: Node, image: Array, kernel: Array) -> Array:
    """All of the transposed convolution, and of it the part that is wanted."""
    shape, dtype = shape_of(node), node.params["preferred_element_type"]
    whole = convolve(image, kernel, shape, dtype, padding=tuple((k - 1, k - 1) for k in shape.kernel))
    edges = [(low - (k - 1), high - (k - 1), 0) for k, (low, high) in zip(shape.kernel, shape.padding, strict=True)]
    return lax.pad(whole, jnp.zeros((), whole.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def _why_not_cropped(node: Node) -> str | None:
    shape = shape_of(node)
    if not _is_channels_last(node) or not _is_transposed(shape) or not _fits_transposed(shape):
        return "it is no transposed convolution that TFLite has"
    return "its padding is one of TFLite's" if _is_as_tflite_pads(shape) else None


def _spread(node: Node, image: Array, kernel: Array) -> Array:
    """Zeros are put between the elements of the image first."""
    shape, dtype = shape_of(node), node.params["preferred_element_type"]
    edges = [(low, high, d - 1) for (low, high), d in zip(shape.padding, shape.lhs_dilation, strict=True)]
    spread = lax.pad(image, jnp.zeros((), image.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    ones, none = (1,) * shape.rank, ((0, 0),) * shape.rank
    return convolve(spread, kernel, shape, dtype, lhs_dilation=ones, padding=none)


def _why_not_spread(node: Node) -> str | None:
    shape = shape_of(node)
    if not _is_channels_last(node) or not _is_transposed(shape) or shape.batch_groups != 1:
        return "its image is not spread"
    if _fits_transposed(shape):
        return "it is a transposed convolution"
    return "its groups are split first" if shape.groups != 1 else None


# -- what has no kernel ------------------------------------------------------------------------------------------------


def _by_taps(node: Node, image: Array, kernel: Array) -> Array:
    """A sum, over the elements of the kernel, of strided slices times matrices: integers, and more dimensions."""
    shape, dtype = shape_of(node), node.outputs[0].dtype
    edges = [(low, high, 0) for low, high in shape.padding]
    padded = lax.pad(image, jnp.zeros((), image.dtype), [(0, 0, 0), *edges, (0, 0, 0)]).astype(dtype)
    total: Array | None = None
    for tap in np.ndindex(*shape.kernel):
        starts = [t * d for t, d in zip(tap, shape.rhs_dilation, strict=True)]
        limits = [b + (n - 1) * s + 1 for b, n, s in zip(starts, shape.out, shape.strides, strict=True)]
        part = lax.slice(padded, (0, *starts, 0), (padded.shape[0], *limits, padded.shape[-1]), (1, *shape.strides, 1))
        term = _times_tap(part, kernel[tap].astype(dtype), shape.groups)
        total = term if total is None else total + term
    assert total is not None
    return total


def _times_tap(part: Array, matrix: Array, groups: int) -> Array:
    if groups == 1:
        return lax.dot_general(part, matrix, (((part.ndim - 1,), (0,)), ((), ())), preferred_element_type=part.dtype)
    parts, matrices = jnp.split(part, groups, -1), jnp.split(matrix, groups, -1)
    return jnp.concatenate([_times_tap(p, m, 1) for p, m in zip(parts, matrices, strict=True)], axis=-1)


def _why_not_by_taps(node: Node) -> str | None:
    shape = shape_of(node)
    if not _is_channels_last(node) or shape.batch_groups != 1 or _is_transposed(shape):
        return "other rules come first"
    is_float = bool(jnp.issubdtype(node.outputs[0].dtype, jnp.floating))
    if is_float and shape.rank <= 3:
        return "TFLite has it"
    return None


RULES = (
    node_lowering("channels-last", "conv_general_dilated", _turned, _why_not_turned, "exact"),
    node_lowering("batch-groups", "conv_general_dilated", _batch_groups, _why_not_batch_groups),
    node_lowering("feature-groups", "conv_general_dilated", _feature_groups, _why_not_feature_groups),
    node_lowering("cropped-transposed-convolution", "conv_general_dilated", _cropped, _why_not_cropped),
    node_lowering("spread-image", "conv_general_dilated", _spread, _why_not_spread),
    node_lowering("tap-by-tap", "conv_general_dilated", _by_taps, _why_not_by_taps),
)
