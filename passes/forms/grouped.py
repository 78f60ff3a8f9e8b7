"""Grouped convolution as a few ordinary ones.

XLA:CPU has a fast kernel for convolutions without groups only. Groups that are narrower than its vectors are joined,
the kernel filled up with zeros: more arithmetic, at many times the speed.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...core.forms import Form, Signature
from .convolution_costs import convolution_seconds
from .geometry import (
    Geometry,
    channels_last,
    from_channels_last,
    geometry,
    kernel_last,
    plain_convolution,
    signature_geometry,
    why_unusual,
)

BLOCK_FEATURES = 32
"""Groups are joined until a block has at least this many input features."""

MAX_BLOCKS = 32
"""More convolutions than this cost more to start than they save."""


def block_diagonal(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A convolution with feature groups as one convolution per block of neighbouring groups.

    The zero-filled kernel depends on ``rhs`` alone, so constant folding makes it once.
    """
    shape = geometry(lhs.shape, rhs.shape, params)
    joined = joined_groups(shape)
    image = channels_last(lhs, params)
    kernels = _block_kernels(kernel_last(rhs, params), shape, joined)
    width = shape.group_features * joined
    parts = [
        plain_convolution(
            lax.slice_in_dim(image, block * width, (block + 1) * width, axis=-1),
            kernel,
            params,
            strides=shape.strides,
            padding=shape.padding,
            lhs_dilation=shape.lhs_dilation,
            rhs_dilation=shape.rhs_dilation,
        )
        for block, kernel in enumerate(kernels)
    ]
    return from_channels_last(jnp.concatenate(parts, axis=-1), params)


def joined_groups(shape: Geometry) -> int:
    """How many groups make a block: the smallest divisor of their number that gives enough features, or all."""
    for joined in range(1, shape.groups + 1):
        if shape.groups % joined == 0 and joined * shape.group_features >= BLOCK_FEATURES:
            return joined
    return shape.groups


def _block_kernels(kernel: jax.Array, shape: Geometry, joined: int) -> list[jax.Array]:
    """``[*kernel, in of a group, out]`` to a block-diagonal ``[*kernel, in of a block, out of a block]`` per block."""
    blocks = shape.groups // joined
    width = shape.out_features // shape.groups
    if joined == 1:
        return [lax.slice_in_dim(kernel, b * width, (b + 1) * width, axis=-1) for b in range(blocks)]
    grouped = kernel.reshape(*shape.kernel, shape.group_features, blocks, joined, width)
    spread = jnp.zeros((*shape.kernel, joined, shape.group_features, blocks, joined, width), kernel.dtype)
    for group in range(joined):
        spread = spread.at[..., group, :, :, group, :].set(grouped[..., group, :])
    flat = spread.reshape(*shape.kernel, joined * shape.group_features, blocks, joined * width)
    return [flat[..., block, :] for block in range(blocks)]


def _applies(signature: Signature) -> str | None:
    shape = signature_geometry(signature)
    if shape.groups == 1 or shape.batch_groups != 1:
        return "it has no groups of features" if shape.groups == 1 else "it has batch groups"
    if shape.is_depthwise:
        return "it is depthwise"
    blocks = shape.groups // joined_groups(shape)
    if blocks > MAX_BLOCKS:
        return f"it would take {blocks} convolutions, more than {MAX_BLOCKS}"
    return why_unusual(signature)


def _cost(signature: Signature) -> float:
    shape = signature_geometry(signature)
    joined = joined_groups(shape)
    return convolution_seconds(shape, groups=shape.groups // joined)


FORMS = (Form("block-diagonal", "conv_general_dilated", block_diagonal, _applies, _cost),)
