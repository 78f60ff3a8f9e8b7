"""1-D and 3-D convolutions by way of 2-D ones, for which XLA:CPU has a fast library kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...core.forms import Form, Signature
from . import costs
from .convolution_costs import convolution_seconds
from .geometry import (
    Geometry,
    accumulation_dtype,
    channels_last,
    from_channels_last,
    geometry,
    kernel_last,
    plain_convolution,
    result_dtype,
    signature_geometry,
    why_unusual,
)

FOLDED_DEPTH = 96
"""Up to this many features per output, the depth taps join the features of one 2-D convolution."""


def one_row(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A 1-D convolution as a 2-D one over an image of one row."""
    shape = geometry(lhs.shape, rhs.shape, params)
    out = plain_convolution(
        jnp.expand_dims(channels_last(lhs, params), 1),
        jnp.expand_dims(kernel_last(rhs, params), 0),
        params,
        strides=(1, *shape.strides),
        padding=((0, 0), *shape.padding),
        lhs_dilation=(1, *shape.lhs_dilation),
        rhs_dilation=(1, *shape.rhs_dilation),
        groups=shape.groups,
    )
    return from_channels_last(jnp.squeeze(out, 1), params)


def depth_sum(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A 3-D convolution as the sum, over the taps along the first dimension, of 2-D convolutions of all slices."""
    shape = geometry(lhs.shape, rhs.shape, params)
    kernel = kernel_last(rhs, params)
    wide = {**params, "preferred_element_type": accumulation_dtype(lhs, params)}
    out: Any = None
    for tap, slices in enumerate(_depth_slices(channels_last(lhs, params), shape)):
        part = _planar(slices, kernel[tap], wide, shape)
        out = part if out is None else out + part
    return from_channels_last(_unfold(out, shape).astype(result_dtype(lhs, params)), params)


def depth_folded(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A 3-D convolution as one 2-D convolution, whose features are those of all taps along the first dimension."""
    shape = geometry(lhs.shape, rhs.shape, params)
    slices = jnp.concatenate(list(_depth_slices(channels_last(lhs, params), shape)), axis=-1)
    kernel = jnp.moveaxis(kernel_last(rhs, params), 0, 2)
    kernel = kernel.reshape(*shape.kernel[1:], -1, shape.out_features)
    out = _planar(slices, kernel, params, shape)
    return from_channels_last(_unfold(out, shape), params)


def _depth_slices(image: jax.Array, shape: Geometry) -> Iterator[jax.Array]:
    """For each tap along the first dimension, the slices it sees, as a batch of 2-D images."""
    none = (0, 0, 0)
    image = lax.pad(
        image, jnp.zeros((), image.dtype), [none, (*shape.padding[0], shape.lhs_dilation[0] - 1), *[none] * 3]
    )
    for tap in range(shape.kernel[0]):
        start = tap * shape.rhs_dilation[0]
        stop = start + (shape.out_image[0] - 1) * shape.strides[0] + 1
        part = lax.slice_in_dim(image, start, stop, shape.strides[0], axis=1)
        yield part.reshape(-1, *part.shape[2:])


def _planar(slices: jax.Array, kernel: jax.Array, params: Any, shape: Geometry) -> jax.Array:
    return plain_convolution(
        slices,
        kernel,
        params,
        strides=shape.strides[1:],
        padding=shape.padding[1:],
        lhs_dilation=shape.lhs_dilation[1:],
        rhs_dilation=shape.rhs_dilation[1:],
    )


def _unfold(out: jax.Array, shape: Geometry) -> jax.Array:
    return out.reshape(shape.batch, *shape.out_image, shape.out_features)


def _row_applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if shape.rank != 1:
        return f"it has {shape.rank} spatial dimensions, not one"
    if shape.batch_groups != 1:
        return "it has batch groups"
    return why_unusual(signature)


def _depth_applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if shape.rank != 3:
        return f"it has {shape.rank} spatial dimensions, not three"
    if not shape.is_plain:
        return "it has groups"
    return why_unusual(signature)


def _folded_applies(signature: Signature) -> str | None:
    reason = _depth_applies(signature)
    shape = signature_geometry(signature)
    if reason is None and shape.kernel[0] * shape.in_features > FOLDED_DEPTH:
        return f"{shape.kernel[0]} depth taps of {shape.in_features} features are more than {FOLDED_DEPTH} together"
    return reason


def _row_cost(signature: Signature) -> float:
    return convolution_seconds(signature_geometry(signature), rank=2)


def _depth_cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    accumulation = costs.loop(8.0 * shape.out_positions * shape.out_features) * (shape.kernel[0] - 1)
    return convolution_seconds(shape, rank=2) + accumulation


def _folded_cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    return convolution_seconds(shape, rank=2) + costs.loop(8.0 * shape.in_positions * shape.in_features)


FORMS = (
    Form("one-row", "conv_general_dilated", one_row, _row_applies, _row_cost),
    Form("depth-sum", "conv_general_dilated", depth_sum, _depth_applies, _depth_cost),
    Form("depth-folded", "conv_general_dilated", depth_folded, _folded_applies, _folded_cost),
)
