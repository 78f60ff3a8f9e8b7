"""`top_k` of few elements in short rows: the largest one, again and again.

XLA:CPU keeps a heap per row, in scalar code; a reduction of a short row is a handful of vector instructions.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives

from ...core.forms import Form, Signature, direct_form
from . import costs

MOST_WANTED = 8
LONGEST_ROW = 128
"""Above these, the heap is as fast."""

LEAST_ELEMENTS = 2**15
"""Fewer are not worth a transpose."""

SCAN_SECONDS = 1.1e-9
INSERTION_SECONDS = 15e-9
"""Of the primitive itself: per element, and per element that goes into the heap."""

PASS_SECONDS = 1.3e-9
COLUMN_PASS_SECONDS = 0.45e-9
"""Finding the largest of what is left, per element: along rows, and across them, where vectors hold several rows."""

TRANSPOSE_SECONDS = 0.7e-9
"""Per element."""


def largest_again(operand: jax.Array, *, k: int, axis: int, is_stable: bool = True) -> list[jax.Array]:
    """``top_k`` along one axis of float32 or int32; the first of equal elements comes first, asked for or not."""
    del is_stable  # a parameter from JAX 0.12 on
    is_float = operand.dtype == jnp.float32
    keys = ordered_keys(operand) if is_float else operand
    size = operand.shape[axis]
    positions = lax.broadcasted_iota(jnp.int32, operand.shape, axis)
    left = jnp.ones(operand.shape, bool)
    lowest = jnp.int32(jnp.iinfo(jnp.int32).min)
    values, indices = [], []
    for _ in range(k):
        best = jnp.max(jnp.where(left, keys, lowest), axis, keepdims=True)
        place = jnp.min(jnp.where(left & (keys == best), positions, size), axis, keepdims=True)
        left = left & (positions != place)
        values.append(best)
        indices.append(place)
    found = jnp.concatenate(values, axis)
    return [from_keys(found) if is_float else found, jnp.concatenate(indices, axis)]


def largest_of_columns(operand: jax.Array, *, k: int, axis: int, is_stable: bool = True) -> list[jax.Array]:
    """The same with the rows side by side: each comparison is of vectors that hold elements of several rows."""
    columns = jnp.moveaxis(operand, axis, 0)
    return [jnp.moveaxis(found, 0, axis) for found in largest_again(columns, k=k, axis=0, is_stable=is_stable)]


def ordered_keys(values: jax.Array) -> jax.Array:
    """Integers in the order that ``top_k`` gives floats: -0 below 0, NaN above infinity."""
    bits: jax.Array = lax.bitcast_convert_type(values, jnp.int32)
    mask: jax.Array = lax.shift_right_arithmetic(bits, jnp.int32(31)) & jnp.int32(0x7FFFFFFF)
    return bits ^ mask


def from_keys(keys: jax.Array) -> jax.Array:
    bits = keys ^ (lax.shift_right_arithmetic(keys, jnp.int32(31)) & jnp.int32(0x7FFFFFFF))
    values: jax.Array = lax.bitcast_convert_type(bits, jnp.float32)
    return values


def _applies(signature: Signature) -> str | None:
    (operand,) = signature.operands
    k, axis = signature.params["k"], signature.params["axis"]
    if operand.dtype not in ("float32", "int32"):
        return f"it has elements of type {operand.dtype}"
    if k > MOST_WANTED or operand.shape[axis] > LONGEST_ROW:
        return f"{k} of {operand.shape[axis]} are too many"
    return None


def _columns_apply(signature: Signature) -> str | None:
    (operand,) = signature.operands
    if operand.size < LEAST_ELEMENTS:
        return f"{operand.size} elements are too few"
    return _applies(signature)


def _direct_cost(signature: Signature) -> float:
    (operand,) = signature.operands
    size, k = int(operand.shape[signature.params["axis"]]), int(signature.params["k"])
    insertions = operand.size / size * k * (1 + math.log(size / max(k, 1)))
    return costs.kernel(0.0) + SCAN_SECONDS * operand.size + INSERTION_SECONDS * insertions


def _cost(signature: Signature) -> float:
    (operand,) = signature.operands
    return float(signature.params["k"]) * (2 * costs.kernel(0.0) + PASS_SECONDS * operand.size)


def _columns_cost(signature: Signature) -> float:
    (operand,) = signature.operands
    passes = float(signature.params["k"]) * (2 * costs.kernel(0.0) + COLUMN_PASS_SECONDS * operand.size)
    return costs.kernel(0.0) + TRANSPOSE_SECONDS * operand.size + passes


FORMS: tuple[Any, ...] = (
    direct_form(primitives.top_k_p, _direct_cost),
    Form("largest-again", "top_k", largest_again, _applies, _cost, "exact"),
    Form("largest-of-columns", "top_k", largest_of_columns, _columns_apply, _columns_cost, "exact"),
)
