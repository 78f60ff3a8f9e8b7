"""3x3 convolution by Winograd's algorithms: a few products of transformed tiles in place of nine multiplications.

F(2x2, 3x3) makes 4 outputs from 16 products, F(4x4, 3x3) makes 16 outputs from 36; the direct way takes 36 and 144.

A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4. The error of the larger
algorithm depends on its interpolation points (B. Barabasz et al., "Error Analysis and Improving the Accuracy of
Winograd Convolution for Deep Neural Networks", ACM TOMS 2020): with 0, 1, -1, 2, -2 it is some 20 times that of adding
up the products in order; with the points below, 6 times, which is 3e-6 of the largest output.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...core.forms import Form, Signature
from . import costs
from .convolution_costs import turning_seconds
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

PIECE_BYTES = 1e7
SPILLED_BYTES_PER_SECOND = 27e9
"""An image is done in pieces whose transforms stay in the cache; ones of more bytes than this are read from memory."""

MOST_PIECE_BYTES = 2**25
"""Memory that the transforms of one piece may take."""

KERNEL_BYTES_PER_SECOND = 53e9
"""Reading the transform of the kernel, once for each piece."""

PLANE_BYTES_PER_SECOND = 15e9
"""Writing the transform of a kernel that is no constant, into memory that may be new."""

A, B = 2 / 3, 3 / 2
A2, B2 = A * A, B * B
"""Interpolation points of the larger algorithm, besides 0, -A, -B and infinity; their product is 1."""

Mix = Callable[[list[Any]], list[Any]]


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """One of the algorithms F(tile x tile, 3x3).

    Attributes:
      tile: outputs per dimension.
      inputs: elements per dimension that they see.
      mix_inputs, mix_kernel, mix_outputs: the transforms of one dimension.
      input_passes, result_passes: how often a plain loop could touch all planes in the time of a transform.
    """

    tile: int
    mix_inputs: Mix
    mix_kernel: Mix
    mix_outputs: Mix
    input_passes: float
    result_passes: float

    @property
    def inputs(self) -> int:
        """Elements per dimension that a tile sees; its planes are as many squared."""
        return self.tile + 2

    def tiles(self, shape: Geometry) -> tuple[int, int]:
        """Tiles per dimension."""
        rows, columns = (-(-size // self.tile) for size in shape.out_image)
        return rows, columns


def _inputs_of_two(d: list[jax.Array]) -> list[jax.Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _kernel_of_two(g: list[jax.Array]) -> list[jax.Array]:
    outer = g[0] + g[2]
    return [g[0], 0.5 * (outer + g[1]), 0.5 * (outer - g[1]), g[2]]


def _outputs_of_two(m: list[jax.Array]) -> list[jax.Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _inputs_of_four(d: list[jax.Array]) -> list[jax.Array]:
    even_a, odd_a = d[4] - B2 * d[2], A * (d[3] - B2 * d[1])
    even_b, odd_b = d[4] - A2 * d[2], B * (d[3] - A2 * d[1])
    first, last = d[0] - (A2 + B2) * d[2] + d[4], d[1] - (A2 + B2) * d[3] + d[5]
    return [first, even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, last]


def _kernel_of_four(g: list[jax.Array]) -> list[jax.Array]:
    scale_a, scale_b = 0.5 / (A2 * (A2 - B2)), 0.5 / (B2 * (B2 - A2))
    even_a, odd_a = scale_a * (g[0] + A2 * g[2]), scale_a * A * g[1]
    even_b, odd_b = scale_b * (g[0] + B2 * g[2]), scale_b * B * g[1]
    return [g[0], even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, g[2]]


def _outputs_of_four(m: list[jax.Array]) -> list[jax.Array]:
    even_a, odd_a, even_b, odd_b = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [
        m[0] + even_a + even_b,
        A * odd_a + B * odd_b,
        A2 * even_a + B2 * even_b,
        A2 * A * odd_a + B2 * B * odd_b + m[5],
    ]


TWO = Algorithm(2, _inputs_of_two, _kernel_of_two, _outputs_of_two, input_passes=2.0, result_passes=4.0)
FOUR = Algorithm(4, _inputs_of_four, _kernel_of_four, _outputs_of_four, input_passes=4.0, result_passes=2.6)


def winograd_two(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """F(2x2, 3x3): a 3x3 convolution of stride 1 without groups or dilation; any padding."""
    return _convolve(TWO, lhs, rhs, params)


def winograd_four(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """F(4x4, 3x3), of the same convolutions."""
    return _convolve(FOUR, lhs, rhs, params)


def _convolve(algorithm: Algorithm, lhs: jax.Array, rhs: jax.Array, params: Any) -> jax.Array:
    """The kernel's transform depends on ``rhs`` alone, so it is done once where that is a constant."""
    shape = geometry(lhs.shape, rhs.shape, params)
    rows, columns = algorithm.tiles(shape)
    image = channels_last(lhs, params)
    kernel = _transform_kernel(algorithm, kernel_last(rhs, params))
    pieces = _pieces(algorithm, shape)
    step = -(-rows // pieces)
    size = (algorithm.tile * (step * pieces + 1), algorithm.tile * (columns + 1))
    padding = [
        (low, whole - seen - low) for whole, seen, (low, _) in zip(size, shape.image, shape.padding, strict=True)
    ]
    image = pad_image(image, padding)

    def one_piece(image: jax.Array) -> jax.Array:
        transformed = _transform_image(algorithm, image, step, columns)
        dtype, precision = transformed.dtype, params["precision"]
        products = product(transformed, kernel, ((2,), (1,)), ((0,), (0,)), dtype=dtype, precision=precision)
        return _transform_result(algorithm, products, shape.batch, step, columns)

    if pieces == 1:
        out = one_piece(image)
    else:
        out_size = (algorithm.tile * step * pieces, algorithm.tile * columns)
        # Every element is overwritten. Zeros would do, but XLA makes them once for all loops, and copies them for each.
        blank = jnp.broadcast_to(image[(0,) * image.ndim], (shape.batch, *out_size, shape.out_features))
        out = _piece_after_piece(image, blank, one_piece, algorithm.tile * step, pieces)
    out = out[:, : shape.out_image[0], : shape.out_image[1]].astype(result_dtype(lhs, params))
    return from_channels_last(out, params)


def _pieces(algorithm: Algorithm, shape: Geometry) -> int:
    """In how many equal bands of rows an image is done fastest."""
    rows, _ = algorithm.tiles(shape)
    divisors = [n for n in range(1, rows + 1) if rows % n == 0]
    small = [n for n in divisors if _transform_bytes(algorithm, shape, n) <= MOST_PIECE_BYTES]
    return min(small or divisors[-1:], key=lambda pieces: _products_seconds(algorithm, shape, pieces))


def _transform_bytes(algorithm: Algorithm, shape: Geometry, pieces: int) -> float:
    """Bytes of the transforms of image and result, in each of so many pieces."""
    rows, columns = algorithm.tiles(shape)
    tiles = shape.batch * rows // pieces * columns
    return 4.0 * algorithm.inputs**2 * tiles * (shape.in_features + shape.out_features)


def _products_seconds(algorithm: Algorithm, shape: Geometry, pieces: int) -> float:
    """The products of all planes, as so many pieces.

    Small pieces stay in the cache, but read the kernel again, and the library keeps their products on one core.
    """
    rows, columns = algorithm.tiles(shape)
    planes, depth, out = algorithm.inputs**2, shape.in_features, shape.out_features
    tiles = shape.batch * rows // pieces * columns
    transforms = _transform_bytes(algorithm, shape, pieces)
    seconds = costs.dot(tiles, depth, out, planes) + 4.0 * planes * depth * out / KERNEL_BYTES_PER_SECOND
    rate = SPILLED_BYTES_PER_SECOND if transforms > PIECE_BYTES else costs.CACHE_BYTES_PER_SECOND
    return pieces * (seconds + transforms / rate)


def _piece_after_piece(
    image: jax.Array, blank: jax.Array, one_piece: Callable[[jax.Array], jax.Array], step: int, pieces: int
) -> jax.Array:
    """Bands of ``step`` outputs; what two of them see overlaps by the tile that is padded at the end."""
    overlap = image.shape[1] - step * pieces

    def body(index: jax.Array, out: jax.Array) -> jax.Array:
        part = one_piece(lax.dynamic_slice_in_dim(image, step * index, step + overlap, axis=1))
        updated: jax.Array = lax.dynamic_update_slice_in_dim(out, part, step * index, axis=1)
        return updated

    out: jax.Array = lax.fori_loop(0, pieces, body, blank)
    return out


def _transform_image(algorithm: Algorithm, image: jax.Array, rows: int, columns: int) -> jax.Array:
    """``[batch, tile (rows + 1), tile (columns + 1), features]`` to ``[planes, batch * tiles, features]``: B' d B.

    Rows first, then columns: as one loop it would take XLA several times as long to compile, and run no faster.
    """
    tile, inputs = algorithm.tile, algorithm.inputs
    batch, _, _, features = image.shape
    split = image.reshape(batch, rows + 1, tile, columns + 1, tile, features)
    parts = [split[:, i // tile : i // tile + rows, i % tile] for i in range(inputs)]
    mixed = lax.optimization_barrier(jnp.stack(algorithm.mix_inputs(parts)))
    parts = [mixed[:, :, :, j // tile : j // tile + columns, j % tile] for j in range(inputs)]
    both = jnp.stack(algorithm.mix_inputs(parts), axis=1)
    result: jax.Array = lax.optimization_barrier(both.reshape(inputs**2, batch * rows * columns, features))
    return result


def _transform_kernel(algorithm: Algorithm, kernel: jax.Array) -> jax.Array:
    """``[3, 3, in, out]`` to ``[planes, in, out]``: G g G', as one product with the nine taps."""
    rows = np.stack(algorithm.mix_kernel(list(np.eye(3))))
    both = jnp.asarray(np.kron(rows, rows), kernel.dtype)
    taps = kernel.reshape(9, -1)
    planes = product(both, taps, ((1,), (0,)), dtype=kernel.dtype, precision=lax.Precision.HIGHEST)
    return planes.reshape(algorithm.inputs**2, *kernel.shape[2:])


def _transform_result(algorithm: Algorithm, products: jax.Array, batch: int, rows: int, columns: int) -> jax.Array:
    """``[planes, batch * tiles, features]`` to ``[batch, tile rows, tile columns, features]``: A' m A of each tile."""
    tile, inputs, features = algorithm.tile, algorithm.inputs, products.shape[-1]
    planes = products.reshape(inputs, inputs, batch, rows, columns, features)
    mixed = lax.optimization_barrier(jnp.stack(algorithm.mix_outputs([planes[:, j] for j in range(inputs)]), axis=4))
    both = jnp.stack(algorithm.mix_outputs([mixed[i] for i in range(inputs)]), axis=2)
    return both.reshape(batch, tile * rows, tile * columns, features)


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


def _cost(algorithm: Algorithm, signature: Signature) -> float:
    shape = signature_geometry(signature)
    planes = algorithm.inputs**2
    tiles = shape.batch * math.prod(algorithm.tiles(shape))
    image, result = (4.0 * planes * tiles * features for features in (shape.in_features, shape.out_features))
    passes = algorithm.input_passes * image + algorithm.result_passes * result
    seconds = costs.kernel(passes) + passes / costs.CACHE_BYTES_PER_SECOND + 4 * costs.KERNEL_SECONDS
    seconds += turning_seconds(signature) + _products_seconds(algorithm, shape, _pieces(algorithm, shape))
    if not signature.operands[1].constant:
        seconds += 4.0 * planes * shape.in_features * shape.out_features / PLANE_BYTES_PER_SECOND
    return seconds


FORMS = (
    Form("winograd-2", "conv_general_dilated", winograd_two, _applies, functools.partial(_cost, TWO)),
    Form("winograd-4", "conv_general_dilated", winograd_four, _applies, functools.partial(_cost, FOUR)),
)
