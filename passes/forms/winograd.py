"""3x3 convolution as Winograd's F(2x2, 3x3): 16 products for what takes 36 multiplications per channel pair.

A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1. The error is a few
units in the last place of the largest term; F(4x4, 3x3) would multiply less, round worse, and lose time here to its
larger transforms.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...core.forms import Form, Signature
from . import costs
from .geometry import (
    channels_last,
    from_channels_last,
    geometry,
    kernel_last,
    pad_image,
    result_dtype,
    signature_geometry,
    why_unusual,
)
from .products import product

TILE = 2
"""Outputs per tile and dimension."""

KERNEL_TRANSFORM = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)


def winograd(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A 3x3 convolution of stride 1 without groups or dilation; any padding.

    The kernel's transform depends on ``rhs`` alone, so constant folding does it once.
    """
    shape = geometry(lhs.shape, rhs.shape, params)
    tiles = [-(-size // TILE) for size in shape.out_image]
    padding = [
        (low, TILE * count + 2 - size - low)
        for count, size, (low, _) in zip(tiles, shape.image, shape.padding, strict=True)
    ]
    image = pad_image(channels_last(lhs, params), padding)
    transformed = _transform_image(image, tiles)
    kernel = _transform_kernel(kernel_last(rhs, params))
    products = product(
        transformed, kernel, ((2,), (1,)), ((0,), (0,)), dtype=transformed.dtype, precision=params["precision"]
    )
    out = _transform_result(products, shape.batch, tiles)
    out = out[:, : shape.out_image[0], : shape.out_image[1]].astype(result_dtype(lhs, params))
    return from_channels_last(out, params)


def _transform_image(image: jax.Array, tiles: list[int]) -> jax.Array:
    """``[batch, 2 rows + 2, 2 columns + 2, features]`` to ``[16, batch * tiles, features]``: B' d B of each tile.

    Rows first, then columns: as one loop it would take XLA four times as long to compile, and run no faster.
    """
    batch, _, _, features = image.shape
    rows, columns = tiles
    halves = image.reshape(batch, rows + 1, TILE, columns + 1, TILE, features)
    mixed = jnp.stack(_mix_inputs([halves[:, i // 2 : i // 2 + rows, i % 2] for i in range(4)]))
    mixed = lax.optimization_barrier(mixed)
    both = jnp.stack(_mix_inputs([mixed[:, :, :, j // 2 : j // 2 + columns, j % 2] for j in range(4)]), axis=1)
    result: jax.Array = lax.optimization_barrier(both.reshape(16, batch * rows * columns, features))
    return result


def _mix_inputs(d: list[jax.Array]) -> list[jax.Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _transform_kernel(kernel: jax.Array) -> jax.Array:
    """``[3, 3, in, out]`` to ``[16, in, out]``: G g G'."""
    transform = jnp.asarray(KERNEL_TRANSFORM, kernel.dtype)
    mixed = jnp.einsum("ai,bj,ijcd->abcd", transform, transform, kernel, precision=lax.Precision.HIGHEST)
    return mixed.reshape(16, *kernel.shape[2:])


def _transform_result(products: jax.Array, batch: int, tiles: list[int]) -> jax.Array:
    """``[16, batch * tiles, features]`` to ``[batch, 2 rows, 2 columns, features]``: A' m A of each tile."""
    rows, columns = tiles
    features = products.shape[-1]
    cells = [products[k].reshape(batch, rows, columns, features) for k in range(16)]
    mixed_rows = [_mix_outputs([cells[4 * i + j] for i in range(4)]) for j in range(4)]
    out = [_mix_outputs([mixed_rows[j][i] for j in range(4)]) for i in range(TILE)]
    pairs = jnp.stack([jnp.stack(line, axis=3) for line in out], axis=2)
    return pairs.reshape(batch, TILE * rows, TILE * columns, features)


def _mix_outputs(m: list[jax.Array]) -> list[jax.Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if shape.kernel != (3, 3):
        return "its kernel is not 3x3"
    if set(shape.strides) != {1} or not shape.is_undilated:
        return "it has strides or dilation"
    if not shape.is_plain:
        return "it has groups"
    if signature.operands[0].dtype not in ("float32", "float64"):
        return f"the transforms would lose precision in {signature.operands[0].dtype}"
    return why_unusual(signature)


def _cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    tiles = shape.batch * math.prod(-(-size // TILE) for size in shape.out_image)
    image = 4.0 * 16 * tiles * shape.in_features
    result = 4.0 * 16 * tiles * shape.out_features
    kernel = 4.0 * shape.in_features * shape.out_features
    seconds = costs.loop(2 * image) + costs.loop(1.5 * result) + costs.loop(image / 2)
    seconds += costs.dot(tiles, shape.in_features, shape.out_features, 16)
    if not signature.operands[1].constant:
        seconds += costs.loop(25 * kernel) * 2
    return seconds


FORMS = (Form("winograd", "conv_general_dilated", winograd, _applies, _cost),)
