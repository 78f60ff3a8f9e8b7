"""Reading at computed positions: gather and dynamic_slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from .. import dims
from ..context import Context
from ..dims import Dim
from ..exact import kernel_for
from ..operand import Operand, inner_shape, is_bool, is_complex, is_float, is_key, is_unsigned
from ..registry import Refusal, lowers
from .shape import permute, reshape_to, slice_axes, typed

_T = ir.DataType


def mode_name(mode: Any) -> str:
    """``clip``, ``fill`` or ``promise`` from JAX's mode."""
    text = str(mode).upper()
    if "CLIP" in text:
        return "clip"
    return "fill" if "FILL" in text or "DROP" in text else "promise"


def index_value(ctx: Context, x: Operand) -> ir.Value:
    """Indices as int64."""
    return ctx.build.cast(ctx.value(x), _T.INT64)


def within(x: Operand, low: Dim, high: Dim) -> bool:
    """Whether an index is known to lie in [low, high]."""
    if x.dim is not None and not isinstance(high, int):
        room = high - x.dim
        return low == 0 and isinstance(room, int) and room >= 0
    return (
        x.bounds is not None
        and isinstance(low, int)
        and isinstance(high, int)
        and low <= x.bounds[0]
        and x.bounds[1] <= high
    )


def limit(ctx: Context, value: ir.Value, low: Dim, high: Dim) -> ir.Value:
    """An int64 value clamped to [low, high]."""
    kernel = kernel_for(value)
    if isinstance(low, int) and isinstance(high, int):
        return ctx.op("Clip", value, ctx.const(np.int64(low)), ctx.const(np.int64(max(high, low))), kernel=kernel)
    return ctx.op("Max", ctx.op("Min", value, ctx.dim_scalar(high), kernel=kernel), ctx.dim_scalar(low), kernel=kernel)


@lowers("dynamic_slice")
def dynamic_slice(ctx: Context, eqn: Any, x: Operand, *starts: Operand) -> Operand:
    """A window whose start is clamped so that it fits."""
    sizes = eqn.params["slice_sizes"]
    axes = [k for k in range(x.rank) if sizes[k] != x.shape[k] and x.padded[k] != 1]
    if not axes:
        held = tuple(1 if x.padded[k] == 1 else sizes[k] for k in range(x.rank))
        moved = ctx.reheld(x, held) if len(x.held) == x.rank else x
        return Operand(tuple(eqn.aval.shape), x.dtype, moved.held, moved.value, moved.const, x.bounds)
    source = ctx.filled(x)
    shape = tuple(sizes)
    if all(starts[k].is_const and dims.is_static((x.shape[k], sizes[k])) for k in axes):
        low = [0] * x.rank
        for k in axes:
            low[k] = min(max(int(starts[k].scalar), 0), x.shape[k] - sizes[k])
        high = [a + n for a, n in zip(low, sizes, strict=True)]
        return slice_axes(ctx, eqn.aval, source, low, high, [1] * x.rank)
    if len(axes) == 1 and sizes[axes[0]] == 1:
        axis = axes[0]
        index = single_index(ctx, starts[axis], x.shape[axis])
        value = ctx.op("Gather", ctx.value(source), index, axis=axis, typed=(0,))
        return ctx.result(value, eqn.aval, shape, x.bounds)
    begins = [start_vector(ctx, starts[k], x.shape[k], sizes[k]) for k in axes]
    begin = begins[0] if len(begins) == 1 else ctx.op("Concat", *begins, axis=0)
    end = ctx.op("Add", begin, ctx.shape(tuple(sizes[k] for k in axes)))
    value = ctx.op("Slice", ctx.value(source), begin, end, ctx.ints(*axes), typed=(0,))
    return ctx.result(value, eqn.aval, shape, x.bounds)


def start_vector(ctx: Context, start: Operand, size: Dim, window: Dim) -> ir.Value:
    """A scalar start as an int64 vector of one element, clamped to [0, size - window]."""
    value = index_value(ctx, start)
    if not within(start, 0, size - window):
        value = limit(ctx, value, 0, size - window)
    if (isinstance(size, int) and isinstance(window, int)) or within(start, 0, size - window):
        return ctx.op("Reshape", value, ctx.ints(1), typed=(0,))
    return ctx.op("Reshape", value, ctx.ints(1), typed=(0,))


def single_index(ctx: Context, start: Operand, size: Dim) -> ir.Value:
    """A scalar start of a window of one, as a vector; an index that counts from the end is used as it is."""
    value, low = start, 0
    if start.wrapped is not None and start.wrapped[1] == size:
        value, low = start.wrapped[0], -size
    index = index_value(ctx, value)
    if not within(value, low, size - 1):
        index = limit(ctx, index, low, size - 1)
    return ctx.op("Reshape", index, ctx.ints(1), typed=(0,))


@lowers("gather")
def gather(ctx: Context, eqn: Any, x: Operand, indices: Operand) -> Operand:
    return _Gather(ctx, eqn, x, indices).lower()


class _Gather:
    """One gather: positions are completed to every indexed axis, checked, and read with Gather or GatherND."""

    def __init__(self, ctx: Context, eqn: Any, x: Operand, indices: Operand) -> None:
        self.ctx, self.eqn, self.x, self.indices = ctx, eqn, x, indices
        numbers = eqn.params["dimension_numbers"]
        self.offset = tuple(numbers.offset_dims)
        self.collapsed = tuple(numbers.collapsed_slice_dims)
        self.map = tuple(numbers.start_index_map)
        self.x_batch = tuple(numbers.operand_batching_dims)
        self.i_batch = tuple(numbers.start_indices_batching_dims)
        self.sizes = tuple(eqn.params["slice_sizes"])
        self.mode = mode_name(eqn.params["mode"])
        self.batch_shape = indices.shape[:-1]
        self.aval = typed(tuple(eqn.aval.shape), eqn.aval.dtype)

    def lower(self) -> Operand:
        if is_key(self.x.dtype) or is_complex(self.x.dtype):
            return self._by_parts()
        x = self._cut_unindexed(self.ctx.filled(self.x))
        if dims.size(self.indices.shape[:-1]) == 0 or (not self.map and not self.x_batch):
            return self._without_index(x)
        if len(self.map) == 1 and not self.x_batch and self.sizes[self.map[0]] == 1:
            return self._along_axis(x)
        return self._many(x)

    def _by_parts(self) -> Operand:
        """Pairs (complex numbers, key words): the trailing axis becomes an ordinary, unindexed one."""
        import dataclasses

        ctx, x = self.ctx, self.x
        inner = inner_shape(x.dtype)
        if self.mode == "fill" and is_key(x.dtype):
            raise Refusal("a gather of random keys with a fill value")
        if self.mode == "fill":
            return self._complex_with_fill()
        stored = ctx.filled(x)
        part = np.float32 if np.dtype(x.dtype) == np.complex64 else np.float64
        plain_dtype = np.uint32 if is_key(x.dtype) else part
        plain = Operand((*x.shape, *inner), plain_dtype, (*x.shape, *inner), stored.value or ctx.value(stored))
        numbers = self.eqn.params["dimension_numbers"]
        out_shape = (*self.eqn.aval.shape, *inner)
        numbers = numbers._replace(offset_dims=(*numbers.offset_dims, len(out_shape) - 1))
        params = {**self.eqn.params, "dimension_numbers": numbers, "slice_sizes": (*self.sizes, *inner)}
        eqn = dataclasses.replace(self.eqn, params=params, avals=[typed(out_shape, plain_dtype)])
        result = _Gather(ctx, eqn, plain, self.indices).lower()
        return ctx.result(ctx.full(result), self.aval)

    def _complex_with_fill(self) -> Operand:
        from jax import lax

        params = {k: v for k, v in self.eqn.params.items() if k not in ("indices_are_sorted", "unique_indices")}

        def function(a: Any, i: Any) -> Any:
            return lax.complex(lax.gather(a.real, i, **params), lax.gather(a.imag, i, **params))

        return self.ctx.trace_and_lower(function, self.x, self.indices)[0]

    def _cut_unindexed(self, x: Operand) -> Operand:
        """Windows on axes that no index moves start at 0."""
        free = [k for k in range(x.rank) if k not in self.map and k not in self.x_batch]
        if all(self.sizes[k] == x.shape[k] for k in free):
            return x
        shape = tuple(self.sizes[k] if k in free else d for k, d in enumerate(x.shape))
        return slice_axes(self.ctx, typed(shape, x.dtype), x, [0] * x.rank, shape, [1] * x.rank)

    def _without_index(self, x: Operand) -> Operand:
        """No index, or no position to read: a broadcast of the window at 0."""
        ctx = self.ctx
        if dims.size(self.eqn.aval.shape) == 0:
            return Operand(tuple(self.eqn.aval.shape), x.dtype, (), ctx.const(np.zeros((), x.dtype)))
        kept = tuple(k for k in range(x.rank) if k not in self.collapsed)
        window = reshape_to(ctx, typed(tuple(self.sizes[k] for k in kept), x.dtype), x)
        batch = [k for k in range(len(self.eqn.aval.shape)) if k not in self.offset]
        held = [1] * len(self.eqn.aval.shape)
        for k, axis in enumerate(self.offset):
            held[axis] = window.shape[k]
        del batch
        moved = ctx.reheld(window, tuple(held))
        return Operand(tuple(self.eqn.aval.shape), x.dtype, tuple(held), moved.value, moved.const)

    # -- one indexed axis ----------------------------------------------------------------------------------------

    def _along_axis(self, x: Operand) -> Operand:
        """One index along one axis: ONNX Gather."""
        ctx, axis = self.ctx, self.map[0]
        size = x.shape[axis]
        index, low = reshape_to(ctx, typed(self.batch_shape, self.indices.dtype), self.indices), 0
        wrapped = self.indices.wrapped
        if wrapped is not None and wrapped[1] == size and wrapped[0].shape == self.batch_shape:
            index, low = wrapped[0], -size
        elif wrapped is not None and wrapped[1] == size:
            raw = wrapped[0]
            if dims.size(raw.shape) == dims.size(self.batch_shape):
                index, low = reshape_to(ctx, typed(self.batch_shape, raw.dtype), raw), -size
        raw_value = ctx.full(index)
        if np.dtype(index.dtype) != np.int32 or not dims.is_static((low, size)):
            raw_value = ctx.build.cast(raw_value, _T.INT64)
        safe, valid = raw_value, None
        if not within(index, low, size - 1):
            safe = self._limited(raw_value, low, size - 1)
            if self.mode == "fill":
                valid = ctx.op("Equal", safe, raw_value, to=_T.BOOL)
        value = ctx.op("Gather", ctx.value(x), safe, axis=axis, typed=(0,))
        batch = len(self.batch_shape)
        rest = tuple(d for k, d in enumerate(x.shape) if k != axis)
        shape = (*rest[:axis], *self.batch_shape, *rest[axis:])
        if valid is not None:
            mask = ctx.reshape_value(valid, self.batch_shape, (*self.batch_shape, *(1,) * (len(rest) - axis)))
            value = ctx.op("Where", mask, value, self._fill_value(), typed=(1, 2))
        result = ctx.result(value, typed(shape, x.dtype), bounds=x.bounds if valid is None else None)
        return self._placed(result, [*range(axis, axis + batch)], [k for k in range(x.rank) if k != axis], axis)

    def _limited(self, value: ir.Value, low: Dim, high: Dim) -> ir.Value:
        if value.dtype == _T.INT32:
            return self.ctx.op("Clip", value, self.ctx.const(np.int32(low)), self.ctx.const(np.int32(high)))
        return limit(self.ctx, value, low, high)

    def _placed(self, result: Operand, batch_axes: list[int], window_axes: list[int], indexed: int) -> Operand:
        """Moves window axes of the result to ``offset_dims``; an indexed axis of size one that stays is inserted."""
        ctx = self.ctx
        rank = len(self.eqn.aval.shape)
        kept = [k for k in range(self.x.rank) if k not in self.collapsed and k not in self.x_batch]
        others = [k for k in range(result.rank) if k not in batch_axes]
        where = dict(zip(window_axes, others, strict=True))
        present = [k for k in kept if k in where]
        target = [a for a in range(rank) if a not in self.offset]
        source_of = dict(zip(target, batch_axes, strict=True))
        source_of.update({a: where[k] for a, k in zip(self.offset, kept, strict=True) if k in where})
        order = tuple(source_of[a] for a in sorted(source_of))
        moved = permute(ctx, result, order)
        if len(present) < len(kept):
            return reshape_to(ctx, self.aval, moved)
        return moved

    # -- several indexed axes --------------------------------------------------------------------------------------

    def _many(self, x: Operand) -> Operand:
        """Several indices, windows at indexed axes, batching axes: GatherND."""
        ctx = self.ctx
        grid = IndexGrid(ctx, self.indices, self.map, self.sizes, x.shape, self.x_batch, self.i_batch)
        # XLA clamps what was promised to be in bounds and is not; the runtime would fail.
        positions, valid = grid.positions("clip" if self.mode == "promise" else self.mode)
        indexed = (*self.x_batch, *self.map)
        rest = [k for k in range(x.rank) if k not in indexed]
        source = permute(ctx, x, (*indexed, *rest))
        value = ctx.op("GatherND", ctx.value(source), positions, typed=(0,))
        window = grid.window_axes
        shape = (*self.batch_shape, *(self.sizes[k] for k in window), *(x.shape[k] for k in rest))
        if valid is not None:
            mask = ctx.reshape_value(valid, self.batch_shape, (*self.batch_shape, *(1,) * (len(window) + len(rest))))
            value = ctx.op("Where", mask, value, self._fill_value(), typed=(1, 2))
        result = ctx.result(value, typed(shape, x.dtype), bounds=x.bounds if valid is None else None)
        batch = len(self.batch_shape)
        return self._placed(result, [*range(batch)], [*window, *rest], -1)

    def _fill_value(self) -> ir.Value:
        """What JAX fills with: the given value, NaN, the smallest signed or the largest unsigned integer."""
        dtype, given = self.x.dtype, self.eqn.params.get("fill_value")
        if given is not None:
            return self.ctx.const(np.asarray(given, dtype))
        if is_float(dtype):
            return self.ctx.const(np.nan, dtype)
        if is_bool(dtype):
            return self.ctx.const(True)
        info = np.iinfo(np.dtype(dtype))
        return self.ctx.const(info.max if is_unsigned(dtype) else info.min, dtype)


class IndexGrid:
    """Complete positions for GatherND and ScatterND: one row of coordinates for every element of the windows.

    Rows have a coordinate for each batching axis and each indexed axis; windows of more than one element at indexed
    axes become extra axes of the grid, listed in ``window_axes``.
    """

    def __init__(
        self, ctx: Context, indices: Operand, index_map: Any, sizes: Any, shape: Any, x_batch: Any, i_batch: Any
    ) -> None:
        self.ctx, self.indices = ctx, indices
        self.map, self.sizes, self.shape = index_map, sizes, shape
        self.x_batch, self.i_batch = x_batch, i_batch
        self.batch_shape = indices.shape[:-1]
        self.window_axes = [k for k in sorted(index_map) if sizes[k] != 1]

    def positions(self, mode: str, from_end: bool = True) -> tuple[ir.Value, ir.Value | None]:
        """The grid (int64, coordinates last) with every row in bounds, and which windows were so already.

        The second is None when that is known; it is only computed for ``fill``. ``from_end`` lets coordinates be
        negative, counted from the end of the axis as ONNX does.
        """
        ctx = self.ctx
        highs = tuple(self.shape[k] - self.sizes[k] for k in self.map)
        raw = self._counting_from_the_end() if from_end else None
        known, low = (self.indices, 0) if raw is None else (raw, -self.shape[self.map[0]])
        starts = index_value(ctx, ctx.filled(known))
        valid = None
        if mode != "promise" and not (dims.is_static(highs) and within(known, low, min(highs, default=0))):
            if len(highs) == 1:
                safe = limit(ctx, starts, low, highs[0])
            else:
                kernel = kernel_for(starts)
                safe = ctx.op("Min", starts, ctx.shape(highs), kernel=kernel)
                safe = ctx.op("Max", safe, ctx.const(np.int64(0)), kernel=kernel)
            if mode == "fill":
                same = ctx.op("Equal", safe, starts, to=_T.BOOL)
                valid = ctx.op("ReduceMin", same, ctx.ints(-1), keepdims=0, typed=(0,))
            starts = safe
        if not self.window_axes and not self.x_batch:
            return starts, valid
        return self._grid(starts), valid

    def _counting_from_the_end(self) -> Operand | None:
        """The index before JAX made negative numbers positive, where the operator does that itself."""
        wrapped = self.indices.wrapped
        if wrapped is None or len(self.map) != 1 or wrapped[1] != self.shape[self.map[0]] or self.window_axes:
            return None
        raw = wrapped[0]
        if dims.size(raw.shape) != dims.size(self.indices.shape):
            return None
        return reshape_to(self.ctx, typed(self.indices.shape, raw.dtype), raw)

    def _grid(self, starts: ir.Value) -> ir.Value:
        """Adds counters for windows and batching axes, each along its own axis of the grid."""
        ctx = self.ctx
        batch, windows = self.batch_shape, tuple(self.sizes[k] for k in self.window_axes)
        full = (*batch, *windows)
        rank = len(full)
        many = len(self.map)
        spread = ctx.reshape_value(starts, (*batch, many), (*batch, *(1,) * len(windows), many))
        if windows and dims.is_static(windows):
            counters = np.zeros((*windows, many), np.int64)
            for position, k in enumerate(self.window_axes):
                line = np.arange(self.sizes[k]).reshape([-1 if p == position else 1 for p in range(len(windows))])
                counters[..., self.map.index(k)] = line
            spread = ctx.op("Add", spread, ctx.const(counters))
        elif windows:
            spread = self._dynamic_windows(spread, windows)
        if not self.x_batch:
            return spread
        columns: list[ir.Value] = []
        for axis in self.i_batch:
            along = self._counter(batch[axis], rank - axis - 1)
            columns.append(ctx.op("Expand", along, ctx.shape((*full, 1)), typed=(0,)))
        return ctx.op("Concat", *columns, spread, axis=-1)

    def _counter(self, size: Dim, after: int) -> ir.Value:
        """0..size-1 along an axis with ``after`` grid axes and the coordinate axis behind it."""
        ctx = self.ctx
        if isinstance(size, int):
            return ctx.const(np.arange(size, dtype=np.int64).reshape((-1,) + (1,) * (after + 1)))
        line = ctx.op("Range", ctx.const(np.int64(0)), ctx.dim_scalar(size), ctx.const(np.int64(1)))
        return ctx.op("Reshape", line, ctx.ints(-1, *(1,) * (after + 1)), typed=(0,))

    def _dynamic_windows(self, spread: ir.Value, windows: Any) -> ir.Value:
        ctx, many = self.ctx, len(self.map)
        for position, k in enumerate(self.window_axes):
            line = self._counter(self.sizes[k], len(windows) - position - 1)
            unit = np.zeros(many, np.int64)
            unit[self.map.index(k)] = 1
            spread = ctx.op("Add", spread, ctx.op("Mul", line, ctx.const(unit)))
        return spread
