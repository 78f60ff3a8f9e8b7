"""Slices, and gathers that are slices. Offsets must be known numbers; an axis of unknown size may be taken whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import lax

from ...core.node import Node, Value
from ...core.patterns import Op, op, var
from ...core.rewrite import Build, Check, Match, Rule
from .checks import number_of, same_type

x, value = var("x"), var("value")

Bound = tuple[int, int, int]
"""``(start, limit, stride)`` of a slice along one axis."""


def bounds(node: Node) -> list[Bound | None] | None:
    """Per axis, what a slice takes, or None where it takes everything. None altogether when a bound is not known."""
    starts, limits = node.params["start_indices"], node.params["limit_indices"]
    strides = node.params["strides"] or (1,) * len(starts)
    every: list[Bound | None] = []
    for start, limit, stride, before, after in zip(
        starts, limits, strides, node.inputs[0].aval.shape, node.outputs[0].aval.shape, strict=True
    ):
        if before == after:
            every.append(None)
        elif all(isinstance(n, int | np.integer) for n in (start, limit, stride)):
            every.append((int(start), int(limit), int(stride)))
        else:
            return None
    return every


def slice_of(match: Match, operand: Value, every: list[Bound | None]) -> Value:
    """A slice of ``operand`` with these bounds."""
    shape = operand.aval.shape
    filled = [(0, size, 1) if bound is None else bound for bound, size in zip(every, shape, strict=True)]
    starts, limits, strides = zip(*filled, strict=True) if filled else ((), (), ())
    return match.trace(lax.slice, operand, static=(starts, limits, strides if set(strides) - {1} else None))


def known_bounds(*names: str) -> Check:
    """The root, and the nodes bound to ``names``, are slices with known bounds."""

    def check(match: Match) -> str | None:
        nodes = (match.root, *(match[name] for name in names))
        return None if all(bounds(node) is not None for node in nodes) else "its bounds are not known numbers"

    return check


def _slice_once(match: Match) -> Value:
    outer, inner = bounds(match.root), bounds(match["inner"])
    assert outer is not None and inner is not None
    return slice_of(match, match["x"], [_composed(a, b) for a, b in zip(outer, inner, strict=True)])


def _composed(outer: Bound | None, inner: Bound | None) -> Bound | None:
    if outer is None or inner is None:
        return inner if outer is None else outer
    (start, limit, stride), (first, _, step) = outer, inner
    begin = first + step * start
    end = first + step * (limit - 1) + 1 if limit > start else begin
    return begin, end, stride * step


def _part(match: Match) -> tuple[Value, list[Bound | None]] | None:
    """The concatenated operand that holds all of the slice, and the slice in terms of it."""
    every, axis = bounds(match.root), match["inner"].params["dimension"]
    taken = None if every is None else every[axis]
    if every is None or taken is None:
        return None
    start, limit, stride = taken
    offset = 0
    for operand in match["inner"].inputs:
        size = operand.aval.shape[axis]
        if not isinstance(size, int):
            return None
        if offset <= start < limit <= offset + size:
            every[axis] = (start - offset, limit - offset, stride)
            return operand, every
        offset += size
    return None


def _within_one_part(match: Match) -> str | None:
    return "the slice takes from several of the parts" if _part(match) is None else None


def _slice_of_part(match: Match) -> Value:
    part = _part(match)
    assert part is not None
    return slice_of(match, *part)


def _inside_padding(match: Match) -> list[Bound | None] | None:
    """The slice in terms of what is padded; None where it reaches into the padding."""
    every = bounds(match.root)
    shifted: list[Bound | None] = []
    for bound, (low, high, interior), size in zip(
        every or (), match["inner"].params["padding_config"], match["x"].aval.shape, strict=False
    ):
        if bound is None and low == high == interior == 0:
            shifted.append(None)
        elif bound is None or interior or not all(isinstance(n, int) for n in (low, size)):
            return None
        elif low <= bound[0] < bound[1] <= low + size:
            shifted.append((bound[0] - low, bound[1] - low, bound[2]))
        else:
            return None
    return shifted if every is not None else None


def _misses_padding(match: Match) -> str | None:
    return "the slice reaches into the padding" if _inside_padding(match) is None else None


def _slice_of_padded(match: Match) -> Value:
    inside = _inside_padding(match)
    assert inside is not None
    return slice_of(match, match["x"], inside)


def _only_copies_are_dropped(match: Match) -> str | None:
    """Along the axes that the operand has, the slice takes everything."""
    before, after = match["inner"].outputs[0].aval.shape, match.root.outputs[0].aval.shape
    for axis, size in zip(match["inner"].params["broadcast_dimensions"], match["x"].aval.shape, strict=True):
        if before[axis] != after[axis] and not (isinstance(size, int) and size == 1):
            return "the slice divides the operand"
    sharding = match["inner"].params.get("sharding")
    return None if sharding is None else "it says how its result is sharded"


def _broadcast_less(match: Match) -> Value:
    return match.like(match["inner"], match["x"], shape=match.root.outputs[0].aval.shape)


def _takes_everything(match: Match) -> str | None:
    same = match.root.inputs[0].aval.shape == match.root.outputs[0].aval.shape
    return None if same else "it takes a part only"


def _updates_everything(match: Match) -> str | None:
    same = match.root.inputs[1].aval.shape == match.root.outputs[0].aval.shape
    return None if same else "it updates a part only"


def _static_bounds(match: Match) -> list[Bound | None] | None:
    operand, *starts = match.root.inputs
    if len(starts) != len(operand.aval.shape):
        return None
    every: list[Bound | None] = []
    for start, size, length in zip(starts, operand.aval.shape, match.root.params["slice_sizes"], strict=True):
        begin = number_of(start)
        if size == length:
            every.append(None)
        elif begin is None or not (isinstance(size, int) and isinstance(length, int)):
            return None
        else:
            begin = min(max(int(begin), 0), size - length)  # XLA moves a slice that reaches over an edge inside
            every.append((begin, begin + length, 1))
    return every


def _starts_are_known(match: Match) -> str | None:
    return "where it starts is not known" if _static_bounds(match) is None else None


def _static_slice(match: Match) -> Value:
    every = _static_bounds(match)
    assert every is not None
    return slice_of(match, match.root.inputs[0], every)


def _gathered_range(match: Match) -> tuple[int, int, int, int] | None:
    """``(start, limit, stride, axis)`` of a gather that takes evenly spaced whole slices along one axis, in place."""
    operand, indices = match.root.inputs
    numbers, sizes = match.root.params["dimension_numbers"], match.root.params["slice_sizes"]
    shape, rank = operand.aval.shape, len(operand.aval.shape)
    if numbers.operand_batching_dims or len(numbers.start_index_map) != 1 or len(indices.aval.shape) != 2:
        return None
    (axis,) = numbers.start_index_map
    others = tuple(d for d in range(rank) if d != axis)
    in_place = numbers.collapsed_slice_dims == (axis,) and numbers.offset_dims == others
    if not in_place or any(sizes[d] != shape[d] for d in others) or not indices.aval.shape[0]:
        return None
    places = indices.numpy()[:, 0].astype(np.int64)
    steps = np.diff(places)
    stride = int(steps[0]) if len(steps) else 1
    inside = isinstance(shape[axis], int) and places[0] >= 0 and places[-1] < shape[axis]
    if not inside or stride < 1 or (steps != stride).any():
        return None
    return int(places[0]), int(places[-1]) + 1, stride, int(axis)


def _takes_a_range(match: Match) -> str | None:
    if not match.root.inputs[1].is_const:
        return "the indices are not known"
    return "the indices are not evenly spaced along one axis" if _gathered_range(match) is None else None


def _range_slice(match: Match) -> Any:
    return match.trace(lax.slice_in_dim, match.root.inputs[0], static=_gathered_range(match) or ())


def _gathered_slice(match: Match) -> list[Bound | None] | None:
    """What a gather without batch dimensions takes, at known places: with symbolic sizes, ``x[:, 1:]`` is one."""
    operand, indices = match.root.inputs
    numbers, sizes = match.root.params["dimension_numbers"], match.root.params["slice_sizes"]
    places = _numbers(indices)
    if places is None or len(indices.aval.shape) != 1 or numbers.operand_batching_dims:
        return None
    start = dict(zip(numbers.start_index_map, places, strict=True))
    every: list[Bound | None] = []
    for axis, (size, length) in enumerate(zip(operand.aval.shape, sizes, strict=True)):
        if size == length:
            every.append(None)
            continue
        begin = start.get(axis, 0)
        if not (isinstance(size, int) and isinstance(length, int)):
            return None
        if match.root.params["mode"] == lax.GatherScatterMode.CLIP:
            begin = min(max(begin, 0), size - length)
        elif not 0 <= begin <= size - length:
            return None
        every.append((begin, begin + length, 1))
    return every


def _numbers(indices: Value) -> list[int] | None:
    """The elements of a vector of known integers."""
    if indices.is_const:
        return [int(index) for index in indices.numpy().reshape(-1)]
    number = number_of(indices)
    return None if number is None or indices.aval.shape != (1,) else [int(number)]


def _takes_one_slice(match: Match) -> str | None:
    return "it takes several slices, or where is not known" if _gathered_slice(match) is None else None


def _one_slice(match: Match) -> Value:
    every = _gathered_slice(match)
    assert every is not None
    whole = slice_of(match, match.root.inputs[0], every)
    collapsed = tuple(match.root.params["dimension_numbers"].collapsed_slice_dims)
    return match.trace(lax.squeeze, whole, static=(collapsed,)) if collapsed else whole


def _operand(index: int) -> Build:
    return Build(lambda match: match.root.inputs[index])


_concatenate = Op(("concatenate",), name="inner")

RULES = [
    Rule("slice-nothing", op.slice(x), x, same_type("x")),
    Rule("slice-slice", op.slice(op.slice(x, name="inner")), Build(_slice_once), known_bounds("inner")),
    Rule("slice-concatenate", op.slice(_concatenate), Build(_slice_of_part), _within_one_part),
    Rule("slice-pad", op.slice(op.pad(x, value, name="inner")), Build(_slice_of_padded), _misses_padding),
    Rule(
        "slice-broadcast",
        op.slice(op.broadcast_in_dim(x, name="inner")),
        Build(_broadcast_less),
        _only_copies_are_dropped,
    ),
    Rule("dynamic-slice-nothing", Op(("dynamic_slice",)), _operand(0), _takes_everything),
    Rule("dynamic-slice-known", Op(("dynamic_slice",)), Build(_static_slice), _starts_are_known),
    Rule("update-everything", Op(("dynamic_update_slice",)), _operand(1), _updates_everything),
    Rule("gather-slice", Op(("gather",)), Build(_one_slice), _takes_one_slice),
    Rule("gather-range", Op(("gather",)), Build(_range_slice), _takes_a_range),
]
