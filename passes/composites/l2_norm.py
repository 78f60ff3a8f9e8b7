"""Division by the Euclidean norm."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ...core.composites import Composite
from ...core.patterns import Pattern, op, scalar
from ...core.rewrite import Match, Rule
from .normalization import X, all_of, one_or_all, statistic, statistics
from .spelling import declines, number_of, outlined, square_of, widened


def l2_norm(x: jax.Array, *, axis: int | tuple[int, ...], epsilon: float = 0.0, guard: str = "none") -> jax.Array:
    """``x`` divided by its norm along ``axis``.

    Args:
      x: real floats of any shape.
      axis: of ``x``, one or several, not negative, in order.
      epsilon: keeps the divisor from zero.
      guard: how: "none"; "add" to the sum of squares, "max" of the sum of squares and it, "add-norm" to the norm,
        "max-norm" of the norm and it.

    Returns:
      An array of the shape and dtype of ``x``.
    """
    total = jnp.square(x).sum(all_of(axis), keepdims=True)
    total = total + epsilon if guard == "add" else jnp.maximum(total, epsilon) if guard == "max" else total
    norm = jnp.sqrt(total)
    norm = norm + epsilon if guard == "add-norm" else jnp.maximum(norm, epsilon) if guard == "max-norm" else norm
    return x / norm


_total = statistic(op.reduce_sum(square_of(widened(X))))
_epsilon = scalar("epsilon")
_guarded = {"none": _total, "add": op.add(_total, _epsilon), "max": op.max(_total, _epsilon)}


def _divided(norm: Pattern) -> Pattern:
    return op.div(widened(X), statistic(norm))


def _describe(guard: str) -> Any:
    def describe(match: Match) -> dict[str, Any] | str:
        read = statistics(match)
        if isinstance(read, str):
            return read
        if read.divided or not read.axes:
            return "its sum is not over whole dimensions"
        guarded = {} if guard == "none" else {"epsilon": number_of(match, "epsilon")}
        return {"axis": one_or_all(read.axes), "guard": guard} | guarded

    return describe


_OUTLINE = Composite("xlapass.l2_norm", l2_norm)


def _rule(guard: str, pattern: Any) -> Rule:
    return Rule(f"l2-norm-{guard}", pattern, outlined(_OUTLINE, ("x",), _describe(guard)), declines(_describe(guard)))


L2_NORM = dataclasses.replace(
    _OUTLINE,
    rules=(
        *(
            _rule(
                guard,
                op.mul(widened(X), statistic(op.rsqrt(statistic(total)))) | _divided(op.sqrt(statistic(total))),
            )
            for guard, total in _guarded.items()
        ),
        _rule("add-norm", _divided(op.add(statistic(op.sqrt(_total)), _epsilon))),
        _rule("max-norm", _divided(op.max(statistic(op.sqrt(_total)), _epsilon))),
    ),
)
"""``L2_NORM(x, axis=..., epsilon=..., guard=...)``."""
