"""Convolution as one matrix product: over gathered patches, or over all taps at once and shifted afterwards."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...core.forms import Form, Signature
from . import costs
from .convolution_costs import padding_seconds
from .geometry import (
    accumulation_dtype,
    balanced,
    channels_last,
    from_channels_last,
    geometry,
    kernel_last,
    pad_image,
    result_dtype,
    signature_geometry,
    why_unusual,
    window_slice,
)
from .products import product

COPY_BYTES = 32.0
"""Writing one element of a patch: XLA copies patches in short runs, which is slower than a loop."""

MAX_TAPS = 128
"""More slices than this take long to compile and are better left to the primitive."""


def patch_product(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A convolution without groups as ``[positions, taps * in] @ [taps * in, out]`` (im2col)."""
    shape = geometry(lhs.shape, rhs.shape, params)
    image = pad_image(channels_last(lhs, params), shape.padding, shape.lhs_dilation)
    parts = []
    for tap in itertools.product(*map(range, shape.kernel)):
        starts = [position * down for position, down in zip(tap, shape.rhs_dilation, strict=True)]
        parts.append(window_slice(image, starts, shape.out_image, shape.strides))
    patches = jnp.concatenate(parts, axis=-1).reshape(-1, shape.taps * shape.in_features)
    kernel = kernel_last(rhs, params).reshape(-1, shape.out_features)
    out = product(patches, kernel, ((1,), (0,)), dtype=result_dtype(lhs, params), precision=params["precision"])
    return from_channels_last(out.reshape(shape.batch, *shape.out_image, shape.out_features), params)


def shifted_product(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A convolution of stride 1 as ``[positions, in] @ [in, taps * out]``, whose parts are shifted and added up.

    The image is not copied once per tap as patches are; the products are the larger array instead.
    """
    shape = geometry(lhs.shape, rhs.shape, params)
    dtype = accumulation_dtype(lhs, params)
    rows = channels_last(lhs, params).reshape(-1, shape.in_features)
    kernel = jnp.moveaxis(kernel_last(rhs, params), -2, 0).reshape(shape.in_features, -1)
    products = product(rows, kernel, ((1,), (0,)), dtype=dtype, precision=params["precision"])
    products = pad_image(products.reshape(shape.batch, *shape.image, -1), shape.padding)
    terms = []
    for index, tap in enumerate(itertools.product(*map(range, shape.kernel))):
        starts = [position * down for position, down in zip(tap, shape.rhs_dilation, strict=True)]
        part = window_slice(products, starts, shape.out_image, shape.strides)
        terms.append(lax.slice_in_dim(part, index * shape.out_features, (index + 1) * shape.out_features, axis=-1))
    out = balanced(operator.add, terms).astype(result_dtype(lhs, params))
    return from_channels_last(out, params)


def _patches_apply(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if not shape.is_plain:
        return "it has groups"
    if not 1 < shape.taps <= MAX_TAPS:
        return f"its kernel has {shape.taps} taps, not 2 to {MAX_TAPS}"
    return why_unusual(signature)


def _shifts_apply(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if set(shape.strides) != {1} or set(shape.lhs_dilation) != {1}:
        return "it has strides or its image is dilated"
    return _patches_apply(signature)


def _patches_cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    depth = shape.taps * shape.in_features
    seconds = costs.loop(COPY_BYTES * shape.out_positions * depth) + padding_seconds(shape)
    return seconds + costs.dot(shape.out_positions, depth, shape.out_features)


def _shifts_cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    width = shape.taps * shape.out_features
    seconds = costs.dot(shape.in_positions, shape.in_features, width)
    if any(map(any, shape.padding)):
        seconds += costs.loop(16.0 * shape.in_positions * width)
    seconds += costs.loop(8.0 * shape.out_positions * (width + shape.out_features))
    return seconds


FORMS = (
    Form("patch-product", "conv_general_dilated", patch_product, _patches_apply, _patches_cost),
    Form("shifted-product", "conv_general_dilated", shifted_product, _shifts_apply, _shifts_cost),
)
