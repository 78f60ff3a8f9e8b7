"""Root mean square normalization: Zhang and Sennrich, arXiv:1910.07467."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from ...core.composites import Composite
from .normalization import MEAN_SQUARE, X, all_of, finding_rules, growing_rules, over_axes, spread
from .spelling import widened


def rms_norm(
    x: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    axis: int | tuple[int, ...],
    epsilon: float,
) -> jax.Array:
    """``x / sqrt(mean(x**2) + epsilon) * scale + bias`` with the mean along ``axis``.

    Args:
      x: real floats of any shape.
      scale, bias: of the sizes of the axes; dimensions of size one do not count.
      axis: of ``x``, one or several, not negative, in order.
      epsilon: added to the mean square.

    Returns:
      An array of the shape and dtype of ``x``, or of the widest operand.
    """
    axes = all_of(axis)
    y = x * lax.rsqrt(jnp.square(x).mean(axes, keepdims=True) + epsilon)
    y = y if scale is None else y * spread(scale, x, axes)
    return y if bias is None else y + spread(bias, x, axes)


_OUTLINE = Composite("xlapass.rms_norm", rms_norm)

RMS_NORM = dataclasses.replace(
    _OUTLINE,
    rules=(
        *finding_rules(_OUTLINE, "rms-norm", widened(X), MEAN_SQUARE, over_axes),
        *growing_rules(_OUTLINE, "rms-norm"),
    ),
)
"""``RMS_NORM(x[, scale[, bias]], axis=..., epsilon=...)``."""
