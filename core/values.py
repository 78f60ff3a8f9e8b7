"""What is known of a value: what stands behind what changes nothing, and which number it is."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .node import Value

TRANSPARENT = frozenset({"copy", "copy_p", "convert_element_type", "reshape", "broadcast_in_dim"})
"""Primitives that a pattern looks through when they leave shape and dtype as they were."""

_SPREADING = frozenset({"broadcast_in_dim", "reshape", "copy", "copy_p", "squeeze", "expand_dims"})
"""Primitives behind which a broadcast scalar is looked for."""

LOOKED_THROUGH = TRANSPARENT | _SPREADING
"""All primitives that a pattern may look through without naming them."""


def through_no_ops(value: Value) -> Value:
    """The value behind conversions, copies, reshapes and broadcasts that change neither shape nor dtype."""
    node = value.producer
    while node is not None and node.name in TRANSPARENT and not node.effects:
        inner = node.inputs[0]
        if inner.aval.shape != value.aval.shape or inner.aval.dtype != value.aval.dtype:
            break
        value, node = inner, inner.producer
    return value


def through_broadcasts(value: Value) -> Value:
    """The value behind broadcasts, reshapes, copies and no-op conversions, down to the smallest."""
    while (node := value.producer) is not None:
        inner = node.inputs[0] if node.inputs else None
        if inner is None or not (node.name in _SPREADING or through_no_ops(value) is not value):
            break
        value = inner
    return value


def may_be_scalar(value: Value) -> bool:
    """False where `scalar_of` surely finds no number: a quick look."""
    node = value.producer
    while node is not None:
        if node.name not in LOOKED_THROUGH:
            return False
        value = node.inputs[0]
        node = value.producer
    return value.const is not None and np.size(value.const) == 1


def scalar_of(value: Value) -> Any:
    """The number behind a constant, perhaps broadcast, as a 0-d NumPy scalar; None when it is not one."""
    inner = through_broadcasts(value)
    if not inner.is_const or np.size(inner.const) != 1 or not is_numeric(inner.aval.dtype):
        return None
    return inner.numpy().reshape(())[()]


def element_of(value: Value) -> np.ndarray[Any, Any] | None:
    """The number that every element of a constant is, NaN counted as one; None when there is no such."""
    if not value.is_const or not is_numeric(value.dtype) or np.size(value.const) == 0:
        return None
    array = value.numpy()
    first = array.reshape(-1)[:1].reshape(())
    return first if np.array_equal(array, np.broadcast_to(first, array.shape), equal_nan=True) else None


def same_value(a: Value, b: Value) -> bool:
    """Whether two values are surely equal: one value behind no-ops, or the same bits of a scalar constant."""
    a, b = through_no_ops(a), through_no_ops(b)
    if a is b:
        return True
    if not (a.is_const and b.is_const) or a.aval.dtype != b.aval.dtype or a.aval.shape != b.aval.shape:
        return False
    if a.const is b.const:
        return True
    return np.size(a.const) == 1 and is_numeric(a.dtype) and a.numpy().tobytes() == b.numpy().tobytes()


def describe(value: Value) -> str:
    """A few words on a value, for explanations."""
    if value.is_const:
        return f"a constant {value.aval.str_short()}"
    if value.producer is None:
        return f"an input {value.aval.str_short()}"
    return f"{value.producer.name} {value.aval.str_short()}"


def as_scalar(constant: Value) -> Value:
    """A constant of one element, with the shape ``()``."""
    if constant.shape == ():
        return constant
    aval = jax.core.ShapedArray((), constant.dtype, weak_type=constant.aval.weak_type)
    return Value(aval, const=constant.numpy().reshape(()), is_literal=True)


def rounded_to(number: complex, dtype: Any) -> Any:
    """``number`` in ``dtype``; None where that type has nothing near it."""
    if isinstance(number, complex) and not jnp.issubdtype(dtype, jnp.complexfloating):
        if number.imag:
            return None
        number = number.real
    with np.errstate(all="ignore"):
        rounded = np.asarray(number).astype(dtype)
    if jnp.issubdtype(dtype, jnp.inexact):
        return rounded if np.isfinite(number) == np.isfinite(rounded) else None
    return rounded if rounded == number else None


def is_numeric(dtype: Any) -> bool:
    """Whether NumPy can hold the elements: no random keys."""
    return isinstance(dtype, np.dtype)


def epsilon_of(dtype: Any) -> float:
    """The distance from one to the next float, 0 for other types."""
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0
