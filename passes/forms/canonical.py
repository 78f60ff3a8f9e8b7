"""Convolution with its dimensions in the order that XLA:CPU's kernels take.

XLA brings other orders into this one by itself, but only outside of loops: in the body of a ``scan`` or ``while`` it
leaves them, and its fallback for them is a hundred times slower.
"""

from __future__ import annotations

from typing import Any

import jax

from ...core.forms import Form, Signature
from .convolution_costs import direct_seconds
from .geometry import (
    channels_last,
    from_channels_last,
    geometry,
    is_canonical,
    kernel_last,
    plain_convolution,
    signature_geometry,
    why_unusual,
)

PREFERENCE = 0.97
"""Outside of loops it costs the same; this factor makes it win there too."""


def channels_last_convolution(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A convolution without batch groups on transposed operands."""
    shape = geometry(lhs.shape, rhs.shape, params)
    out = plain_convolution(
        channels_last(lhs, params),
        kernel_last(rhs, params),
        params,
        strides=shape.strides,
        padding=shape.padding,
        lhs_dilation=shape.lhs_dilation,
        rhs_dilation=shape.rhs_dilation,
        groups=shape.groups,
    )
    return from_channels_last(out, params)


def _applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if is_canonical(signature):
        return "its dimensions are in that order already"
    if shape.batch_groups != 1:
        return "it has batch groups"
    return why_unusual(signature)


def _cost(signature: Signature) -> float:
    return PREFERENCE * direct_seconds(signature)


FORMS = (Form("channels-last", "conv_general_dilated", channels_last_convolution, _applies, _cost),)
