"""2-D convolution stretched along one dimension, which another of XLA:CPU's two libraries computes.

XLA hands 2-D convolutions to YNNPACK, but ones whose image is dilated to Eigen, and Eigen is faster at many of them. An
image with zeros between its rows, a kernel with as many and twice the stride are the same convolution: every product
with a zero of the image falls on a zero of the kernel or is not asked for.
"""

from __future__ import annotations

from typing import Any

import jax

from ...core.forms import Form, Signature
from .convolution_costs import eigen_seconds, turning_seconds
from .geometry import (
    channels_last,
    from_channels_last,
    geometry,
    kernel_last,
    plain_convolution,
    signature_geometry,
    why_unusual,
)

FACTOR = 2


def stretched(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A 2-D convolution of an image that is not dilated, by way of one that is."""
    shape = geometry(lhs.shape, rhs.shape, params)
    (low, high), *padding = shape.padding
    out = plain_convolution(
        channels_last(lhs, params),
        kernel_last(rhs, params),
        params,
        strides=(FACTOR * shape.strides[0], *shape.strides[1:]),
        padding=((FACTOR * low, FACTOR * high), *padding),
        lhs_dilation=(FACTOR, *shape.lhs_dilation[1:]),
        rhs_dilation=(FACTOR * shape.rhs_dilation[0], *shape.rhs_dilation[1:]),
    )
    return from_channels_last(out, params)


def _applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if shape.rank != 2:
        return f"it has {shape.rank} spatial dimensions, not two"
    if not shape.is_plain:
        return "it has groups"
    if set(shape.lhs_dilation) != {1}:
        return "its image is dilated already"
    if signature.operands[0].dtype != "float32":
        return f"its elements are {signature.operands[0].dtype}, not float32"
    return why_unusual(signature)


def _cost(signature: Signature) -> float:
    return turning_seconds(signature) + eigen_seconds(signature_geometry(signature))


FORMS = (Form("stretched", "conv_general_dilated", stretched, _applies, _cost),)
