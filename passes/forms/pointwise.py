"""Convolutions with a 1x1 kernel as one matrix product, by either of XLA:CPU's libraries.

XLA hands products to YNNPACK, and 1-D convolutions to Eigen, which divides thin products among the cores.
"""

from __future__ import annotations

from typing import Any

import jax

from ...core.forms import Form, Signature
from . import costs
from .geometry import (
    channels_last,
    from_channels_last,
    geometry,
    kernel_last,
    pad_image,
    plain_convolution,
    result_dtype,
    signature_geometry,
    why_unusual,
    window_slice,
)
from .products import product

THIN = 64
LONG = 2048
EIGEN_GAIN, EIGEN_LOSS = 0.8, 1.1
"""Eigen's time beside YNNPACK's, for products of so many rows that are thin on one side, and for others."""


def pointwise_product(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A convolution without groups whose kernel has one tap; any stride and padding."""
    rows, kernel = _rows(lhs, rhs, params), _matrix(rhs, params)
    out = product(rows, kernel, ((1,), (0,)), dtype=result_dtype(lhs, params), precision=params["precision"])
    return _image(out, lhs, rhs, params)


def pointwise_line(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """The same, as the 1-D convolution of one line of all positions."""
    line, kernel = _rows(lhs, rhs, params)[None], _matrix(rhs, params)[None]
    out = plain_convolution(line, kernel, params, strides=(1,), padding=((0, 0),))
    return _image(out, lhs, rhs, params)


def _rows(lhs: jax.Array, rhs: jax.Array, params: Any) -> jax.Array:
    """``[positions, in]``, the positions that the kernel's one tap sees."""
    shape = geometry(lhs.shape, rhs.shape, params)
    image = pad_image(channels_last(lhs, params), shape.padding, shape.lhs_dilation)
    image = window_slice(image, (0,) * shape.rank, shape.out_image, shape.strides)
    return image.reshape(-1, shape.in_features)


def _matrix(rhs: jax.Array, params: Any) -> jax.Array:
    """``[in, out]``."""
    kernel = kernel_last(rhs, params)
    return kernel.reshape(kernel.shape[-2:])


def _image(out: jax.Array, lhs: jax.Array, rhs: jax.Array, params: Any) -> jax.Array:
    """The result from its rows."""
    shape = geometry(lhs.shape, rhs.shape, params)
    return from_channels_last(out.reshape(shape.batch, *shape.out_image, shape.out_features), params)


def _applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if shape.taps != 1:
        return f"its kernel has {shape.taps} taps, not one"
    if not shape.is_plain:
        return "it has groups"
    return why_unusual(signature)


def _cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    seconds = costs.dot(shape.out_positions, shape.in_features, shape.out_features)
    if shape.out_image != shape.image:
        seconds += costs.loop(8.0 * shape.out_positions * shape.in_features)
    return seconds


def _line_applies(signature: Signature) -> str | None:
    if signature.operands[0].dtype != "float32":
        return f"its elements are {signature.operands[0].dtype}, not float32"
    return _applies(signature)


def _line_cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    is_thin = min(shape.in_features, shape.out_features) <= THIN and shape.out_positions >= LONG
    return (EIGEN_GAIN if is_thin else EIGEN_LOSS) * _cost(signature)


FORMS = (
    Form("product", "conv_general_dilated", pointwise_product, _applies, _cost),
    Form("line", "conv_general_dilated", pointwise_line, _line_applies, _line_cost),
)
