"""Masks that are known to be the lower triangle."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.node import Value
from ...core.patterns import element_of, scalar_of, through_no_ops

NEVER = -1e9
"""What is added to scores so that nothing is left of them is at most this, or the least number of the type."""


def is_lower_triangle(mask: Value, kind: str, row_axis: int, column_axis: int) -> bool:
    """Whether a mask surely leaves those elements whose column is at most their row, and no others.

    Args:
      mask: of two dimensions, perhaps repeated along others.
      kind: "keep" or "drop", of booleans, or "add", of floats.
      row_axis, column_axis: dimensions of the mask; negative where it has no such.
    """
    if row_axis < 0 or column_axis < 0:
        return False
    if mask.is_const:
        kept = _kept(mask.numpy(), kind)
        triangle = np.tril(np.ones((mask.shape[row_axis], mask.shape[column_axis]), bool))
        kept = np.moveaxis(kept, (row_axis, column_axis), (-2, -1))
        return bool(np.array_equal(kept, np.broadcast_to(triangle, kept.shape)))
    return kind != "add" and _compares_positions(mask, kind == "keep", row_axis, column_axis)


def _kept(mask: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    if kind != "add":
        return mask if kind == "keep" else ~mask
    wide = mask.astype(np.float64)
    dropped = wide <= max(NEVER, wide.min(initial=0)) if wide.min(initial=0) <= -3e4 else np.zeros(mask.shape, bool)
    return np.where(dropped, False, wide == 0) if np.all(dropped | (wide == 0)) else np.zeros(mask.shape, bool)


def _compares_positions(mask: Value, keeps: bool, row_axis: int, column_axis: int) -> bool:
    """Whether it is ``row >= column``, or its negation for a mask that drops."""
    value = through_no_ops(mask)
    axes: tuple[int | None, ...] = tuple(range(len(value.shape)))
    while value.producer is not None and value.producer.name == "broadcast_in_dim":
        axes = tuple(axes[i] for i in value.producer.params["broadcast_dimensions"])
        value = value.producer.inputs[0]
    node = value.producer
    if node is None or node.name not in _SHIFTS or len(node.inputs) != 2:
        return False
    left, right = (_position(v) for v in node.inputs)
    if left is None or right is None:
        return False
    first, second = ((axes[axis], offset) for axis, offset in (left, right))
    name = node.name if keeps else _NEGATED[node.name]
    if name in ("le", "lt"):
        first, second, name = second, first, _MIRRORED[name]
    return first[0] == row_axis and second[0] == column_axis and bool(first[1] + _SHIFTS[name] == second[1])


_SHIFTS = {"ge": 0, "gt": -1, "le": 0, "lt": -1}
"""``a > b`` is ``a - 1 >= b`` for integers."""
_MIRRORED = {"le": "ge", "lt": "gt"}
_NEGATED = {"ge": "lt", "gt": "le", "le": "gt", "lt": "ge"}


def _position(value: Value) -> tuple[int, Any] | None:
    """The dimension along which ``value`` counts up by one, and what it starts from; None where it does otherwise."""
    node = value.producer
    if node is None:
        return _position_of_constant(value)
    if node.name == "iota":
        return int(node.params["dimension"]), 0
    if node.name == "add":
        for inner, offset in (node.inputs, node.inputs[::-1]):
            number, found = scalar_of(offset), _position(inner)
            if number is not None and found is not None and inner.shape == value.shape:
                return found[0], found[1] + int(number)
    if node.name == "broadcast_in_dim":
        found = _position(node.inputs[0])
        return None if found is None else (int(node.params["broadcast_dimensions"][found[0]]), found[1])
    return None


def _position_of_constant(value: Value) -> tuple[int, Any] | None:
    if not value.is_const or element_of(value) is not None or value.dtype.kind != "i":
        return None
    array = value.numpy()
    for axis, size in enumerate(array.shape):
        start = array.reshape(-1)[0]
        counting = start + np.arange(size).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        if size > 1 and np.array_equal(array, np.broadcast_to(counting, array.shape)):
            return axis, int(start)
    return None
