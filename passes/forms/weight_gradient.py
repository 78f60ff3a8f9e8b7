"""The gradient of a convolution with respect to its kernel.

JAX writes it as a convolution whose kernel is the whole output gradient and whose result has one position per tap. Each
position is then a product over all positions of the gradient.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...core.forms import Form, Signature
from . import costs
from .geometry import Geometry, accumulation_dtype, geometry, result_dtype, signature_geometry, why_unusual
from .products import product

COPY_BYTES = 24.0
"""Gathering one element, and turning it, as bytes of a plain loop."""

MAX_POSITIONS = 128
"""More result positions than this are not a kernel's gradient, but an ordinary convolution."""


def position_product(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A convolution with few result positions as products that contract features and kernel positions.

    Of a convolution's forward pass, the left operand's features are the batch, its batch the input features, the right
    operand is the gradient of the result, and batch groups are the groups of features.
    """
    shape = geometry(lhs.shape, rhs.shape, params)
    kernel = _features_first(rhs, params["dimension_numbers"].rhs_spec)
    kernel = kernel.reshape(-1, shape.out_features)
    windows = list(_windows(_features_first(lhs, params["dimension_numbers"].lhs_spec), shape))
    dtype, precision = result_dtype(lhs, params), params["precision"]
    if shape.batch_groups == 1:
        patches = lax.optimization_barrier(jnp.concatenate(windows, axis=1).T)
        out = product(patches, kernel, ((1,), (0,)), dtype=dtype, precision=precision)
    elif shape.batch_groups == shape.batch:
        wide = accumulation_dtype(lhs, params)
        repeats = shape.out_features // shape.batch
        terms = [jnp.repeat(window, repeats, axis=1).astype(wide) * kernel.astype(wide) for window in windows]
        out = jnp.stack([jnp.sum(term, axis=0) for term in terms]).astype(dtype)
    else:
        out = _grouped_product(windows, kernel, shape, dtype, precision)
    batch = shape.batch // shape.batch_groups
    return _to_result(out.reshape(*shape.out_image, batch, shape.out_features), params)


def _grouped_product(
    windows: list[jax.Array], kernel: jax.Array, shape: Geometry, dtype: Any, precision: Any
) -> jax.Array:
    """``[positions, batch of a group, out features]`` from windows ``[depth, batch]``, each group by itself."""
    groups = shape.batch_groups
    patches = jnp.stack(windows, axis=1).reshape(kernel.shape[0], len(windows), groups, -1)
    parts = kernel.reshape(kernel.shape[0], groups, -1)
    out = product(patches, parts, ((0,), (0,)), ((2,), (1,)), dtype=dtype, precision=precision)
    return jnp.moveaxis(out, 0, 2)


def _features_first(operand: jax.Array, spec: tuple[int, ...]) -> jax.Array:
    """``[features, *spatial, batch or out features]``: the order in which JAX's gradients have it already."""
    return lax.transpose(operand, (spec[1], *spec[2:], spec[0]))


def _windows(image: jax.Array, shape: Geometry) -> Iterator[jax.Array]:
    """For each result position, what it sees of the image, as ``[features * kernel positions, batch]``."""
    zero = jnp.zeros((), image.dtype)
    config = [(0, 0, 0), *((low, high, 0) for low, high in shape.padding), (0, 0, 0)]
    image = lax.optimization_barrier(lax.pad(image, zero, config))
    for position in itertools.product(*map(range, shape.out_image)):
        starts = [at * step for at, step in zip(position, shape.strides, strict=True)]
        limits = [
            start + (taps - 1) * down + 1
            for start, taps, down in zip(starts, shape.kernel, shape.rhs_dilation, strict=True)
        ]
        window = lax.slice(
            image,
            (0, *starts, 0),
            (image.shape[0], *limits, image.shape[-1]),
            (1, *shape.rhs_dilation, 1),
        )
        yield window.reshape(-1, shape.batch)


def _to_result(out: jax.Array, params: Any) -> jax.Array:
    """``[*positions, batch, features]`` in the order of the result."""
    batch, feature, *spatial = params["dimension_numbers"].out_spec
    return lax.transpose(out, np.argsort((*spatial, batch, feature)).tolist())


def _applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if shape.groups != 1:
        return "it has groups of features"
    if set(shape.lhs_dilation) != {1}:
        return "its image is dilated"
    positions = int(np.prod(shape.out_image))
    if positions > MAX_POSITIONS:
        return f"its result has {positions} positions, more than {MAX_POSITIONS}"
    if shape.taps <= positions:
        return "its kernel is smaller than its result"
    return why_unusual(signature)


def _cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    positions = float(np.prod(shape.out_image))
    depth = float(shape.taps * shape.group_features)
    patches = positions * depth * shape.batch
    if shape.batch_groups == shape.batch:
        return costs.loop(16 * patches, shape.multiply_adds) + positions * costs.WAKE_SECONDS
    rows = positions * shape.batch / shape.batch_groups
    product_seconds = costs.dot(rows, depth, shape.out_features / shape.batch_groups, shape.batch_groups)
    return costs.loop(COPY_BYTES * patches) + product_seconds


FORMS = (Form("position-product", "conv_general_dilated", position_product, _applies, _cost),)
