"""Softmax along one axis, in the form that does not overflow."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...core.composites import Composite
from ...core.node import Node
from ...core.patterns import Op, Pattern, op, var
from ...core.rewrite import Match, Rule


def softmax(x: jax.Array, *, axis: int) -> jax.Array:
    """``exp(x - max) / sum(exp(x - max))`` along ``axis``.

    Args:
      x: real floats of any shape.
      axis: of ``x``, not negative.

    Returns:
      An array of the shape and dtype of ``x``.
    """
    exponentials = jnp.exp(x - jnp.max(x, axis, keepdims=True, initial=-jnp.inf))
    return exponentials / jnp.sum(exponentials, axis, keepdims=True)


def _spread(reduced: Pattern, name: str) -> Pattern:
    """A reduced value back at the rank it had, perhaps rounded to a narrower dtype before or after."""
    narrowed = reduced | op.convert_element_type(reduced)
    spread = op.broadcast_in_dim(narrowed, name=name) | op.reshape(narrowed, name=name)
    return spread | op.convert_element_type(spread) | op.stop_gradient(spread)


def softmax_of(x: Pattern) -> Op:
    """The stable softmax of ``x``; its reductions are bound as ``max`` and ``sum``, their spreads as ``*_spread``."""
    maximum = op.reduce_max(x, name="max")
    exponentials = op.exp(op.sub(x, _spread(maximum | op.max(-np.inf, maximum), "max_spread")))
    total = op.reduce_sum(exponentials | op.convert_element_type(exponentials), name="sum")
    return op.div(exponentials, _spread(total, "sum_spread"))


def _check(match: Match) -> str | None:
    """The maximum and the sum must be over one axis, the same, and stand along it again."""
    axes = match["max"].params["axes"]
    if len(axes) != 1 or match["sum"].params["axes"] != axes:
        return "its maximum and its sum are not both over the same single axis"
    shape = match["x"].shape
    if not all(_spreads_along(match[name], shape, axes[0]) for name in ("max_spread", "sum_spread")):
        return "its maximum or its sum does not stand along the axis that it was taken over"
    return None


def _spreads_along(node: Node, shape: tuple[Any, ...], axis: int) -> bool:
    """Whether ``node`` puts ``axis`` back where it was, with size 1 or its former size."""
    kept = tuple(i for i in range(len(shape)) if i != axis)
    if node.name == "reshape":
        return node.outputs[0].shape == (*shape[:axis], 1, *shape[axis + 1 :]) and node.params["dimensions"] is None
    return len(node.outputs[0].shape) == len(shape) and tuple(node.params["broadcast_dimensions"]) == kept


def _fused(x: jax.Array, match: Match) -> jax.Array:
    result: jax.Array = SOFTMAX.outline(match, {"x": x}, axis=int(match["max"].params["axes"][0]))
    return result


SOFTMAX = Composite(
    "xlapass.softmax",
    softmax,
    rules=(Rule("softmax", softmax_of(var("x")), _fused, _check),),
)
"""``SOFTMAX(x, axis=...)``."""
