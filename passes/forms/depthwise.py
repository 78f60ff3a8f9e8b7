"""Convolution as a sum of shifted slices, each times one weight per channel: for outputs that see few input features.

XLA:CPU runs a depthwise convolution as scalar loops; the sum becomes one vector loop, into which XLA also fuses the
bias and the activation that follow. The first convolution of an image network, from 3 features to 16 or 32, is another
case that XLA's library is slow at.
"""

from __future__ import annotations

import itertools
import operator
from typing import Any

import jax
import jax.numpy as jnp

from ...core.forms import Form, Signature
from .convolution_costs import tap_sum_seconds
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

MAX_TAPS = 128
"""More slices than this make a fused loop that takes seconds to compile."""

MAX_FEATURE_TERMS = 40
"""The same for a convolution of a few features, where each term also repeats its slice over the outputs."""


def tap_sum(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A convolution whose outputs each see one input feature; any stride, padding and dilation.

    Args:
      lhs: the image, in the layout of ``dimension_numbers``.
      rhs: the kernel; its input feature dimension is 1.
    """
    shape = geometry(lhs.shape, rhs.shape, params)
    dtype = accumulation_dtype(lhs, params)
    image = _repeat_features(channels_last(lhs, params), shape)
    image = pad_image(image, shape.padding, shape.lhs_dilation)
    kernel = kernel_last(rhs, params).astype(dtype)
    terms = []
    for tap in itertools.product(*map(range, shape.kernel)):
        starts = [position * down for position, down in zip(tap, shape.rhs_dilation, strict=True)]
        part = window_slice(image, starts, shape.out_image, shape.strides).astype(dtype)
        terms.append(part * kernel[(*tap, 0)])
    out = balanced(operator.add, terms).astype(result_dtype(lhs, params))
    return from_channels_last(out, params)


def feature_sum(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A convolution without groups of very few input features; any stride, padding and dilation."""
    shape = geometry(lhs.shape, rhs.shape, params)
    dtype = accumulation_dtype(lhs, params)
    image = pad_image(channels_last(lhs, params), shape.padding, shape.lhs_dilation)
    kernel = kernel_last(rhs, params).astype(dtype)
    terms = []
    for tap in itertools.product(*map(range, shape.kernel)):
        starts = [position * down for position, down in zip(tap, shape.rhs_dilation, strict=True)]
        part = window_slice(image, starts, shape.out_image, shape.strides).astype(dtype)
        terms += [part[..., f : f + 1] * kernel[(*tap, f)] for f in range(shape.in_features)]
    out = balanced(operator.add, terms).astype(result_dtype(lhs, params))
    return from_channels_last(out, params)


def _repeat_features(image: jax.Array, shape: Geometry) -> jax.Array:
    """Repeats each feature once per output feature that sees it; a lone feature is left to broadcasting."""
    multiplier = shape.out_features // shape.groups
    if multiplier == 1 or shape.groups == 1:
        return image
    return jnp.repeat(image, multiplier, axis=-1)


def _applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if shape.group_features != 1:
        return f"each output sees {shape.group_features} input features, not one"
    if shape.batch_groups != 1:
        return "it has batch groups"
    if shape.taps > MAX_TAPS:
        return f"its kernel has {shape.taps} taps, more than {MAX_TAPS}"
    return why_unusual(signature, integers=True)


def _cost(signature: Signature) -> float:
    return tap_sum_seconds(signature_geometry(signature))


def _feature_sum_applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if not shape.is_plain or shape.in_features == 1:
        return "it has groups" if shape.in_features > 1 else "it has one input feature"
    if shape.taps * shape.in_features > MAX_FEATURE_TERMS:
        return f"{shape.taps} taps of {shape.in_features} features are more than {MAX_FEATURE_TERMS} terms"
    return why_unusual(signature, integers=True)


FORMS = (
    Form("tap-sum", "conv_general_dilated", tap_sum, _applies, _cost),
    Form("feature-sum", "conv_general_dilated", feature_sum, _feature_sum_applies, _cost),
)
