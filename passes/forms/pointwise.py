"""Convolutions with a 1x1 kernel as one matrix product."""

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
    result_dtype,
    signature_geometry,
    why_unusual,
    window_slice,
)
from .products import product

CAUTION = 1.05
"""A product is no faster than the library's convolution where the kernel is small."""


def pointwise_product(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A convolution without groups whose kernel has one tap; any stride and padding."""
    shape = geometry(lhs.shape, rhs.shape, params)
    image = pad_image(channels_last(lhs, params), shape.padding, shape.lhs_dilation)
    image = window_slice(image, (0,) * shape.rank, shape.out_image, shape.strides)
    kernel = kernel_last(rhs, params).reshape(shape.in_features, shape.out_features)
    rows = image.reshape(-1, shape.in_features)
    out = product(rows, kernel, ((1,), (0,)), dtype=result_dtype(lhs, params), precision=params["precision"])
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
    seconds = CAUTION * costs.dot(shape.out_positions, shape.in_features, shape.out_features)
    if shape.out_image != shape.image:
        seconds += costs.loop(8.0 * shape.out_positions * shape.in_features)
    return seconds


FORMS = (Form("product", "conv_general_dilated", pointwise_product, _applies, _cost),)
