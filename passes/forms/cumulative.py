"""Cumulative operations as a loop over rows, or as parallel prefixes.

XLA:CPU gets them as a `reduce_window` as long as the axis, which it splits into blocks with many passes over memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives

from ...core.forms import Form, Signature, direct_form
from . import costs
from .pooling import highest, lowest

LONGEST_SUM = 4096
"""A loop adds one after the other; of more floats than this, the rounding would show."""

STEP_SECONDS = 8e-9
"""One step of a loop, apart from what it computes."""

Combine = Callable[[Any, Any], Any]


def row_after_row(operand: jax.Array, *, axis: int, reverse: bool, combine: Combine, neutral: Any) -> jax.Array:
    """A loop along ``axis`` that combines one row with all before it."""
    rows = jnp.moveaxis(_widened(operand), axis, 0)

    def step(total: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = combine(total, row)
        return total, total

    start = jnp.full(rows.shape[1:], neutral(rows.dtype), rows.dtype)
    _, totals = lax.scan(step, start, rows, reverse=reverse)
    return jnp.moveaxis(totals, 0, axis).astype(operand.dtype)


def prefix(operand: jax.Array, *, axis: int, reverse: bool, combine: Combine) -> jax.Array:
    """A parallel prefix: of pairs first, recursively, then of the elements between; -0 becomes 0."""
    totals: jax.Array = lax.associative_scan(combine, _widened(operand), axis=axis, reverse=reverse)
    return totals.astype(operand.dtype)


def _widened(operand: jax.Array) -> jax.Array:
    """16-bit floats in 32 bits, so that long sums do not lose what they have."""
    narrow = jnp.issubdtype(operand.dtype, jnp.floating) and operand.dtype.itemsize < 4
    return operand.astype(jnp.float32) if narrow else operand


def _applies(signature: Signature) -> str | None:
    dtype = jnp.dtype(signature.operands[0].dtype)
    if not (jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)):
        return f"it has elements of type {dtype}"
    return None


def _loop_applies_to_sums(signature: Signature) -> str | None:
    (operand,) = signature.operands
    length = operand.shape[signature.params["axis"]]
    if length > LONGEST_SUM and jnp.issubdtype(jnp.dtype(operand.dtype), jnp.floating):
        return f"it adds up {length} floats, more than {LONGEST_SUM}"
    return _applies(signature)


def _is_inner(signature: Signature) -> bool:
    return bool(signature.params["axis"] == len(signature.operands[0].shape) - 1)


def _sum_cost(signature: Signature) -> float:
    (operand,) = signature.operands
    return costs.kernel(0.0) + operand.size * (2e-9 if _is_inner(signature) else 3e-9)


def _extreme_cost(signature: Signature) -> float:
    return 2 * _sum_cost(signature)


def _loop_cost(signature: Signature) -> float:
    (operand,) = signature.operands
    steps = int(operand.shape[signature.params["axis"]]) * STEP_SECONDS
    return costs.kernel(0.0) + steps + operand.size * (1.4e-9 if _is_inner(signature) else 0.6e-9)


def _prefix_cost(signature: Signature) -> float:
    (operand,) = signature.operands
    levels = int(operand.shape[signature.params["axis"]]).bit_length()
    return levels * costs.kernel(0.0) + operand.size * (1.8e-9 if _is_inner(signature) else 0.8e-9)


def _sums(primitive: Any, combine: Combine, neutral: Callable[[Any], Any]) -> tuple[Form, ...]:
    def loop(operand: jax.Array, *, axis: int, reverse: bool) -> jax.Array:
        return row_after_row(operand, axis=axis, reverse=reverse, combine=combine, neutral=neutral)

    def tree(operand: jax.Array, *, axis: int, reverse: bool) -> jax.Array:
        return prefix(operand, axis=axis, reverse=reverse, combine=combine)

    return (
        direct_form(primitive, _sum_cost),
        Form("row-after-row", primitive.name, loop, _loop_applies_to_sums, _loop_cost),
        Form("prefix", primitive.name, tree, _applies, _prefix_cost),
    )


def _extremes(primitive: Any, combine: Combine, neutral: Callable[[Any], Any]) -> tuple[Form, ...]:
    def loop(operand: jax.Array, *, axis: int, reverse: bool) -> jax.Array:
        return row_after_row(operand, axis=axis, reverse=reverse, combine=combine, neutral=neutral)

    return (
        direct_form(primitive, _extreme_cost),
        Form("row-after-row", primitive.name, loop, _applies, _loop_cost, "exact"),
    )


FORMS = (
    *_sums(primitives.cumsum_p, lax.add, lambda dtype: 0),
    *_sums(primitives.cumprod_p, lax.mul, lambda dtype: 1),
    *_sums(primitives.cumlogsumexp_p, jnp.logaddexp, lambda dtype: -jnp.inf),
    *_extremes(primitives.cummax_p, lax.max, lowest),
    *_extremes(primitives.cummin_p, lax.min, highest),
)
