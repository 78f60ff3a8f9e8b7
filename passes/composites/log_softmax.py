"""The logarithm of softmax, in the form that neither overflows nor loses small probabilities."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...core.composites import Composite
from ...core.patterns import op, var
from ...core.rewrite import Match, Rule
from .alignment import align
from .spelling import Filled, Through, declines, is_movement, outlined

_x = var("x")


def log_softmax(x: jax.Array, *, axis: int) -> jax.Array:
    """``x - max - log(sum(exp(x - max)))`` along ``axis``.

    Args:
      x: real floats of any shape.
      axis: of ``x``, not negative.

    Returns:
      An array of the shape and dtype of ``x``.
    """
    shifted = x - jnp.max(x, axis, keepdims=True, initial=-jnp.inf)
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis, keepdims=True))


def _along(match: Match) -> dict[str, Any] | str:
    """The maximum and the sum must be over one axis, the same, and stand along it again."""
    if "zero" in match.bindings and match.numpy("zero") != 0:
        return "an infinite maximum is replaced by something else than zero"
    alignment = align(match, "x")
    if isinstance(alignment, str):
        return alignment
    dims = alignment.of(match["x"])
    axes = [axis for axis, dim in enumerate(dims) if dim and all(set(dim) == over for over in alignment.reductions)]
    if len(axes) != 1 or alignment.of(match.root.outputs[0]) != dims:
        return "its maximum and its sum are not along the same single axis"
    return {"axis": axes[0]}


_maximum = Through(op.reduce_max(_x), is_movement)
_finite = op.select_n(op.is_finite(_maximum), Filled("zero"), _maximum)
_shift = Through(op.max(-np.inf, _maximum) | _finite, is_movement) | _maximum
_shifted = op.sub(_x, _shift)
_total = Through(op.reduce_sum(Through(op.exp(_shifted), is_movement)), is_movement)
_log_total = Through(op.log(_total | op.abs(_total)), is_movement)
_log_sum_exp = Through(op.add(_log_total, _shift), is_movement)

_OUTLINE = Composite("xlapass.log_softmax", log_softmax)

LOG_SOFTMAX = dataclasses.replace(
    _OUTLINE,
    rules=(
        Rule(
            "log-softmax",
            op.sub(_shifted, _log_total) | op.sub(_x, _log_sum_exp),
            outlined(_OUTLINE, ("x",), _along),
            declines(_along),
        ),
    ),
)
"""``LOG_SOFTMAX(x, axis=...)``."""
