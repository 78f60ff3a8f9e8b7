"""`argmax` and `argmin`: the extreme value first, then the least index that holds it.

XLA:CPU reduces pairs of value and index in scalar code; each of the two plain reductions is a vector loop.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives

from ...core.forms import Form, Signature, direct_form
from . import costs

SHORT_AXIS = 32
"""Up to this length, comparing slice after slice is one loop without a reduction."""

EXACT_FLOAT_INDICES = 2**24
"""Whole numbers below this are exact in float32, whose minimum XLA:CPU reduces faster than that of integers."""

PAIR_SECONDS = 2.2e-9
"""One comparison of the primitive itself, on both cores."""


ROW_SECONDS = 8e-9
"""Starting and ending the reduction of one row."""

WIDE_ROWS = 4096
FAR_SECONDS = 2.5e-9
"""Elements further apart than this are reduced one by one."""


def extreme_then_index(operand: jax.Array, *, axes: tuple[int], index_dtype: Any, largest: bool) -> jax.Array:
    """``argmax`` or ``argmin`` along a long axis; the first NaN wins, else the first of equal extremes."""
    (axis,) = axes
    size = operand.shape[axis]
    extreme = (jnp.max if largest else jnp.min)(operand, axis, keepdims=True)
    wanted = operand == extreme
    if jnp.issubdtype(operand.dtype, jnp.floating):
        wanted = wanted | (operand != operand)
    dtype = jnp.float32 if size <= EXACT_FLOAT_INDICES else jnp.int32
    indices = lax.broadcasted_iota(dtype, operand.shape, axis)
    return jnp.min(jnp.where(wanted, indices, jnp.asarray(size, dtype)), axis).astype(index_dtype)


def slice_after_slice(operand: jax.Array, *, axes: tuple[int], index_dtype: Any, largest: bool) -> jax.Array:
    """``argmax`` or ``argmin`` along a short axis, keeping the best value and index so far."""
    (axis,) = axes
    better = lax.gt if largest else lax.lt
    floats = jnp.issubdtype(operand.dtype, jnp.floating)
    best = lax.index_in_dim(operand, 0, axis, keepdims=False)
    index = jnp.zeros(best.shape, index_dtype)
    for position in range(1, operand.shape[axis]):
        value = lax.index_in_dim(operand, position, axis, keepdims=False)
        take = better(value, best)
        if floats:
            take = (take | (value != value)) & (best == best)
        best = jnp.where(take, value, best)
        index = jnp.where(take, jnp.asarray(position, index_dtype), index)
    return index


def _applies(signature: Signature) -> str | None:
    (operand,) = signature.operands
    dtype = jnp.dtype(operand.dtype)
    if not (jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)):
        return f"it has elements of type {dtype}"
    size = operand.shape[signature.params["axes"][0]]
    if size - 1 > jnp.iinfo(signature.params["index_dtype"]).max or size >= 2**31:
        return f"an axis of {size} has indices that do not fit their type"
    return None


def _short_applies(signature: Signature) -> str | None:
    size = signature.operands[0].shape[signature.params["axes"][0]]
    if size > SHORT_AXIS:
        return f"its axis of {size} is longer than {SHORT_AXIS}"
    return _applies(signature)


def _direct_cost(signature: Signature) -> float:
    return costs.kernel(0.0) + signature.operands[0].size * PAIR_SECONDS


def _long_cost(signature: Signature) -> float:
    (operand,) = signature.operands
    axis = signature.params["axes"][0]
    if axis != len(operand.shape) - 1 and operand.shape[-1] > WIDE_ROWS:
        return 2 * operand.size * FAR_SECONDS
    rows = operand.size / int(operand.shape[axis])
    return 2 * rows * ROW_SECONDS + 3 * costs.loop(operand.bytes, 3.0 * operand.size)


def _short_cost(signature: Signature) -> float:
    (operand,) = signature.operands
    width = 8 if signature.params["axes"][0] != len(operand.shape) - 1 else 4
    return costs.loop(operand.bytes, 12.0 * operand.size, width=width)


def _forms(primitive: Any, largest: bool) -> tuple[Form, ...]:
    def long(operand: jax.Array, *, axes: tuple[int], index_dtype: Any) -> jax.Array:
        return extreme_then_index(operand, axes=axes, index_dtype=index_dtype, largest=largest)

    def short(operand: jax.Array, *, axes: tuple[int], index_dtype: Any) -> jax.Array:
        return slice_after_slice(operand, axes=axes, index_dtype=index_dtype, largest=largest)

    return (
        direct_form(primitive, _direct_cost),
        Form("extreme-then-index", primitive.name, long, _applies, _long_cost, "exact"),
        Form("slice-after-slice", primitive.name, short, _short_applies, _short_cost, "exact"),
    )


FORMS = (*_forms(primitives.argmax_p, True), *_forms(primitives.argmin_p, False))
