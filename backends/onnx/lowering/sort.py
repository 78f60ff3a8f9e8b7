"""Sorting with TopK, whose ties go to the lower index: it is a stable sort."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from .. import dims
from ..context import Context
from ..operand import Operand, is_bool, is_complex, is_float, is_key, stored_type
from ..registry import Refusal, lowers
from .reduce import ordered_key
from .shape import typed

_T = ir.DataType


@lowers("sort")
def sort(ctx: Context, eqn: Any, *operands: Operand) -> list[Operand]:
    """Sorts all operands by the leading ``num_keys`` ones, from the last key to the first."""
    axis, many = eqn.params["dimension"], eqn.params["num_keys"]
    if operands[0].shape[axis] == 1 or dims.size(operands[0].shape) == 0:
        return list(operands)
    if any(is_key(x.dtype) for x in operands):
        raise Refusal("a sort of random keys has no ONNX form")
    if any(is_complex(x.dtype) for x in operands):
        return _complex_sort(ctx, eqn, operands)
    count = ctx.dim(operands[0].shape[axis])
    first = operands[0]
    if len(operands) == 1 and not is_float(first.dtype):
        value, _ = ctx.outputs(
            "TopK", ctx.full(first), count, n=2, to=(None, _T.INT64), typed=(0,), axis=axis, largest=0, sorted=1
        )
        return [ctx.result(value, typed(first.shape, first.dtype), bounds=first.bounds)]
    order = None
    for key in reversed(operands[:many]):
        value = ctx.full(key)
        if order is not None:
            value = ctx.op("GatherElements", value, order, axis=axis, typed=(0,))
        step = _order(ctx, value, key.dtype, count, axis)
        order = step if order is None else ctx.op("GatherElements", order, step, axis=axis, typed=(0,))
    return [_taken(ctx, x, order, axis, w) for x, w in zip(operands, eqn.wanted, strict=True)]


def _order(ctx: Context, value: ir.Value, dtype: Any, count: ir.Value, axis: int) -> ir.Value:
    """Positions that sort a key, stably; NaN comes last."""
    if is_float(dtype) and np.dtype(dtype) == np.float64:
        return _order_doubles(ctx, value, count, axis)
    if is_float(dtype):
        value = ordered_key(ctx, value, dtype, nan_first=True)
    _, order = ctx.outputs("TopK", value, count, n=2, to=(None, _T.INT64), typed=(0,), axis=axis, largest=0, sorted=1)
    return order


def _order_doubles(ctx: Context, value: ir.Value, count: ir.Value, axis: int) -> ir.Value:
    """Two stable passes: by value with NaN as infinity, then by being NaN."""
    nan = ctx.op("IsNaN", value, to=_T.BOOL)
    clean = ctx.op("Where", nan, ctx.const(np.float64(np.inf)), value, typed=(1, 2))
    options: dict[str, Any] = dict(n=2, to=(None, _T.INT64), typed=(0,), axis=axis, largest=0, sorted=1)
    _, order = ctx.outputs("TopK", clean, count, **options)
    flags = ctx.op("GatherElements", ctx.build.cast(nan, _T.INT32), order, axis=axis, typed=(0,))
    _, step = ctx.outputs("TopK", flags, count, **options)
    return ctx.op("GatherElements", order, step, axis=axis, typed=(0,))


def _taken(ctx: Context, x: Operand, order: Any, axis: int, wanted: bool) -> Operand:
    """An operand in the new order; a counter along the axis is the order itself."""
    if not wanted:
        return ctx.stand_in(typed(x.shape, x.dtype))
    if x.iota == axis:
        value = ctx.build.cast(order, stored_type(x.dtype))
        return ctx.result(value, typed(x.shape, x.dtype), bounds=x.bounds)
    if x.padded[axis] == 1:
        return x
    value = ctx.op("GatherElements", ctx.full(x), order, axis=axis, typed=(0,))
    return ctx.result(value, typed(x.shape, x.dtype), bounds=x.bounds)


def _complex_sort(ctx: Context, eqn: Any, operands: Any) -> list[Operand]:
    """Complex keys order by the real, then the imaginary part."""
    from jax import lax

    axis, many = eqn.params["dimension"], eqn.params["num_keys"]

    def apply(*arrays: Any) -> Any:
        keys: list[Any] = []
        for a in arrays[:many]:
            keys.extend([a.real, a.imag] if np.iscomplexobj(a) else [a])
        rest: list[Any] = []
        for a in arrays[many:]:
            rest.extend([a.real, a.imag] if np.iscomplexobj(a) else [a])
        flat = iter(lax.sort((*keys, *rest), dimension=axis, num_keys=len(keys)))
        return [lax.complex(next(flat), next(flat)) if np.iscomplexobj(a) else next(flat) for a in arrays]

    return ctx.trace_and_lower(apply, *operands)


@lowers("top_k", "approx_top_k", note="approx_top_k is exact")
def top_k(ctx: Context, eqn: Any, x: Operand) -> list[Operand]:
    """The k largest along an axis, the earlier of equals first; NaN counts as the largest."""
    params = eqn.params
    axis = params.get("axis", params.get("reduction_dimension", -1)) % x.rank
    largest = bool(params.get("is_max_k", True))
    if is_complex(x.dtype):
        raise Refusal("top_k of complex numbers has no ONNX form here")
    k, size = params["k"], x.shape[axis]
    full = ctx.full(x)
    options: dict[str, Any] = dict(n=2, to=(None, _T.INT64), typed=(0,), axis=axis, largest=int(largest), sorted=1)
    bounds = (0, size - 1) if isinstance(size, int) and size else None
    if is_float(x.dtype):
        key = ordered_key(ctx, full, x.dtype, nan_first=True)
        _, order = ctx.outputs("TopK", key, ctx.dim(k), **options)
        values = ctx.op("GatherElements", full, order, axis=axis, typed=(0,)) if eqn.wanted[0] else None
    else:
        value = ctx.build.cast(full, _T.INT32) if is_bool(x.dtype) else full
        values, order = ctx.outputs("TopK", value, ctx.dim(k), **options)
        values = ctx.build.cast(values, stored_type(x.dtype))
    index_aval = eqn.avals[1]
    order = ctx.build.cast(order, stored_type(index_aval.dtype))
    first = ctx.stand_in(eqn.aval) if values is None else ctx.result(values, eqn.aval, bounds=x.bounds)
    return [first, ctx.result(order, index_aval, bounds=bounds)]
