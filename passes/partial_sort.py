"""`partial-sort`: a sort of which only the first or the last few elements are read finds just those.

XLA:CPU sorts 8 rows of 50257 numbers in 60 milliseconds, and finds the 40 largest of each in half of one.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from ..core.graph import Graph
from ..core.node import Node
from ..core.pass_ import GraphPass, PassContext

LEAST_SIZE = 64
"""Shorter axes are sorted in no time."""

LEAST_FACTOR = 8
"""How many times longer the axis must be than what is read of it."""


@dataclasses.dataclass(frozen=True)
class PartialSort(GraphPass):
    """Finds the first or last few elements of a sort by `top_k`, where nothing else of it is read.

    Equal elements keep their order, and NaNs are the largest, as in the sort. The results are the same bit for bit.
    """

    name: ClassVar[str] = "partial-sort"
    idempotent: ClassVar[bool] = True

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Replaces in every region; what was found is reported as ``sorts`` in the details."""
        found = []
        for region in graph.walk():
            for node in region.nodes():
                if node.name == "sort" and why_whole(node) is None:
                    kept = elements_read(node)
                    assert kept is not None
                    found.append({"where": node.where, "size": _size(node), "kept": kept[1] - kept[0]})
                    _replace(region, node, *kept)
        context.details["sorts"] = found
        return bool(found)


def why_whole(node: Node) -> str | None:
    """Why a sort stays a sort, in a sentence; None where part of it is enough."""
    key = node.inputs[0]
    if node.params["num_keys"] != 1:
        return "it has several keys"
    if not (jnp.issubdtype(key.dtype, jnp.floating) or jnp.issubdtype(key.dtype, jnp.integer)):
        return f"its keys are of type {key.dtype}"
    if jnp.issubdtype(key.dtype, jnp.floating) and jnp.dtype(key.dtype).itemsize not in (2, 4, 8):
        return f"its keys are of type {key.dtype}"
    if any(jnp.issubdtype(value.dtype, jax.dtypes.extended) for value in node.inputs):
        return "it carries random keys along"
    if any(not isinstance(size, int) for size in key.shape) or 0 in key.shape:
        return "its sizes are not known, or it has no elements"
    kept = elements_read(node)
    if kept is None:
        return "all of it is read"
    count, size = kept[1] - kept[0], _size(node)
    if kept[0] != 0 and kept[1] != size:
        return "elements from its middle are read"
    if count == 0:
        return "nothing of it is read"
    if size < LEAST_SIZE or count * LEAST_FACTOR > size:
        return f"{count} of {size} elements are too many"
    return None


def _size(node: Node) -> int:
    return int(node.inputs[0].shape[node.params["dimension"]])


def elements_read(node: Node) -> tuple[int, int] | None:
    """The range along the sorted axis that its readers need, from one of its ends; None where one reads all of it.

    Readers are slices, perhaps of the reversed sort.
    """
    axis, size, ranges = node.params["dimension"], _size(node), []
    for output in node.outputs:
        for user in output.users:
            if user.name == "slice":
                ranges.append(_range(user, axis))
            elif user.name == "rev" and all(reader.name == "slice" for reader in user.outputs[0].users):
                mirrored = axis in user.params["dimensions"]
                for start, stop in (_range(reader, axis) for reader in user.outputs[0].users):
                    ranges.append((size - stop, size - start) if mirrored else (start, stop))
            else:
                return None
    if not ranges:
        return None
    first, last = min(start for start, _ in ranges), max(stop for _, stop in ranges)
    if last * LEAST_FACTOR <= size:
        return 0, last
    return (first, size) if (size - first) * LEAST_FACTOR <= size else (first, last)


def _range(reader: Node, axis: int) -> tuple[int, int]:
    return reader.params["start_indices"][axis], reader.params["limit_indices"][axis]


def _replace(region: Graph, node: Node, start: int, stop: int) -> None:
    axis = node.params["dimension"]
    for user in [user for output in node.outputs for user in output.users]:
        if user.name == "rev":
            _slice_first(region, user)
    fn = functools.partial(first_of_sort if start == 0 else last_of_sort, count=stop - start, dimension=axis)
    found = region.splice(fn, *node.inputs, before=node, rule="partial-sort")
    for old, new in zip(node.outputs, found, strict=True):
        for user in old.users:
            starts, limits = list(user.params["start_indices"]), list(user.params["limit_indices"])
            starts[axis], limits[axis] = starts[axis] - start, limits[axis] - start
            region.set_params(user, start_indices=tuple(starts), limit_indices=tuple(limits))
            region.set_operand(user, 0, new)
    region.erase(node)


def _slice_first(region: Graph, reversal: Node) -> None:
    """Slices of a reversed array become reversed slices of the array."""
    dimensions, (array,) = reversal.params["dimensions"], reversal.inputs
    for reader in reversal.outputs[0].users:
        fn = functools.partial(_reversed_slice, **reader.params, dimensions=dimensions)
        region.replace(reader.outputs[0], region.splice(fn, array, before=reader, rule="partial-sort")[0])
        region.erase(reader)
    region.erase(reversal)


def _reversed_slice(array: jax.Array, *, start_indices: Any, limit_indices: Any, strides: Any, dimensions: Any) -> Any:
    """``slice(rev(array))``."""
    steps = strides or (1,) * array.ndim
    starts, limits = list(start_indices), list(limit_indices)
    for axis in dimensions:
        last = starts[axis] + (limits[axis] - starts[axis] - 1) // steps[axis] * steps[axis]
        starts[axis], limits[axis] = array.shape[axis] - 1 - last, array.shape[axis] - starts[axis]
    return lax.rev(lax.slice(array, starts, limits, steps), dimensions)


def first_of_sort(key: jax.Array, *others: jax.Array, count: int, dimension: int) -> list[jax.Array]:
    """The first ``count`` elements, along ``dimension``, of a stable sort by ``key``: it and the others."""
    positions = lax.top_k(jnp.moveaxis(_descending(key), dimension, -1), count)[1]
    return _picked((key, *others), positions, dimension)


def last_of_sort(key: jax.Array, *others: jax.Array, count: int, dimension: int) -> list[jax.Array]:
    """The last ``count`` elements of a stable sort by ``key``: it and the others.

    Of equal elements the last ones come last: they are found in the reversed order, and turned around afterwards.
    """
    size = key.shape[dimension]
    reversed_key = lax.rev(jnp.moveaxis(_ordered(key), dimension, -1), (key.ndim - 1,))
    positions = lax.top_k(reversed_key, count)[1]
    return _picked((key, *others), (size - 1) - lax.rev(positions, (key.ndim - 1,)), dimension)


def _ordered(key: jax.Array) -> jax.Array:
    """Keys that ``top_k`` orders as ``sort`` does: one zero, and one NaN, above everything else."""
    if not jnp.issubdtype(key.dtype, jnp.floating):
        return key
    key = jnp.where(key == 0, jnp.zeros((), key.dtype), key)
    return jnp.where(key != key, jnp.array(jnp.nan, key.dtype), key)


def _descending(key: jax.Array) -> jax.Array:
    """Keys in the reverse order of the sort; of integers the complement, since the least one has no negative."""
    if not jnp.issubdtype(key.dtype, jnp.floating):
        return ~key
    key = jnp.where(key == 0, jnp.zeros((), key.dtype), -key)
    return jnp.where(key != key, -jnp.array(jnp.nan, key.dtype), key)


def _picked(operands: tuple[jax.Array, ...], positions: jax.Array, dimension: int) -> list[jax.Array]:
    """Elements of each operand; an iota, as `argsort` sorts along, is the positions themselves."""
    positions = jnp.moveaxis(positions, -1, dimension)
    return [jnp.take_along_axis(operand, positions, dimension, mode="promise_in_bounds") for operand in operands]
