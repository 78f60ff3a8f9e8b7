"""Between which numbers an integer value surely lies, from what made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....core.node import Node, Value

Bounds = tuple[int, int]

MOST_STEPS = 40
"""Operations that are looked back over."""

_KEEPING = frozenset({
    "reshape", "squeeze", "expand_dims", "transpose", "broadcast_in_dim", "slice", "rev", "copy", "dynamic_slice",
    "gather", "reduce_max", "reduce_min", "optimization_barrier", "split", "cummax", "cummin",
})  # fmt: skip
"""Operations whose result is made of elements of their first operand. A gather that fills has its own row below."""

_JOINING = frozenset({"concatenate", "stack", "pad", "dynamic_update_slice"})


def bounds_of(value: Value, steps: int = MOST_STEPS) -> Bounds | None:
    """The smallest and the largest number that ``value`` can hold, or None where that is not known."""
    if value.is_const:
        array = value.numpy()
        if not array.size or array.dtype.kind not in "biu":
            return None
        return int(array.min()), int(array.max())
    node = value.producer
    if node is None or steps <= 0 or np.dtype(value.dtype).kind not in "biu":
        return None
    found = _of_node(node, value, steps - 1)
    if found is None:
        return None
    if value.dtype == np.bool_:
        return found
    info = np.iinfo(value.dtype)
    if node.name in ("max", "min"):  # of which only one end may be known
        return max(found[0], int(info.min)), min(found[1], int(info.max))
    return found if info.min <= found[0] and found[1] <= info.max else None


def lies_within(value: Value, low: int, high: int) -> bool:
    """Whether every element is surely in ``low..high``; an empty value's are."""
    if value.is_const and not value.numpy().size:
        return True
    found = bounds_of(value)
    return found is not None and low <= found[0] and found[1] <= high


def _of_node(node: Node, value: Value, steps: int) -> Bounds | None:
    if node.name in _KEEPING:
        if node.name == "gather" and "FILL" in str(node.params["mode"]):
            return None
        return bounds_of(node.inputs[0], steps)
    if node.name in _JOINING:
        operands = node.inputs[:2] if node.name in ("pad", "dynamic_update_slice") else node.inputs
        return _union([bounds_of(v, steps // len(operands)) for v in operands])
    if node.name == "select_n":
        return _union([bounds_of(v, steps // 2) for v in node.inputs[1:]])
    if node.name in ("argmax", "argmin"):
        (axis,) = node.params["axes"]
        return 0, max(int(node.inputs[0].shape[axis]) - 1, 0)
    if node.name == "top_k" and value.index == 1:
        return 0, max(int(node.inputs[0].shape[int(node.params.get("axis", -1))]) - 1, 0)
    if node.name == "iota":
        return 0, max(int(value.shape[node.params["dimension"]]) - 1, 0)
    if node.name == "convert_element_type":
        return _of_conversion(node.inputs[0], steps)
    function = _FUNCTIONS.get(node.name)
    if function is None:
        return None
    known: Bounds | None = function(*(bounds_of(v, steps // len(node.inputs)) for v in node.inputs))
    return known


def _of_conversion(value: Value, steps: int) -> Bounds | None:
    dtype = np.dtype(value.dtype)
    if dtype == np.bool_:
        return 0, 1
    known = bounds_of(value, steps)
    if known is None and dtype.kind in "iu" and dtype.itemsize < 4:
        info = np.iinfo(dtype)
        return int(info.min), int(info.max)
    return known


def _union(parts: list[Bounds | None]) -> Bounds | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def _both(function: Callable[[Bounds, Bounds], Bounds]) -> Callable[[Bounds | None, Bounds | None], Bounds | None]:
    return lambda x, y: None if x is None or y is None else function(x, y)


def _product(x: Bounds, y: Bounds) -> Bounds:
    corners = [a * b for a in x for b in y]
    return min(corners), max(corners)


def _smaller(x: Bounds | None, y: Bounds | None) -> Bounds | None:
    """Of min: one known upper end is enough, when the other's lower end is that of its type."""
    if x is None or y is None:
        known = x or y
        return None if known is None else (-(2**63), known[1])
    return min(x[0], y[0]), min(x[1], y[1])


def _larger(x: Bounds | None, y: Bounds | None) -> Bounds | None:
    if x is None or y is None:
        known = x or y
        return None if known is None else (known[0], 2**63 - 1)
    return max(x[0], y[0]), max(x[1], y[1])


def _clamped(low: Bounds | None, x: Bounds | None, high: Bounds | None) -> Bounds | None:
    if low is None or high is None:
        return None
    if x is None:
        return low[0], high[1]
    return max(low[0], min(x[0], high[0])), min(high[1], max(x[1], low[1]))


_FUNCTIONS: dict[str, Any] = {
    "add": _both(lambda x, y: (x[0] + y[0], x[1] + y[1])),
    "sub": _both(lambda x, y: (x[0] - y[1], x[1] - y[0])),
    "mul": _both(_product),
    "neg": lambda x: None if x is None else (-x[1], -x[0]),
    "max": _larger,
    "min": _smaller,
    "clamp": _clamped,
}
