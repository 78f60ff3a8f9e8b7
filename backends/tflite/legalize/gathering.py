"""Reading at computed positions: every gather becomes one along the rows of a matrix, at positions that exist."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ....core.node import Node
from .bounds import lies_within
from .rule import node_lowering

Array = jax.Array


def take_rows(table: Array, rows: Array) -> Array:
    """``table[rows]`` for positions that are known to exist: TFLite's own gather."""
    numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(range(rows.ndim, rows.ndim + table.ndim - 1)), collapsed_slice_dims=(0,), start_index_map=(0,)
    )
    sizes = (1, *table.shape[1:])
    mode = lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return lax.gather(table, rows[..., None], numbers, sizes, mode=mode)


def _is_rows(node: Node) -> bool:
    """Whether a gather is one that `take_rows` makes."""
    numbers, table, indices = node.params["dimension_numbers"], node.inputs[0], node.inputs[1]
    many = len(indices.shape) - 1
    return (
        numbers.start_index_map == (0,)
        and numbers.collapsed_slice_dims == (0,)
        and not numbers.operand_batching_dims
        and tuple(numbers.offset_dims) == tuple(range(many, many + len(table.shape) - 1))
        and tuple(node.params["slice_sizes"]) == (1, *table.shape[1:])
    )


def _why_not(node: Node) -> str | None:
    size = node.inputs[0].shape[0] if node.inputs[0].shape else 0
    promised = node.params["mode"] == lax.GatherScatterMode.PROMISE_IN_BOUNDS
    if promised and _is_rows(node) and node.inputs[1].dtype == np.int32 and lies_within(node.inputs[1], 0, size - 1):
        return "it reads rows at positions that exist"
    return None


def _gather(node: Node, operand: Array, indices: Array) -> Array:
    return Gather(node, operand, indices).result()


class Gather:
    """One gather.

    Indexed axes, batching axes first, come to the front and are read as one; windows along them become further axes of
    the positions. What is left of the operand is cut to its window, which starts at 0.
    """

    def __init__(self, node: Node, operand: Array, indices: Array) -> None:
        numbers = node.params["dimension_numbers"]
        self.out = node.outputs[0].aval
        self.offset = tuple(numbers.offset_dims)
        self.collapsed = tuple(numbers.collapsed_slice_dims)
        self.map = tuple(numbers.start_index_map)
        self.batching = tuple(numbers.operand_batching_dims)
        self.index_batching = tuple(numbers.start_indices_batching_dims)
        self.sizes = tuple(node.params["slice_sizes"])
        self.mode = node.params["mode"]
        self.fill_value = node.params["fill_value"]
        self.operand, self.indices = operand, indices
        self.batch = indices.shape[:-1]

    def result(self) -> Array:
        """The gathered array."""
        operand, sizes = self.operand, self.sizes
        indexed = (*self.batching, *self.map)
        rest = [axis for axis in range(operand.ndim) if axis not in indexed]
        starts, valid = self._starts()
        positions, windows = self._positions(starts)
        limits = [sizes[axis] if axis in rest else operand.shape[axis] for axis in range(operand.ndim)]
        cut = lax.slice(operand, [0] * operand.ndim, limits)
        table = lax.transpose(cut, (*indexed, *rest))
        table = table.reshape(math.prod(operand.shape[axis] for axis in indexed), *(sizes[axis] for axis in rest))
        rows = take_rows(table, positions)
        if valid is not None:
            mask = valid.reshape(*self.batch, *(1,) * (rows.ndim - len(self.batch)))
            rows = lax.select(jnp.broadcast_to(mask, rows.shape), rows, lax.full_like(rows, self._fill()))
        return self._placed(rows, windows, rest)

    def _starts(self) -> tuple[list[Array], Array | None]:
        """Per indexed axis where its windows begin, moved inside; and which windows were inside."""
        starts, valid = [], None
        for column, axis in enumerate(self.map):
            index = self.indices[..., column]
            last = self.operand.shape[axis] - self.sizes[axis]
            inside = jnp.clip(index, 0, last) if last < np.iinfo(index.dtype).max else jnp.maximum(index, 0)
            if self.mode == lax.GatherScatterMode.FILL_OR_DROP:
                same = inside == index
                valid = same if valid is None else valid & same
            starts.append(inside.astype(np.int32))
        return starts, valid

    def _positions(self, starts: list[Array]) -> tuple[Array, list[int]]:
        """Rows of the table, over batch axes and windows; and the axes of which those windows are."""
        windows = [axis for axis in self.map if self.sizes[axis] != 1]
        rank = len(self.batch) + len(windows)
        indexed = (*self.batching, *self.map)
        stride, total = 1, jnp.zeros((1,) * rank, np.int32)
        for axis in reversed(indexed):
            if axis in self.batching:
                along = self.index_batching[self.batching.index(axis)]
                here = lax.broadcasted_iota(np.int32, _line(self.batch[along], along, rank), along)
            else:
                start = starts[self.map.index(axis)]
                here = start.reshape(*self.batch, *(1,) * len(windows))
                if axis in windows:
                    along = len(self.batch) + windows.index(axis)
                    here = here + lax.broadcasted_iota(np.int32, _line(self.sizes[axis], along, rank), along)
            total = total + here * np.int32(stride)
            stride *= self.operand.shape[axis]
        return jnp.broadcast_to(total, (*self.batch, *(self.sizes[axis] for axis in windows))), windows

    def _placed(self, rows: Array, windows: list[int], rest: list[int]) -> Array:
        """Axes where the result has them; indexed axes of size one that are not collapsed are put back."""
        present = [*windows, *rest]
        kept = [a for a in range(self.operand.ndim) if a not in self.collapsed and a not in self.batching]
        batch = len(self.batch)
        source = {axis: batch + place for place, axis in enumerate(present)}
        target = [axis for axis in range(len(self.out.shape)) if axis not in self.offset]
        order_of = dict(zip(target, range(batch), strict=True))
        order_of.update({place: source[axis] for place, axis in zip(self.offset, kept, strict=True) if axis in source})
        moved = lax.transpose(rows, [order_of[place] for place in sorted(order_of)])
        # Axes of the operand that are neither kept nor windows have size one, and are not in the order.
        return moved.reshape(self.out.shape)

    def _fill(self) -> Any:
        if self.fill_value is not None:
            return self.fill_value
        dtype = self.out.dtype
        if dtype == np.bool_:
            return True
        return np.nan if jnp.issubdtype(dtype, jnp.floating) else np.iinfo(dtype).min


def _line(size: int, axis: int, rank: int) -> tuple[int, ...]:
    return tuple(size if k == axis else 1 for k in range(rank))


RULES = (node_lowering("rows", "gather", _gather, _why_not, "exact"),)
