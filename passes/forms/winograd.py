"""3x3 convolution as Winograd's F(2x2, 3x3): 16 products for what takes 36 multiplications per channel pair.

A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1. The error is a few
units in the last place of the largest term; F(4x4, 3x3) would multiply less, round worse, and lose time here to its
larger transforms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...core.forms import Form, Signature
from . import costs
from .geometry import (
    Geometry,
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

PIECE_BYTES = 2**23
"""An image whose transforms take more than this is done in pieces, which stay in the cache and share their memory."""

INPUT_PASSES = 2.0
RESULT_PASSES = 4.0
"""How often a plain loop could touch all 16 planes in the time that a transform takes."""


def winograd(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A 3x3 convolution of stride 1 without groups or dilation; any padding.

    The kernel's transform depends on ``rhs`` alone, so it is done once where that is a constant.
    """
    shape = geometry(lhs.shape, rhs.shape, params)
    rows, columns = _tiles(shape)
    image = channels_last(lhs, params)
    kernel = _transform_kernel(kernel_last(rhs, params))
    pieces = _pieces(shape, image.dtype.itemsize)
    step = -(-rows // pieces)
    (above, _), (left, _) = shape.padding
    height, width = shape.image
    below, right = TILE * step * pieces + 2 - height - above, TILE * columns + 2 - width - left
    image = pad_image(image, [(above, below), (left, right)])

    def one_piece(image: jax.Array) -> jax.Array:
        transformed = _transform_image(image, step, columns)
        dtype, precision = transformed.dtype, params["precision"]
        products = product(transformed, kernel, ((2,), (1,)), ((0,), (0,)), dtype=dtype, precision=precision)
        return _transform_result(products, shape.batch, step, columns)

    out = one_piece(image) if pieces == 1 else _piece_after_piece(image, one_piece, pieces, step, shape)
    out = out[:, : shape.out_image[0], : shape.out_image[1]].astype(result_dtype(lhs, params))
    return from_channels_last(out, params)


def _tiles(shape: Geometry) -> tuple[int, int]:
    rows, columns = (-(-size // TILE) for size in shape.out_image)
    return rows, columns


def _pieces(shape: Geometry, width: int) -> int:
    """In how many bands of rows to do an image."""
    rows, columns = _tiles(shape)
    transforms = 16 * width * shape.batch * rows * columns * (shape.in_features + shape.out_features)
    return min(rows, -(-transforms // PIECE_BYTES))


def _piece_after_piece(
    image: jax.Array, one_piece: Callable[[jax.Array], jax.Array], pieces: int, step: int, shape: Geometry
) -> jax.Array:
    def body(index: jax.Array, out: jax.Array) -> jax.Array:
        first = TILE * step * index
        part = one_piece(lax.dynamic_slice_in_dim(image, first, TILE * step + 2, axis=1))
        updated: jax.Array = lax.dynamic_update_slice_in_dim(out, part, first, axis=1)
        return updated

    columns = TILE * _tiles(shape)[1]
    blank = jnp.zeros((shape.batch, TILE * step * pieces, columns, shape.out_features), image.dtype)
    out: jax.Array = lax.fori_loop(0, pieces, body, blank)
    return out


def _transform_image(image: jax.Array, rows: int, columns: int) -> jax.Array:
    """``[batch, 2 rows + 2, 2 columns + 2, features]`` to ``[16, batch * tiles, features]``: B' d B of each tile.

    Rows first, then columns: as one loop it would take XLA four times as long to compile, and run no faster.
    """
    batch, _, _, features = image.shape
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
    rows = _mix_kernel([kernel[i] for i in range(3)])
    both = [_mix_kernel([row[j] for j in range(3)]) for row in rows]
    return jnp.stack([cell for row in both for cell in row])


def _mix_kernel(g: list[jax.Array]) -> list[jax.Array]:
    outer = g[0] + g[2]
    return [g[0], 0.5 * (outer + g[1]), 0.5 * (outer - g[1]), g[2]]


def _transform_result(products: jax.Array, batch: int, rows: int, columns: int) -> jax.Array:
    """``[16, batch * tiles, features]`` to ``[batch, 2 rows, 2 columns, features]``: A' m A of each tile."""
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
    tiles = shape.batch * math.prod(_tiles(shape))
    image = 4.0 * 16 * tiles * shape.in_features
    result = 4.0 * 16 * tiles * shape.out_features
    seconds = costs.loop(INPUT_PASSES * image + RESULT_PASSES * result) + 2 * costs.KERNEL_SECONDS
    seconds += costs.dot(tiles, shape.in_features, shape.out_features, 16)
    if not signature.operands[1].constant:
        seconds += costs.loop(100.0 * shape.in_features * shape.out_features)
    return seconds


FORMS = (Form("winograd", "conv_general_dilated", winograd, _applies, _cost),)
