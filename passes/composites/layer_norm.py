"""Layer normalization: Ba, Kiros and Hinton, arXiv:1607.06450."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from ...core.composites import Composite
from .normalization import CENTERED_ROUNDED, VARIANCE, all_of, finding_rules, growing_rules, over_axes, spread


def layer_norm(
    x: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    axis: int | tuple[int, ...],
    epsilon: float,
) -> jax.Array:
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias`` with statistics along ``axis``.

    Args:
      x: real floats of any shape.
      scale, bias: of the sizes of the axes; dimensions of size one do not count.
      axis: of ``x``, one or several, not negative, in order.
      epsilon: added to the variance.

    Returns:
      An array of the shape and dtype of ``x``, or of the widest operand.
    """
    axes = all_of(axis)
    centered = x - x.mean(axes, keepdims=True)
    y = centered * lax.rsqrt(jnp.square(centered).mean(axes, keepdims=True) + epsilon)
    y = y if scale is None else y * spread(scale, x, axes)
    return y if bias is None else y + spread(bias, x, axes)


_OUTLINE = Composite("xlapass.layer_norm", layer_norm)

LAYER_NORM = dataclasses.replace(
    _OUTLINE,
    rules=(
        *finding_rules(_OUTLINE, "layer-norm", CENTERED_ROUNDED, VARIANCE, over_axes),
        *growing_rules(_OUTLINE, "layer-norm"),
    ),
)
"""``LAYER_NORM(x[, scale[, bias]], axis=..., epsilon=...)``."""
