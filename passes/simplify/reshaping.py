"""Reshape, squeeze, transpose, broadcast: what keeps the elements in order, or copies them.

A squeeze, a broadcast that adds axes of size one, and a transpose that moves only such axes keep the elements in order,
as a reshape does; two of them in a row are one. Sizes may be symbolic.
"""

from __future__ import annotations

from typing import Any

from jax import lax

from ...core.node import Node, Value
from ...core.patterns import Op, op, var
from ...core.rewrite import Build, Match, Rule
from .checks import all_of, same_type, unsharded

x = var("x")

ORDER_KEEPING = ("reshape", "squeeze", "broadcast_in_dim", "transpose")
"""Primitives that keep the order of elements, given the right parameters."""

BROADCASTING = (
    "add", "sub", "mul", "div", "rem", "max", "min", "pow", "atan2", "nextafter", "eq", "ne", "lt", "le", "gt", "ge",
    "and", "or", "xor", "shift_left", "shift_right_arithmetic", "shift_right_logical",
)  # fmt: skip
"""Elementwise primitives of two operands, either of which may be a scalar, or have axes of size one."""

Shape = tuple[Any, ...]


# -- two that are one --------------------------------------------------------------------------------------------------


def keeps_order(node: Node) -> bool:
    """Whether the elements of the result are those of the operand, in the same order."""
    before, after = node.inputs[0].aval.shape, node.outputs[0].aval.shape
    if node.name == "reshape":
        return node.params["dimensions"] is None
    if node.name == "broadcast_in_dim":
        return _without_ones(before) == _without_ones(after)
    if node.name == "transpose":
        moved = [axis for axis in node.params["permutation"] if not _is_one(before[axis])]
        return moved == sorted(moved)
    return node.name == "squeeze"


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _without_ones(shape: Shape) -> list[Any]:
    return [size for size in shape if not _is_one(size)]


def _root_keeps_order(match: Match) -> str | None:
    return None if keeps_order(match.root) else "the elements change their order"


def _both_keep_order(match: Match) -> str | None:
    return None if keeps_order(match.root) and keeps_order(match["inner"]) else "the elements change their order"


def _gets_shorter(match: Match) -> str | None:
    """A reshape takes in its neighbour; two others are one only where that is no reshape."""
    before, after = match["x"].aval.shape, match.root.outputs[0].aval.shape
    if "reshape" in (match.root.name, match["inner"].name):
        return None
    one = _dropped(before, after) is not None or _dropped(after, before) is not None
    return None if one else "together they are a reshape"


def _at_once(match: Match) -> Value:
    value, shape = match["x"], match.root.outputs[0].aval.shape
    if "reshape" not in (match.root.name, match["inner"].name):
        dropped, added = _dropped(value.aval.shape, shape), _dropped(shape, value.aval.shape)
        if dropped is not None:
            return match.trace(lax.squeeze, value, static=(dropped,))
        if added is not None:
            return match.trace(lax.expand_dims, value, static=(added,))
    return match.trace(lax.reshape, value, static=(shape,))


def _dropped(before: Shape, after: Shape) -> tuple[int, ...] | None:
    """The axes of size one without which ``before`` is ``after``; None when it takes more than that."""
    axes, position = [], 0
    for axis, size in enumerate(before):
        if position < len(after) and after[position] == size:
            position += 1
        elif _is_one(size):
            axes.append(axis)
        else:
            return None
    return tuple(axes) if position == len(after) else None


def _compose_permutations(match: Match) -> Value:
    inner = match["inner"].params["permutation"]
    return match.like(
        match.root, match["x"], permutation=tuple(inner[axis] for axis in match.root.params["permutation"])
    )


# -- broadcasts --------------------------------------------------------------------------------------------------------


def _compose_broadcasts(match: Match) -> Value:
    outer, inner = match.root.params["broadcast_dimensions"], match["inner"].params["broadcast_dimensions"]
    return match.like(match.root, match["x"], broadcast_dimensions=tuple(outer[axis] for axis in inner))


def _places(match: Match) -> list[int] | None:
    """Where the axes of ``x`` stand after the reshape: None unless that only adds and drops axes of size one."""
    value, middle = match["x"].aval.shape, match.root.inputs[0].aval.shape
    if _without_ones(value) != list(value) or _without_ones(middle) != list(value):
        return None
    return [axis for axis, size in enumerate(middle) if not _is_one(size)]


def _only_ones_are_reshaped(match: Match) -> str | None:
    return "the operand is reshaped by more than axes of size one" if _places(match) is None else None


def _broadcast_directly(match: Match) -> Value:
    outer, places = match.root.params["broadcast_dimensions"], _places(match)
    assert places is not None
    return match.like(match.root, match["x"], broadcast_dimensions=tuple(outer[place] for place in places))


def _of_scalar(match: Match) -> str | None:
    return "what is broadcast is no scalar" if match["x"].aval.shape else None


def _scalar_in_final_shape(match: Match) -> Value:
    return match.trace(lax.broadcast_in_dim, match["x"], static=(match.root.outputs[0].aval.shape, ()))


def _permuted_places(match: Match) -> list[int]:
    permutation = match.root.params["permutation"]
    return [permutation.index(axis) for axis in match["inner"].params["broadcast_dimensions"]]


def _stays_in_order(match: Match) -> str | None:
    places = _permuted_places(match)
    return None if places == sorted(places) else "the operand itself would have to be transposed"


def _broadcast_permuted(match: Match) -> Value:
    shape, places = match.root.outputs[0].aval.shape, tuple(_permuted_places(match))
    return match.like(match["inner"], match["x"], shape=shape, broadcast_dimensions=places)


def _spread_operand(match: Match) -> int | None:
    """Which operand of an elementwise operation is a broadcast that the operation does by itself."""
    inputs, shape = match.root.inputs, match.root.outputs[0].aval.shape
    for index, value in enumerate(inputs):
        node = value.producer
        if node is None or node.name != "broadcast_in_dim" or len(node.inputs) != 1:
            continue
        every_axis = tuple(node.params["broadcast_dimensions"]) == tuple(range(len(shape)))
        if inputs[1 - index].aval.shape == shape and (every_axis or not node.inputs[0].aval.shape):
            return index
    return None


def _has_spread_operand(match: Match) -> str | None:
    return "no operand is broadcast without need" if _spread_operand(match) is None else None


def _without_spread_operand(match: Match) -> Value:
    inputs, index = list(match.root.inputs), _spread_operand(match)
    assert index is not None
    broadcast = inputs[index].producer
    assert broadcast is not None
    inputs[index] = broadcast.inputs[0]
    return match.like(match.root, *inputs)


_inner = Op(ORDER_KEEPING, (x,), name="inner")
_broadcast = op.broadcast_in_dim(x, name="inner")
_transpose = op.transpose(x, name="inner")

RULES = [
    Rule("reshape-nothing", Op(ORDER_KEEPING, (x,)), x, all_of(unsharded, _root_keeps_order, same_type("x"))),
    Rule("reshape-back", Op(ORDER_KEEPING, (_inner,)), x, all_of(unsharded, _both_keep_order, same_type("x"))),
    Rule(
        "scalar-in-final-shape",
        Op((*ORDER_KEEPING, "rev", "slice"), (_broadcast,)),
        Build(_scalar_in_final_shape),
        all_of(unsharded, _of_scalar),
    ),
    Rule("transpose-transpose", op.transpose(_transpose), Build(_compose_permutations)),
    Rule("broadcast-broadcast", op.broadcast_in_dim(_broadcast), Build(_compose_broadcasts), unsharded),
    Rule(
        "broadcast-reshape",
        op.broadcast_in_dim(Op(("reshape", "squeeze"), (x,), name="inner")),
        Build(_broadcast_directly),
        all_of(unsharded, _only_ones_are_reshaped),
    ),
    Rule(
        "reshape-reshape",
        Op(ORDER_KEEPING, (_inner,)),
        Build(_at_once),
        all_of(unsharded, _both_keep_order, _gets_shorter),
    ),
    Rule(
        "transpose-broadcast", op.transpose(_broadcast), Build(_broadcast_permuted), all_of(unsharded, _stays_in_order)
    ),
    Rule("broadcast-by-operation", Op(BROADCASTING), Build(_without_spread_operand), _has_spread_operand),
]
