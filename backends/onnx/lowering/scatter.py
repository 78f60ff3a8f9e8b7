"""Writing at computed positions: scatter and its reductions, dynamic_update_slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ....core._compat import eval_jaxpr
from .. import dims
from ..context import Context
from ..operand import Operand, inner_shape, is_bool, is_complex, is_float, is_key
from ..registry import Refusal, lowers
from .gather import IndexGrid, index_value, limit, mode_name, within
from .shape import permute, reshape_to, typed

_T = ir.DataType

#: Primitive -> reduction of ScatterND.
_REDUCTIONS = {
    "scatter": "none",
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


@lowers(*_REDUCTIONS)
def scatter(ctx: Context, eqn: Any, x: Operand, indices: Operand, updates: Operand) -> Operand:
    reduction = _REDUCTIONS[eqn.primitive]
    if reduction == "none" and (body := eqn.params.get("update_jaxpr")) is not None and body.eqns:
        return _applied(ctx, eqn, x, indices, updates)
    if is_complex(x.dtype):
        return _complex(ctx, eqn, x, indices, updates, reduction)
    if is_key(x.dtype):
        raise Refusal("a scatter of random keys has no ONNX form")
    if reduction == "sub":
        negated = ctx.op("Neg", ctx.full(updates))
        updates, reduction = ctx.result(negated, typed(updates.shape, updates.dtype)), "add"
    if is_bool(x.dtype) and reduction != "none":
        reduction = {"add": "max", "max": "max", "mul": "min", "min": "min"}[reduction]
    return _Scatter(ctx, eqn, x, indices, updates, reduction).lower()


def _applied(ctx: Context, eqn: Any, x: Operand, indices: Operand, updates: Operand) -> Operand:
    """``x.at[i].apply(f)``: f everywhere, taken where a count of the indices says so, once more for each repetition."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    body, constants = eqn.params["update_jaxpr"], eqn.params["update_consts"]
    if any(body.invars[1] in e.invars for e in body.eqns) or body.invars[1] in body.outvars:
        raise Refusal("a scatter with a function of two arguments of the program has no ONNX form")
    numbers, mode, unique = (eqn.params[key] for key in ("dimension_numbers", "mode", "unique_indices"))

    def function(value: Any) -> Any:
        # The second argument is not used: any value of the type does.
        return eval_jaxpr(body, constants, value, value)[0]

    for _ in range(x.rank):
        function = jax.vmap(function)

    def apply(a: Any, i: Any, u: Any) -> Any:
        counts = lax.scatter_add(jnp.zeros(a.shape, jnp.int32), i, jnp.ones(u.shape, jnp.int32), numbers, mode=mode)
        if unique:
            return jnp.where(counts > 0, function(a), a)
        return lax.while_loop(
            lambda state: jnp.any(state[1] > 0),
            lambda state: (jnp.where(state[1] > 0, function(state[0]), state[0]), state[1] - 1),
            (a, counts),
        )[0]

    return ctx.trace_and_lower(apply, x, indices, updates)[0]


def _complex(ctx: Context, eqn: Any, x: Operand, indices: Operand, updates: Operand, reduction: str) -> Operand:
    """Sets, sums: both parts separately. Products at distinct places: with an array of factors, ones elsewhere."""
    from jax import lax

    numbers, mode = eqn.params["dimension_numbers"], eqn.params["mode"]
    if reduction == "mul" and eqn.params["unique_indices"]:

        def multiply(a: Any, i: Any, u: Any) -> Any:
            return a * lax.scatter(lax.full_like(a, 1), i, u, numbers, mode=mode)

        return ctx.trace_and_lower(multiply, x, indices, updates)[0]
    if reduction not in ("none", "add", "sub"):
        raise Refusal(f"{eqn.primitive} of complex numbers has no ONNX form here")
    function = {"none": lax.scatter, "add": lax.scatter_add, "sub": lax.scatter_sub}[reduction]

    def apply(a: Any, i: Any, u: Any) -> Any:
        return lax.complex(
            function(a.real, i, u.real, numbers, mode=mode), function(a.imag, i, u.imag, numbers, mode=mode)
        )

    return ctx.trace_and_lower(apply, x, indices, updates)[0]


class _Scatter:
    """One scatter: axes written at computed positions come first, ScatterND, axes back."""

    def __init__(self, ctx: Context, eqn: Any, x: Operand, indices: Operand, updates: Operand, reduction: str) -> None:
        self.ctx, self.eqn, self.x, self.updates = ctx, eqn, x, updates
        self.reduction = reduction
        self.aval = typed(tuple(eqn.aval.shape), eqn.aval.dtype)
        numbers = eqn.params["dimension_numbers"]
        self.window = tuple(numbers.update_window_dims)
        self.inserted = tuple(numbers.inserted_window_dims)
        self.x_batch = tuple(numbers.operand_batching_dims)
        self.i_batch = tuple(numbers.scatter_indices_batching_dims)
        self.map = tuple(numbers.scatter_dims_to_operand_dims)
        self.mode = mode_name(eqn.params["mode"])
        self.kept = [k for k in range(x.rank) if k not in self.inserted and k not in self.x_batch]
        self.sizes: list[Any] = [1] * x.rank
        for k, axis in zip(self.kept, self.window, strict=True):
            self.sizes[k] = updates.shape[axis]
        self.indices = self._complete(indices)

    def _complete(self, indices: Operand) -> Operand:
        """Axes with a window smaller than they are, and no index, are written from 0: indexed with 0."""
        ctx, x = self.ctx, self.x
        partial = [k for k in self.kept if k not in self.map and self.sizes[k] != x.shape[k]]
        if not partial and self.map:
            return indices
        if not partial:
            partial = [self.kept[0]] if self.kept else []
        if not partial:
            return indices
        self.map = (*self.map, *partial)
        batch = indices.shape[:-1]
        zeros = ctx.full(ctx.zeros((*batch, len(partial)), indices.dtype))
        value = ctx.op("Concat", ctx.full(indices), zeros, axis=len(batch)) if indices.shape[-1] else zeros
        return ctx.result(value, typed((*batch, indices.shape[-1] + len(partial)), indices.dtype), bounds=None)

    def lower(self) -> Operand:
        ctx, x = self.ctx, self.x
        if dims.size(self.updates.shape) == 0 or dims.size(x.shape) == 0:
            return x
        if not self.map and not self.x_batch:
            raise Refusal("a scatter into a scalar has no ONNX form here")
        grid = IndexGrid(ctx, self.indices, self.map, self.sizes, x.shape, self.x_batch, self.i_batch)
        positions, valid = grid.positions(self.mode, from_end=self.reduction != "none")
        indexed = (*self.x_batch, *self.map)
        rest = [k for k in range(x.rank) if k not in indexed]
        order = (*indexed, *rest)
        target = permute(ctx, ctx.filled(x), order)
        updates = self._arranged_updates(grid.window_axes, rest)
        value = self._write(target, positions, updates, valid, grid, rest)
        back = tuple(order.index(k) for k in range(x.rank))
        bounds = None
        if self.reduction == "none" and x.bounds is not None and self.updates.bounds is not None:
            bounds = (min(x.bounds[0], self.updates.bounds[0]), max(x.bounds[1], self.updates.bounds[1]))
        result = ctx.result(value, typed(target.shape, x.dtype), bounds=bounds)
        return permute(ctx, result, back)

    def _arranged_updates(self, window_axes: list[int], rest: list[int]) -> ir.Value:
        """Updates with batch axes first, then windows at indexed axes, then whole axes."""
        ctx, updates = self.ctx, self.updates
        axis_of = dict(zip(self.kept, self.window, strict=True))
        batch = [a for a in range(updates.rank) if a not in self.window]
        ones = [axis_of[k] for k in self.kept if k not in window_axes and k not in rest]
        order = (*batch, *ones, *(axis_of[k] for k in window_axes), *(axis_of[k] for k in rest))
        moved = permute(ctx, ctx.filled(updates), order)
        shape = tuple(d for k, d in enumerate(moved.shape) if not len(batch) <= k < len(batch) + len(ones))
        return ctx.full(reshape_to(ctx, typed(shape, updates.dtype), moved))

    def _write(
        self, target: Operand, positions: ir.Value, updates: ir.Value, valid: Any, grid: IndexGrid, rest: list[int]
    ) -> ir.Value:
        ctx = self.ctx
        if valid is None:
            return self._scatter_nd(ctx.value(target), positions, updates)
        batch = grid.batch_shape
        if self.reduction != "none":
            mask = ctx.reshape_value(valid, batch, (*batch, *(1,) * (len(grid.window_axes) + len(rest))))
            neutral = ctx.const(_neutral(self.reduction, self.x.dtype), self.x.dtype)
            updates = ctx.op("Where", mask, updates, neutral, typed=(1, 2))
            return self._scatter_nd(ctx.value(target), positions, updates)
        # A row is added behind the first axis, and what falls outside is written there.
        many = len(self.x_batch) + len(self.map)
        size = target.shape[0]
        outside = [ctx.dim(size), ctx.ints(*[0] * (many - 1))] if many > 1 else [ctx.dim(size)]
        away = outside[0] if len(outside) == 1 else ctx.op("Concat", *outside, axis=0)
        mask = ctx.reshape_value(valid, batch, (*batch, *(1,) * (len(grid.window_axes) + 1)))
        positions = ctx.op("Where", mask, positions, away, typed=(1, 2))
        pads = [0] * target.rank + [1] + [0] * (target.rank - 1)
        padded = ctx.op("Pad", ctx.value(target), ctx.ints(*pads), typed=(0,))
        value = self._scatter_nd(padded, positions, updates)
        return ctx.op("Slice", value, ctx.ints(0), ctx.ints(-1), ctx.ints(0), typed=(0,))

    def _scatter_nd(self, target: ir.Value, positions: ir.Value, updates: ir.Value) -> ir.Value:
        if self.reduction == "none":
            return self.ctx.op("ScatterND", target, positions, updates, typed=(0, 2))
        return self.ctx.op(
            "ScatterND",
            target,
            positions,
            updates,
            typed=(0, 2),
            kernel="ScatterND:reduce",
            reduction=self.reduction,
        )


def _neutral(reduction: str, dtype: Any) -> Any:
    if reduction in ("add", "mul"):
        return int(reduction == "mul")
    if is_float(dtype):
        return np.inf if reduction == "min" else -np.inf
    if is_bool(dtype):
        return reduction == "min"
    info = np.iinfo(np.dtype(dtype))
    return info.max if reduction == "min" else info.min


@lowers("dynamic_update_slice")
def dynamic_update_slice(ctx: Context, eqn: Any, x: Operand, update: Operand, *starts: Operand) -> Operand:
    """Joins what lies before, the update, and what lies after, one axis at a time; starts are clamped."""
    if dims.size(update.shape) == 0:
        return x
    bounds = None
    if x.bounds is not None and update.bounds is not None:
        bounds = (min(x.bounds[0], update.bounds[0]), max(x.bounds[1], update.bounds[1]))
    axes = [k for k in range(x.rank) if update.shape[k] != x.shape[k]]
    value = _splice(ctx, ctx.full(x), list(x.shape), ctx.full(update), update.shape, starts, axes)
    if inner_shape(x.dtype):
        bounds = None
    return ctx.result(value, typed(tuple(eqn.aval.shape), x.dtype), bounds=bounds)


def _splice(
    ctx: Context, value: ir.Value, shape: list[Any], update: ir.Value, window: Any, starts: Any, axes: list[int]
) -> ir.Value:
    if not axes:
        return update
    axis, rest = axes[0], axes[1:]
    size, width = shape[axis], window[axis]
    begin, end = _edges(ctx, starts[axis], size, width)
    if rest:
        middle = ctx.op("Slice", value, begin, end, ctx.ints(axis), typed=(0,))
        update = _splice(
            ctx, middle, [width if k == axis else d for k, d in enumerate(shape)], update, window, starts, rest
        )
    parts = [update]
    fixed = starts[axis].scalar
    at = (
        None
        if fixed is None or not isinstance(size, int) or not isinstance(width, int)
        else min(max(int(fixed), 0), size - width)
    )
    if at != 0:
        parts.insert(0, ctx.op("Slice", value, ctx.ints(0), begin, ctx.ints(axis), typed=(0,)))
    if at is None or at != size - width:
        last = ctx.ints(np.iinfo(np.int64).max)
        parts.append(ctx.op("Slice", value, end, last, ctx.ints(axis), typed=(0,)))
    return parts[0] if len(parts) == 1 else ctx.op("Concat", *parts, axis=axis)


def _edges(ctx: Context, start: Operand, size: Any, width: Any) -> tuple[ir.Value, ir.Value]:
    """First position of the window and the one after it, as vectors of one element."""
    if start.scalar is not None and isinstance(size, int) and isinstance(width, int):
        at = min(max(int(start.scalar), 0), size - width)
        return ctx.ints(at), ctx.ints(at + width)
    begin = index_value(ctx, start)
    if not within(start, 0, size - width):
        begin = limit(ctx, begin, 0, size - width)
    begin = ctx.op("Reshape", begin, ctx.ints(1), typed=(0,))
    return begin, ctx.op("Add", begin, ctx.dim(width))
