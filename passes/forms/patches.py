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
from .convolution_costs import padding_seconds, turning_seconds
from .geometry import (
    Geometry,
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

MOVED_KERNEL_SECONDS = 0.4e-9
"""Moving one element of a kernel behind its taps, where that is not done once and for all."""

TURNED_PRODUCT_SECONDS = 1e-9
"""Turning over and adding up one element of the products."""

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
    return _added_up(products, shape, lhs, params)


def kernel_product(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """The same with a kernel stored as ``[*kernel, out, in]``, by ``[taps * out, in] @ [in, positions]``.

    The gradient of a convolution with respect to its image has such a kernel. All other forms turn it over first; here
    it is the products that are turned, and they are fewer where images are small and features many.
    """
    shape = geometry(lhs.shape, rhs.shape, params)
    rows = channels_last(lhs, params).reshape(-1, shape.in_features)
    kernel = rhs.reshape(-1, shape.in_features)
    dtype = accumulation_dtype(lhs, params)
    products = product(kernel, rows, ((1,), (1,)), dtype=dtype, precision=_swapped(params["precision"]))
    return _added_up(products.T, shape, lhs, params)


def _swapped(precision: Any) -> Any:
    """The precisions of the operands, in their new order."""
    return precision[::-1] if isinstance(precision, tuple) else precision


def _added_up(products: jax.Array, shape: Geometry, lhs: jax.Array, params: Any) -> jax.Array:
    """The result from ``[positions, taps * out]``, the products of each image position with all taps."""
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


def _kernel_applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    out, depth, *spatial = signature.params["dimension_numbers"].rhs_spec
    if (*spatial, out, depth) != tuple(range(shape.rank + 2)):
        return "its kernel does not have the output features before the input features"
    if signature.operands[1].constant:
        return "its kernel is a constant, which is turned over once"
    return _shifts_apply(signature)


def _patches_cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    depth = shape.taps * shape.in_features
    seconds = costs.loop(COPY_BYTES * shape.out_positions * depth) + padding_seconds(shape)
    return seconds + turning_seconds(signature) + costs.dot(shape.out_positions, depth, shape.out_features)


def _shifts_cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    width = shape.taps * shape.out_features
    seconds = turning_seconds(signature) + costs.dot(shape.in_positions, shape.in_features, width)
    if not signature.operands[1].constant:
        seconds += MOVED_KERNEL_SECONDS * signature.operands[1].size
    if any(map(any, shape.padding)):
        seconds += costs.loop(16.0 * shape.in_positions * width)
    seconds += costs.loop(8.0 * shape.out_positions * (width + shape.out_features))
    return seconds


def _kernel_cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    width = shape.taps * shape.out_features
    products = costs.dot(width, shape.in_features, shape.in_positions)
    return products + TURNED_PRODUCT_SECONDS * shape.in_positions * width


FORMS = (
    Form("patch-product", "conv_general_dilated", patch_product, _patches_apply, _patches_cost),
    Form("shifted-product", "conv_general_dilated", shifted_product, _shifts_apply, _shifts_cost),
    Form("kernel-product", "conv_general_dilated", kernel_product, _kernel_applies, _kernel_cost),
)
