"""How each primitive lets a transpose pass: one small function per family of parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from ...core.node import Node
from ...core.primitives import ELEMENTWISE as ELEMENTWISE
from .permutation import Permutation, inverse, permuted, without


@dataclasses.dataclass(frozen=True)
class Sunk:
    """What ``f(transpose(x, p))`` becomes.

    Attributes:
      transposed: positions of the operands that must all be transposed by ``p``.
      result: the permutation of every result.
      params: parameters that change.
      order: a new order of the operands, where it changes.
    """

    transposed: frozenset[int]
    result: Permutation
    params: Mapping[str, Any]
    order: tuple[int, ...] | None = None


SinkRule = Callable[[Node, Permutation], Sunk | None]
"""From a node and the permutation in front of it to what it becomes; None where the transpose must stay."""

FIRST = frozenset({0})


def _reduce(node: Node, p: Permutation) -> Sunk:
    axes = node.params["axes"]
    moved = tuple(sorted(p[axis] for axis in axes)) if len(axes) != 1 else (p[axes[0]],)
    return Sunk(FIRST, without(p, axes), {"axes": moved})


def _squeeze(node: Node, p: Permutation) -> Sunk:
    axes = node.params["dimensions"]
    return Sunk(FIRST, without(p, axes), {"dimensions": tuple(sorted(p[axis] for axis in axes))})


def _along(parameter: str) -> SinkRule:
    """Primitives that work along one axis, on operands that all have it."""

    def rule(node: Node, p: Permutation) -> Sunk:
        every = frozenset(range(len(node.inputs)))
        return Sunk(every, p, {parameter: p[node.params[parameter]]})

    return rule


def _reverse(node: Node, p: Permutation) -> Sunk:
    return Sunk(FIRST, p, {"dimensions": tuple(sorted(p[axis] for axis in node.params["dimensions"]))})


def _per_axis(*parameters: str, operands: frozenset[int] = FIRST) -> SinkRule:
    """Primitives whose parameters hold one entry per axis."""

    def rule(node: Node, p: Permutation) -> Sunk | None:
        back = inverse(p)
        params = {name: node.params[name] for name in parameters}
        moved = {name: None if value is None else permuted(value, back) for name, value in params.items()}
        return Sunk(operands, p, moved)

    return rule


_WINDOW = ("window_dimensions", "window_strides", "padding")
_DILATED_WINDOW = (*_WINDOW, "base_dilation", "window_dilation")


def _reduce_window(node: Node, p: Permutation) -> Sunk | None:
    arrays = frozenset(range(len(node.inputs) // 2))  # the others are initial values, scalars
    return _per_axis(*_DILATED_WINDOW, operands=arrays)(node, p)


def _dynamic_slice(node: Node, p: Permutation) -> Sunk:
    order = (0, *(1 + axis for axis in inverse(p)))
    return Sunk(FIRST, p, {"slice_sizes": permuted(node.params["slice_sizes"], inverse(p))}, order)


def _dynamic_update_slice(node: Node, p: Permutation) -> Sunk:
    return Sunk(frozenset({0, 1}), p, {}, (0, 1, *(2 + axis for axis in inverse(p))))


def _broadcast_in_dim(node: Node, p: Permutation) -> Sunk | None:
    """The new axes stay; those of the operand take its own order among the places that they had."""
    if len(node.inputs) != 1:
        return None
    places = node.params["broadcast_dimensions"]
    shape = list(node.params["shape"])
    result = list(range(len(shape)))
    new_shape = list(shape)
    for place, axis in zip(places, p, strict=True):
        result[place] = places[axis]
        new_shape[places[axis]] = shape[place]
    return Sunk(FIRST, tuple(result), {"shape": tuple(new_shape)})


def _dot_general(node: Node, p: Permutation) -> Sunk | None:
    """Contraction over a transposed left operand; the order of its free axes decides what is left to transpose."""
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = node.params["dimension_numbers"]
    if len(p) != len(node.inputs[0].shape) or node.inputs[0].producer is None:
        return None
    if node.inputs[0].dtype != node.outputs[0].dtype:  # XLA:CPU takes products of bfloat16 in float32 in one order only
        return None
    if node.inputs[0].producer.name != "transpose" or tuple(node.inputs[0].producer.params["permutation"]) != p:
        return None
    used = {*lhs_contract, *lhs_batch}
    free = [axis for axis in range(len(p)) if axis not in used]
    moved_free = [p[axis] for axis in free]
    order = sorted(range(len(free)), key=moved_free.__getitem__)
    batch, rank = len(lhs_batch), len(node.outputs[0].shape)
    result = list(range(rank))
    for place, source in enumerate(order):
        result[batch + source] = batch + place
    numbers = (
        (tuple(p[axis] for axis in lhs_contract), tuple(rhs_contract)),
        (tuple(p[axis] for axis in lhs_batch), tuple(rhs_batch)),
    )
    return Sunk(FIRST, tuple(result), {"dimension_numbers": numbers})


def _reshape(node: Node, p: Permutation) -> Sunk | None:
    """A reshape that merges and splits axes which stand together, in the same order, before the transpose too."""
    if len(node.inputs) != 1 or node.params.get("dimensions") is not None:
        return None
    after = tuple(node.params["new_sizes"])
    groups = _reshape_groups(node.inputs[0].shape, after)
    if groups is None:
        return None
    solid = sorted(([p[place] for place in places], results) for places, results in groups if places and results)
    source_order = [axis for axes, _ in solid for axis in axes]
    if source_order != sorted(source_order):
        return None
    order = [axis for _, results in solid for axis in results]
    order += [axis for places, results in groups if not places for axis in results]
    result = tuple(order.index(axis) for axis in range(len(after)))
    return Sunk(FIRST, result, {"new_sizes": tuple(after[axis] for axis in order)})


def _reshape_groups(before: tuple[Any, ...], after: tuple[Any, ...]) -> list[tuple[list[int], list[int]]] | None:
    """The smallest groups of axes that a reshape maps onto each other; axes of size one stand alone.

    None where sizes are zero, or symbolic and not simply kept.
    """
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        if i < len(before) and before[i] == 1:
            groups.append(([i], []))
            i += 1
        elif j < len(after) and after[j] == 1:
            groups.append(([], [j]))
            j += 1
        elif i < len(before) and j < len(after) and before[i] == after[j]:
            groups.append(([i], [j]))
            i, j = i + 1, j + 1
        else:
            group = _product_group(before, after, i, j)
            if group is None:
                return None
            groups.append(group)
            i, j = group[0][-1] + 1, group[1][-1] + 1
    return groups


def _product_group(
    before: tuple[Any, ...], after: tuple[Any, ...], i: int, j: int
) -> tuple[list[int], list[int]] | None:
    """Axes from ``i`` and from ``j`` on, as many of each as make the sizes equal."""
    left, right = [i], [j]
    while all(isinstance(d, int) and d > 0 for d in (*before[i : left[-1] + 1], *after[j : right[-1] + 1])):
        size_left, size_right = math.prod(before[i : left[-1] + 1]), math.prod(after[j : right[-1] + 1])
        if size_left == size_right:
            return left, right
        if size_left < size_right:
            left.append(left[-1] + 1)
        else:
            right.append(right[-1] + 1)
        if left[-1] >= len(before) or right[-1] >= len(after):
            return None
    return None


SINK: Mapping[str, SinkRule] = {
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor"), _reduce
    ),
    **dict.fromkeys(("argmax", "argmin"), _reduce),
    "squeeze": _squeeze,
    "concatenate": _along("dimension"),
    "sort": _along("dimension"),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "split"), _along("axis")),
    "rev": _reverse,
    "pad": _per_axis("padding_config"),
    "slice": _per_axis("start_indices", "limit_indices", "strides"),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min", "reduce_window_sum"), _per_axis(*_DILATED_WINDOW)),
    "reduce_window": _reduce_window,
    "select_and_scatter_add": _per_axis(*_WINDOW, operands=frozenset({0, 1})),
    "select_and_gather_add": _per_axis(*_DILATED_WINDOW, operands=frozenset({0, 1})),
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "broadcast_in_dim": _broadcast_in_dim,
    "dot_general": _dot_general,
    "reshape": _reshape,
}
"""Every other primitive keeps its transposes in front of it."""
