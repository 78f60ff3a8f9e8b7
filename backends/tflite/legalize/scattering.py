"""Writing at computed positions with a reduction: TFLite's scatter only sets.

Which updates a row gets is a table of booleans, rows by updates. Where the selected updates of all rows fit into memory
together, they are reduced in one go; else a loop writes one update after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ....core.node import Node
from .rule import node_lowering
from .windows import elementwise

Array = jax.Array

MOST_SELECTED = 2**24
"""Elements of the table of selected updates; more are written in a loop, one row after the other."""

_REDUCTIONS: dict[str, str] = {
    "scatter-add": "add",
    "scatter_add": "add",
    "scatter-sub": "sub",
    "scatter_sub": "sub",
    "scatter-mul": "mul",
    "scatter_mul": "mul",
    "scatter-min": "min",
    "scatter_min": "min",
    "scatter-max": "max",
    "scatter_max": "max",
}


def _scatter(node: Node, operand: Array, indices: Array, updates: Array) -> Array:
    return Scatter(node, operand, indices, updates).result()


def _set(node: Node, operand: Array, indices: Array, updates: Array) -> Array:
    return Scatter(node, operand, indices, updates).set()


class Scatter:
    """One scatter: axes written at computed positions come first and are one, windows along them become updates."""

    def __init__(self, node: Node, operand: Array, indices: Array, updates: Array) -> None:
        numbers = node.params["dimension_numbers"]
        self.reduction = _REDUCTIONS.get(node.name, "set")
        self.mode = node.params["mode"]
        self.window_dims = tuple(numbers.update_window_dims)
        self.inserted = tuple(numbers.inserted_window_dims)
        self.batching = tuple(numbers.operand_batching_dims)
        self.index_batching = tuple(numbers.scatter_indices_batching_dims)
        self.map = tuple(numbers.scatter_dims_to_operand_dims)
        self.operand, self.indices, self.updates = operand, indices, updates
        kept = [axis for axis in range(operand.ndim) if axis not in self.inserted and axis not in self.batching]
        self.update_axis = dict(zip(kept, self.window_dims, strict=True))
        self.sizes = [updates.shape[self.update_axis[a]] if a in kept else 1 for a in range(operand.ndim)]
        # A window smaller than an axis that no index moves is written from 0.
        partial = [a for a in kept if a not in self.map and self.sizes[a] != operand.shape[a]]
        self.indexed = (*self.batching, *self.map, *partial)
        self.rest = [axis for axis in range(operand.ndim) if axis not in self.indexed]
        self.windows = [axis for axis in (*self.map, *partial) if self.sizes[axis] != 1]

    def result(self) -> Array:
        """The operand with the updates reduced into it."""
        table, rows, updates = self._as_rows()
        if updates.shape[0] * table.size <= MOST_SELECTED:
            written = _selected(table, rows, updates, self.reduction)
        else:
            written = _looped(table, rows, updates, _COMBINE[self.reduction])
        return self._as_operand(written)

    def apply(self, body: Any, consts: Any) -> Array:
        """The operand with a function of each element and its update, one update after the other."""
        table, rows, updates = self._as_rows()

        def combine(x: Array, y: Array) -> Array:
            return elementwise(body, consts, [x, y])[0]

        return self._as_operand(_looped(table, rows, updates, combine))

    def set(self) -> Array:
        """The operand with the updates written into it: of several for a row, the last one."""
        table, rows, updates = self._as_rows()
        order = lax.broadcasted_iota(np.int32, (table.shape[0], rows.shape[0]), 1) + 1
        hits = lax.broadcasted_iota(np.int32, (table.shape[0], 1), 0) == rows[None, :]
        last = jnp.max(jnp.where(hits, order, 0), axis=1)
        chosen = jnp.take(updates, jnp.maximum(last - 1, 0), axis=0, mode="clip")
        mask = (last > 0).reshape(-1, *(1,) * (table.ndim - 1))
        return self._as_operand(jnp.where(mask, chosen, table))

    def _as_rows(self) -> tuple[Array, Array, Array]:
        """The operand as rows; per update the row it goes to, or -1 for none; the updates, a row each."""
        operand = self.operand
        rest_shape = [operand.shape[axis] for axis in self.rest]
        table = lax.transpose(operand, (*self.indexed, *self.rest)).reshape(-1, math.prod(rest_shape))
        batch_axes = [axis for axis in range(self.updates.ndim) if axis not in self.window_dims]
        single = [axis for axis in self.update_axis if axis not in self.windows and axis not in self.rest]
        order = [*batch_axes, *(self.update_axis[a] for a in (*single, *self.windows, *self.rest))]
        rows = self._rows().reshape(-1)
        updates = lax.transpose(self.updates, order).reshape(rows.shape[0], math.prod(rest_shape))
        return table, rows, updates

    def _rows(self) -> Array:
        batch = self.indices.shape[:-1]
        rank = len(batch) + len(self.windows)
        total, valid = jnp.zeros((1,) * rank, np.int32), None
        stride = 1
        for axis in reversed(self.indexed):
            here = self._coordinate(axis, batch, rank)
            last = self.operand.shape[axis] - self.sizes[axis]
            if axis in self.map:
                start = self.indices[..., self.map.index(axis)]
                inside = jnp.clip(start, 0, last)
                if self.mode == lax.GatherScatterMode.FILL_OR_DROP:
                    same = (inside == start).reshape(*batch, *(1,) * len(self.windows))
                    valid = same if valid is None else valid & same
                here = here + inside.astype(np.int32).reshape(*batch, *(1,) * len(self.windows))
            total = total + here * np.int32(stride)
            stride *= self.operand.shape[axis]
        full = (*batch, *(self.sizes[axis] for axis in self.windows))
        total = jnp.broadcast_to(total, full)
        return total if valid is None else jnp.where(valid, total, np.int32(-1))

    def _coordinate(self, axis: int, batch: tuple[int, ...], rank: int) -> Array:
        """The position along a batching axis or within a window."""
        if axis in self.batching:
            along = self.index_batching[self.batching.index(axis)]
            shape = tuple(batch[along] if k == along else 1 for k in range(rank))
            return lax.broadcasted_iota(np.int32, shape, along)
        if axis in self.windows:
            along = len(batch) + self.windows.index(axis)
            shape = tuple(self.sizes[axis] if k == along else 1 for k in range(rank))
            return lax.broadcasted_iota(np.int32, shape, along)
        return jnp.zeros((1,) * rank, np.int32)

    def _as_operand(self, table: Array) -> Array:
        order = (*self.indexed, *self.rest)
        moved = table.reshape([self.operand.shape[axis] for axis in order])
        return lax.transpose(moved, [order.index(axis) for axis in range(len(order))])


def _apply(node: Node, operand: Array, indices: Array, updates: Array) -> Array:
    """A function of the program, of the old element and the update."""
    return Scatter(node, operand, indices, updates).apply(node.params["update_jaxpr"], node.params["update_consts"])


def _why_not_apply(node: Node) -> str | None:
    return None if _has_function(node) else "it only sets"


def _has_function(node: Node) -> bool:
    body = node.params.get("update_jaxpr")
    return body is not None and bool(getattr(body, "jaxpr", body).eqns)


def _selected(table: Array, rows: Array, updates: Array, reduction: str) -> Array:
    hits = lax.broadcasted_iota(np.int32, (table.shape[0], 1), 0) == rows[None, :]
    neutral = _neutral(reduction, table.dtype)
    chosen = jnp.where(hits[:, :, None], updates[None], neutral)
    reduced = _REDUCE[reduction](chosen, axis=1)
    return _COMBINE[reduction](table, reduced.astype(table.dtype))


def _looped(table: Array, rows: Array, updates: Array, combine: Callable[[Array, Array], Array]) -> Array:
    def write(k: Any, table: Array) -> Array:
        row = lax.dynamic_index_in_dim(rows, k, 0, keepdims=False)
        place = jnp.maximum(row, 0)
        old = lax.dynamic_slice(table, (place, jnp.int32(0)), (1, table.shape[1]))
        new = combine(old, lax.dynamic_slice(updates, (k, jnp.int32(0)), (1, table.shape[1])))
        return lax.dynamic_update_slice(table, jnp.where(row >= 0, new, old), (place, jnp.int32(0)))

    result: Array = lax.fori_loop(np.int32(0), np.int32(rows.shape[0]), write, table)
    return result


def _neutral(reduction: str, dtype: Any) -> Any:
    if reduction in ("add", "sub"):
        return np.zeros((), dtype)
    if reduction == "mul":
        return np.ones((), dtype)
    if dtype == np.bool_:
        return np.bool_(reduction == "min")
    if jnp.issubdtype(dtype, jnp.floating):
        return np.asarray(np.inf if reduction == "min" else -np.inf, dtype)
    info = np.iinfo(dtype)
    return np.asarray(info.max if reduction == "min" else info.min, dtype)


_REDUCE: dict[str, Callable[..., Array]] = {
    "add": jnp.sum, "sub": jnp.sum, "mul": jnp.prod, "min": jnp.min, "max": jnp.max,
}  # fmt: skip
_COMBINE: dict[str, Callable[[Array, Array], Array]] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "min": lax.min, "max": lax.max,
}  # fmt: skip


def _why_not_set(node: Node) -> str | None:
    return "TFLite has a scatter that sets" if node.inputs[0].shape else None


RULES = (
    node_lowering("selected-updates", tuple(_REDUCTIONS), _scatter),
    node_lowering("applied-updates", "scatter", _apply, _why_not_apply),
    node_lowering("last-update", "scatter", _set, _why_not_set, "exact"),
)
