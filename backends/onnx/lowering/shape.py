"""Views and rearrangements: broadcasting, reshaping, transposing, slicing, padding, joining."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir
from jax import lax

from .. import dims
from ..context import Context
from ..dims import Shape
from ..operand import Operand, constant, inner_shape, is_integer, is_key
from ..registry import Refusal, decomposes, lowers

_T = ir.DataType

#: Slice ends that mean "to the beginning" when the step is negative.
_BEFORE_START = np.iinfo(np.int64).min


@lowers("broadcast_in_dim")
def broadcast_in_dim(ctx: Context, eqn: Any, x: Operand, *dynamic: Operand) -> Operand:
    """Only places the axes; the values are repeated where a consumer cannot broadcast by itself."""
    shape = tuple(eqn.aval.shape)
    target: list[Any] = [1] * len(shape)
    for source, axis in zip(x.padded, eqn.params["broadcast_dimensions"], strict=True):
        target[int(axis)] = source
    held = _strip(tuple(target))
    if _strip(x.held) == held and len(x.held) <= len(shape):
        held = x.held
    moved = ctx.reheld(x, held)
    iota = None if x.iota is None else int(eqn.params["broadcast_dimensions"][x.iota])
    result = Operand(shape, x.dtype, held, moved.value, moved.const, x.bounds, iota, dim=x.dim)
    if x.wrapped is not None and dims.size(shape) == dims.size(x.shape):
        # An index that may be negative stays one when axes of size one are added to it.
        return ctx.with_facts(result, wrapped=x.wrapped)
    return result


def _strip(shape: Shape) -> Shape:
    k = 0
    while k < len(shape) and shape[k] == 1:
        k += 1
    return shape[k:]


@lowers("reshape")
def reshape(ctx: Context, eqn: Any, x: Operand, *dynamic: Operand) -> Operand:
    order = eqn.params.get("dimensions")
    if order is not None:
        x = permute(ctx, x, tuple(int(k) for k in order))
    return reshape_to(ctx, eqn.aval, x)


def reshape_to(ctx: Context, aval: Any, x: Operand) -> Operand:
    """``x`` with another shape of the same size."""
    shape = tuple(aval.shape)
    if shape == x.shape:
        return x
    if x.held == ():
        return Operand(shape, x.dtype, (), x.value, x.const, x.bounds, dim=x.dim)
    if x.const is not None and not is_key(x.dtype) and dims.is_static(shape):
        if x.is_full:
            return constant(np.reshape(x.const, shape))
        if x.const.size == 1:
            return constant(np.reshape(x.const, ()), shape)
    inner = inner_shape(x.dtype)
    full = ctx.filled(x)
    source = full
    made = ctx.origin(full.value)
    if made is not None and made[0] == "Reshape":
        source = made[1]
        if source.shape == shape:
            return ctx.with_facts(source, bounds=x.bounds)
    value = ctx.reshape_value(ctx.value(source), (*source.shape, *inner), (*shape, *inner))
    result = ctx.result(value, aval, bounds=x.bounds)
    ctx.remember(result.value, "Reshape", source, None)
    return result


@lowers("squeeze", "expand_dims")
def squeeze(ctx: Context, eqn: Any, x: Operand) -> Operand:
    shape = tuple(eqn.aval.shape)
    if x.held == ():
        return Operand(shape, x.dtype, (), x.value, x.const, x.bounds, dim=x.dim)
    dropped = {d % x.rank for d in eqn.params["dimensions"]}
    held = tuple(d for k, d in enumerate(x.padded) if k not in dropped)
    held = _strip(held) if _strip(held) == _strip(x.held) else held
    if _strip(held) == _strip(x.held) and len(x.held) <= len(shape):
        return Operand(shape, x.dtype, x.held, x.value, x.const, x.bounds)
    if x.is_full:
        return reshape_to(ctx, eqn.aval, x)
    moved = ctx.reheld(x, held)
    return Operand(shape, x.dtype, moved.held, moved.value, moved.const, x.bounds)


@lowers("transpose")
def transpose(ctx: Context, eqn: Any, x: Operand) -> Operand:
    return permute(ctx, x, tuple(eqn.params["permutation"]))


def permute(ctx: Context, x: Operand, order: tuple[int, ...]) -> Operand:
    """The operand with its axes in another order; chains of transposes become one, or none."""
    if order == tuple(range(len(order))):
        return x
    shape = tuple(x.shape[k] for k in order)
    if x.held == ():
        return Operand(shape, x.dtype, (), x.value, x.const, x.bounds)
    padded = x.padded
    held = tuple(padded[k] for k in order)
    iota = None if x.iota is None else order.index(x.iota)
    moving = [k for k in order if padded[k] != 1]
    if x.const is not None and not is_key(x.dtype) and not (x.is_full and ctx.build.holds(x.const)):
        # A weight that the file holds already is transposed by an operator rather than held twice.
        const = np.transpose(np.reshape(x.const, padded), order)
        return Operand(shape, x.dtype, held, None, const, x.bounds, iota)
    if moving == sorted(moving):
        moved = ctx.reheld(x, held if x.is_full else _strip(held))
        return Operand(shape, x.dtype, moved.held, moved.value, moved.const, x.bounds, iota)
    source, perm = ctx.padded(ctx.materialized(x)), order
    made = ctx.origin(source.value)
    if made is not None and made[0] == "Transpose":
        source, perm = made[1], tuple(made[2][k] for k in order)
        if perm == tuple(range(len(perm))):
            return ctx.with_facts(source, bounds=x.bounds, iota=iota)
    inner = tuple(len(perm) + k for k in range(len(inner_shape(x.dtype))))
    value = ctx.op("Transpose", ctx.value(source), perm=[*perm, *inner])
    result = ctx.result(value, _aval(shape, x.dtype), held, x.bounds, iota=iota)
    ctx.remember(result.value, "Transpose", source, perm)
    return result


class _aval:
    """A shape with a dtype, where no abstract value of the program has it."""

    def __init__(self, shape: Shape, dtype: Any) -> None:
        self.shape = shape
        self.dtype = dtype


def typed(shape: Shape, dtype: Any) -> Any:
    """A shape with a dtype, for `Context.result`."""
    return _aval(shape, dtype)


@lowers("slice")
def slice_(ctx: Context, eqn: Any, x: Operand) -> Operand:
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or (1,) * x.rank
    return slice_axes(ctx, eqn.aval, x, starts, limits, steps)


def slice_axes(ctx: Context, aval: Any, x: Operand, starts: Any, limits: Any, steps: Any) -> Operand:
    """Static or symbolic slicing; axes along which the value merely broadcasts are not touched."""
    shape = tuple(aval.shape)
    padded = x.padded
    axes = [
        k
        for k in range(x.rank)
        if not (starts[k] == 0 and limits[k] == x.shape[k] and steps[k] == 1) and not (padded[k] == 1 and shape[k] != 0)
    ]
    held = tuple(shape[k] if k in axes else padded[k] for k in range(x.rank))
    if not axes:
        return Operand(shape, x.dtype, x.held, x.value, x.const, x.bounds)
    if any(padded[k] == 1 and x.shape[k] != 1 for k in axes):
        x, held = ctx.filled(x), shape
    source = ctx.padded(x)
    value = ctx.op(
        "Slice",
        ctx.value(source),
        ctx.shape(tuple(starts[k] for k in axes)),
        ctx.shape(tuple(limits[k] for k in axes)),
        ctx.ints(*axes),
        *([ctx.ints(*(steps[k] for k in axes))] if any(steps[k] != 1 for k in axes) else []),
        typed=(0,),
    )
    return ctx.result(value, aval, held, x.bounds)


@lowers("rev")
def rev(ctx: Context, eqn: Any, x: Operand) -> Operand:
    axes = [k for k in eqn.params["dimensions"] if x.padded[k] != 1]
    if not axes:
        return x
    source = ctx.padded(x)
    many = len(axes)
    value = ctx.op(
        "Slice",
        ctx.value(source),
        ctx.ints(*[-1] * many),
        ctx.ints(*[_BEFORE_START] * many),
        ctx.ints(*axes),
        ctx.ints(*[-1] * many),
        typed=(0,),
    )
    return ctx.result(value, eqn.aval, source.held, x.bounds)


@lowers("concatenate")
def concatenate(ctx: Context, eqn: Any, *operands: Operand) -> Operand:
    axis = eqn.params["dimension"]
    operands = tuple(x for x in operands if x.shape[axis] != 0) or operands[:1]
    if len(operands) == 1:
        return operands[0]
    rank = len(eqn.aval.shape)
    others = dims.broadcast(*(tuple(d for k, d in enumerate(x.padded) if k != axis) for x in operands))
    parts = []
    for x in operands:
        held = (*others[:axis], x.shape[axis], *others[axis:])
        parts.append(_held_as(ctx, x, held))
    held = (*others[:axis], eqn.aval.shape[axis], *others[axis:])
    known = [x.bounds for x in operands]
    bounds = None
    if all(b is not None for b in known):
        bounds = (min(b[0] for b in known if b), max(b[1] for b in known if b))
    assert len(held) == rank
    return ctx.result(ctx.op("Concat", *parts, axis=axis), eqn.aval, held, bounds)


def _held_as(ctx: Context, x: Operand, held: Shape) -> ir.Value:
    """The stored value expanded just so far."""
    view = Operand(held, x.dtype, x.held, x.value, x.const)
    return ctx.full(view)


@lowers("pad")
def pad(ctx: Context, eqn: Any, x: Operand, filler: Operand) -> Operand:
    """Edge padding, negative (cutting) included; interior padding spreads the elements out first."""
    config = eqn.params["padding_config"]
    shape = tuple(eqn.aval.shape)
    bounds = None
    if x.bounds is not None and filler.bounds is not None:
        bounds = (min(x.bounds[0], filler.bounds[0]), max(x.bounds[1], filler.bounds[1]))
    if inner_shape(x.dtype):
        return _pad_pairs(ctx, eqn, x, filler)
    value = ctx.full(x)
    current = x.shape
    for axis, (_, _, interior) in enumerate(config):
        if interior:
            value, current = _spread(ctx, value, current, axis, interior, filler, x.dtype)
    edges = [(low, high) for low, high, _ in config]
    if any(low or high for low, high in edges):
        if any(d == 0 for d in current if isinstance(d, int)):
            # Nothing of the operand is left: the result is the filler alone.
            return Operand(shape, x.dtype, (), filler.value, filler.const, bounds)
        value = _pad_edges(ctx, value, edges, ctx.value(filler))
    return ctx.result(value, eqn.aval, bounds=bounds)


def _pad_edges(ctx: Context, value: ir.Value, edges: list[Any], filler: ir.Value) -> ir.Value:
    pads = tuple(low for low, _ in edges) + tuple(high for _, high in edges)
    return ctx.op("Pad", value, ctx.shape(pads), filler, typed=(0, 2))


def _spread(
    ctx: Context, value: ir.Value, shape: Shape, axis: int, interior: int, filler: Operand, dtype: Any
) -> tuple[ir.Value, Shape]:
    """Puts ``interior`` fillers between neighbours on an axis: pad a new axis, merge it, drop the last fillers."""
    size = shape[axis]
    if size == 0:
        return value, shape
    opened = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    merged = (*shape[:axis], size * (interior + 1), *shape[axis + 1 :])
    final = (*shape[:axis], (size - 1) * (interior + 1) + 1, *shape[axis + 1 :])
    value = ctx.reshape_value(value, shape, opened)
    edges = [(0, 0)] * len(opened)
    edges[axis + 1] = (0, interior)
    value = _pad_edges(ctx, value, edges, ctx.value(filler))
    value = ctx.reshape_value(value, (*opened[: axis + 1], interior + 1, *opened[axis + 2 :]), merged)
    value = ctx.op("Slice", value, ctx.ints(0), ctx.ints(-interior), ctx.ints(axis), typed=(0,))
    return value, final


def _pad_pairs(ctx: Context, eqn: Any, x: Operand, filler: Operand) -> Operand:
    """Complex padding: both parts separately."""
    if is_key(x.dtype):
        raise Refusal("padding of random keys")
    config = eqn.params["padding_config"]

    def function(a: Any, f: Any) -> Any:
        return lax.complex(lax.pad(a.real, f.real, config), lax.pad(a.imag, f.imag, config))

    return ctx.trace_and_lower(function, x, filler)[0]


@lowers("iota")
def iota(ctx: Context, eqn: Any, *dynamic: Operand) -> Operand:
    axis, shape = eqn.params["dimension"], tuple(eqn.aval.shape)
    size = shape[axis]
    dtype = eqn.aval.dtype
    held = (size,) + (1,) * (len(shape) - axis - 1)
    if isinstance(size, int):
        steps = np.arange(size).astype(np.float32 if not is_integer(dtype) else dtype).astype(dtype)
        result = constant(steps.reshape(held), shape)
        return ctx.with_facts(result, iota=axis)
    wide = ctx.op("Range", ctx.const(np.int64(0)), ctx.dim_scalar(size), ctx.const(np.int64(1)))
    value = ctx.build.cast(wide, ir.DataType.from_numpy(np.dtype(dtype)))
    result = ctx.result(value, typed((size,), dtype), bounds=(0, np.iinfo(np.int32).max) if is_integer(dtype) else None)
    moved = ctx.reheld(result, held)
    return Operand(shape, dtype, held, moved.value, None, moved.bounds, axis)


@lowers("dim_as_value")
def dim_as_value(ctx: Context, eqn: Any) -> Operand:
    dim = eqn.params["dim"]
    value = ctx.build.cast(ctx.dim_scalar(dim), ir.DataType.from_numpy(np.dtype(eqn.aval.dtype)))
    return ctx.result(value, eqn.aval, dim=dim)


@lowers("split")
def split(ctx: Context, eqn: Any, x: Operand) -> list[Operand]:
    axis, sizes = eqn.params["axis"], eqn.params["sizes"]
    if len(sizes) == 1:
        return [x]
    if x.padded[axis] == 1 and x.shape[axis] != 1:
        return [Operand(tuple(a.shape), x.dtype, x.held, x.value, x.const, x.bounds) for a in eqn.avals]
    source = ctx.padded(x)
    values = ctx.outputs("Split", ctx.value(source), ctx.shape(tuple(sizes)), n=len(sizes), axis=axis, typed=(0,))
    results = []
    for value, aval in zip(values, eqn.avals, strict=True):
        held = tuple(aval.shape[k] if k == axis else d for k, d in enumerate(source.held))
        results.append(ctx.result(value, aval, held, x.bounds))
    return results


@lowers("tile")
def tile(ctx: Context, eqn: Any, x: Operand) -> Operand:
    repeats = tuple(eqn.params["reps"]) + (1,) * len(inner_shape(x.dtype))
    return ctx.result(ctx.op("Tile", ctx.full(x), ctx.shape(repeats), typed=(0,)), eqn.aval, bounds=x.bounds)


@lowers("stack")
def stack(ctx: Context, eqn: Any, *operands: Operand) -> Operand:
    axis = eqn.params["axis"] % len(eqn.aval.shape)
    if len(operands) == 1:
        return reshape_to(ctx, eqn.aval, operands[0])
    parts = []
    for x in operands:
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        held = (*x.padded[:axis], 1, *x.padded[axis:])
        moved = ctx.reheld(x, held) if x.held else x
        parts.append(Operand(shape, x.dtype, moved.held, moved.value, moved.const, x.bounds))
    joined = dataclasses.replace(eqn, params={"dimension": axis})
    result: Operand = concatenate(ctx, joined, *parts)
    return result


@decomposes("unstack")
def unstack(x: Any, *, axis: int, **_: Any) -> list[Any]:
    return [lax.index_in_dim(x, k, axis, keepdims=False) for k in range(x.shape[axis])]


@decomposes("broadcast_to")
def broadcast_to(x: Any, *, shape: Any, **_: Any) -> Any:
    return lax.broadcast_in_dim(x, shape, range(len(shape) - x.ndim, len(shape)))


@lowers("dimension_size")
def dimension_size(ctx: Context, eqn: Any, x: Operand) -> Operand:
    dim = x.shape[eqn.params["dimension"]]
    value = ctx.build.cast(ctx.dim_scalar(dim), ir.DataType.from_numpy(np.dtype(eqn.aval.dtype)))
    return ctx.result(value, eqn.aval, dim=dim)
