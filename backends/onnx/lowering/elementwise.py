"""Arithmetic, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from .. import dims
from ..context import Context
from ..operand import Bounds, Operand, constant, is_bool, is_complex, is_float, is_integer, is_unsigned
from ..registry import Refusal, lowers
from .conv import with_bias
from .quantize import biased_convolution, pooled_mean
from .shape import reshape_to, typed

_T = ir.DataType


def emit(
    ctx: Context, eqn: Any, op_type: str, *operands: Operand, bounds: Bounds | None = None, **options: Any
) -> Operand:
    """One broadcasting ONNX operator on the stored values."""
    value = ctx.op(op_type, *(ctx.value(x) for x in operands), **options)
    return ctx.result(value, eqn.aval, dims.broadcast(*(x.held for x in operands)), bounds)


def real_only(eqn: Any, *operands: Operand) -> None:
    """Refuses complex operands where the primitive's pair form is not defined."""
    if any(is_complex(x.dtype) for x in operands):
        raise Refusal(f"{eqn.primitive} of complex numbers has no ONNX form here")


def fits(dtype: Any, bounds: Bounds | None) -> Bounds | None:
    """The bounds, if no value in them wraps around."""
    if bounds is None or is_bool(dtype) or not is_integer(dtype):
        return None
    info = np.iinfo(np.dtype(dtype))
    return bounds if info.min <= bounds[0] and bounds[1] <= info.max else None


def both_bounds(x: Operand, y: Operand) -> tuple[Bounds, Bounds] | None:
    """The bounds of two operands, where both are known."""
    return (x.bounds, y.bounds) if x.bounds is not None and y.bounds is not None else None


def is_scalar(x: Operand, value: float) -> bool:
    """Whether the operand is a known number."""
    scalar = x.scalar
    return scalar is not None and bool(scalar == value)


@lowers("add", "add_any")
def add(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    for a, b in ((x, y), (y, x)):
        if is_integer(eqn.aval.dtype) and is_scalar(b, 0) and a.shape == tuple(eqn.aval.shape):
            return a
    for fuse in (_linear, biased_convolution, with_bias, _before_split):
        fused = fuse(ctx, eqn, x, y)
        if fused is not None:
            return fused
    pair = both_bounds(x, y)
    bounds = fits(eqn.aval.dtype, (pair[0][0] + pair[1][0], pair[0][1] + pair[1][1])) if pair else None
    result = emit(ctx, eqn, "Add", x, y, bounds=bounds)
    shift = _dimension(y)
    return result if shift is None else ctx.with_facts(result, shifted=(x, shift))


def _linear(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand | None:
    """A matrix product that is used once, plus a row: Gemm."""
    for k, (a, b) in enumerate(((x, y), (y, x))):
        made = ctx.origin(a.value)
        if made is None or made[0] != "MatMul" or len(ctx.uses.get(eqn.invars[k], ())) != 1:
            continue
        if a.is_full and len(b.held) == 1 and b.held[0] == a.shape[1]:
            value = ctx.op("Gemm", ctx.value(made[1]), ctx.value(made[2]), ctx.value(b))
            return ctx.result(value, eqn.aval)
    return None


def _before_split(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand | None:
    """A bias per head, on rows that were just split into heads: added before the split, for others to fuse or undo."""
    for k, (a, b) in enumerate(((x, y), (y, x))):
        made = ctx.origin(a.value)
        if made is None or made[0] != "Reshape" or b.const is None or len(ctx.uses.get(eqn.invars[k], ())) != 1:
            continue
        source: Operand = made[1]
        kept, bias = source.rank - 1, _without_leading_ones(b.const)
        if a.is_full and kept >= 0 and source.shape[:-1] == a.shape[:kept] and bias.shape == a.shape[kept:]:
            row = ctx.const(np.reshape(bias, -1))
            total = ctx.op("Add", ctx.value(source), row)
            return reshape_to(ctx, eqn.aval, ctx.result(total, typed(source.shape, source.dtype)))
    return None


def _without_leading_ones(array: Any) -> Any:
    while array.ndim > 1 and array.shape[0] == 1:
        array = array[0]
    return array


def _dimension(x: Operand) -> Any:
    """The number or symbolic dimension that an operand is, else None."""
    if x.dim is not None:
        return x.dim
    return int(x.scalar) if x.scalar is not None and is_integer(x.dtype) else None


@lowers("sub")
def sub(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    if is_integer(eqn.aval.dtype) and is_scalar(y, 0) and x.shape == tuple(eqn.aval.shape):
        return x
    pair = both_bounds(x, y)
    bounds = fits(eqn.aval.dtype, (pair[0][0] - pair[1][1], pair[0][1] - pair[1][0])) if pair else None
    return emit(ctx, eqn, "Sub", x, y, bounds=bounds)


@lowers("mul")
def mul(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    if is_complex(eqn.aval.dtype):
        from .complex import multiply

        return multiply(ctx, eqn, x, y)
    for a, b in ((x, y), (y, x)):
        if is_scalar(b, 1) and a.shape == tuple(eqn.aval.shape):
            return a
    pair, bounds = both_bounds(x, y), None
    if pair:
        corners = [a * b for a in pair[0] for b in pair[1]]
        bounds = fits(eqn.aval.dtype, (min(corners), max(corners)))
    return emit(ctx, eqn, "Mul", x, y, bounds=bounds)


@lowers("div")
def div(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    if is_complex(eqn.aval.dtype):
        from .complex import divide

        return divide(ctx, eqn, x, y)
    if is_integer(eqn.aval.dtype):
        return _integer_division(ctx, eqn, "Div", x, y)
    if is_scalar(y, 1) and x.shape == tuple(eqn.aval.shape):
        return x
    if is_scalar(x, 1):
        return emit(ctx, eqn, "Reciprocal", y)
    mean = _mean(ctx, eqn, x, y)
    if mean is not None:
        return mean
    return emit(ctx, eqn, "Div", x, y)


def _mean(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand | None:
    """A sum divided by the number of its terms."""
    made = ctx.origin(x.value)
    if made is None or made[0] != "ReduceSum" or y.scalar is None or not x.is_full or y.scalar == 0:
        return None
    _, source, axes = made
    count = dims.size(tuple(source.shape[k] for k in axes))
    if not isinstance(count, int) or float(y.scalar) != count:
        return None
    pooled = pooled_mean(ctx, eqn, source, axes)
    if pooled is not None:
        return pooled
    value = ctx.op("ReduceMean", ctx.full(source), ctx.ints(*axes), keepdims=0, typed=(0,))
    return ctx.result(value, eqn.aval)


@lowers("rem")
def rem(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    real_only(eqn, x)
    if is_integer(eqn.aval.dtype):
        return _remainder(ctx, eqn, x, y)
    return emit(ctx, eqn, "Mod", x, y, fmod=1)


def _remainder(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    """Mod with fmod=1 goes through float64, exact up to 32 bits only; Mod of unsigned integers is exact as it is."""
    if is_unsigned(x.dtype):
        return _integer_division(ctx, eqn, "Mod", x, y)
    if np.dtype(x.dtype).itemsize < 8:
        return _integer_division(ctx, eqn, "Mod", x, y, fmod=1)
    quotient = _integer_division(ctx, eqn, "Div", x, y)
    product = ctx.op("Mul", ctx.value(quotient), ctx.value(y))
    return ctx.result(ctx.op("Sub", ctx.value(x), product), eqn.aval, dims.broadcast(x.held, quotient.held, y.held))


def _integer_division(ctx: Context, eqn: Any, op_type: str, x: Operand, y: Operand, **attributes: Any) -> Operand:
    """Division or remainder with XLA's results where C leaves them open: by zero, and of the minimum by -1.

    The processor traps on both, so the divisor is replaced first: x/0 is -1 (all ones), x%0 is x, min/-1 is min.
    """
    bounds = _quotient_bounds(op_type, x, y)
    if y.bounds is not None and (y.bounds[0] > 0 or y.bounds[1] < -1):
        return emit(ctx, eqn, op_type, x, y, bounds=bounds, **attributes)
    divisor, one, zero = ctx.value(y), ctx.const(1, y.dtype), ctx.const(0, y.dtype)
    by_zero = ctx.op("Equal", divisor, zero, to=_T.BOOL)
    unsafe = by_zero
    if not is_unsigned(y.dtype):
        unsafe = ctx.op("Or", by_zero, ctx.op("Equal", divisor, ctx.const(-1, y.dtype), to=_T.BOOL))
    safe = ctx.op("Where", unsafe, one, divisor, typed=(1, 2))
    value = ctx.op(op_type, ctx.value(x), safe, **attributes)
    if op_type == "Div":
        if not is_unsigned(y.dtype):
            value = ctx.op("Where", unsafe, ctx.op("Neg", ctx.value(x)), value, typed=(1, 2))
        value = ctx.op("Where", by_zero, ctx.const(np.array(-1).astype(y.dtype)), value, typed=(1, 2))
    else:
        value = ctx.op("Where", by_zero, ctx.value(x), value, typed=(1, 2))
    return ctx.result(value, eqn.aval, dims.broadcast(x.held, y.held), bounds)


def _quotient_bounds(op_type: str, x: Operand, y: Operand) -> Bounds | None:
    pair = both_bounds(x, y)
    if pair is None or pair[1][0] <= 0:
        return None
    (low, high), (small, large) = pair
    if op_type == "Div":
        corners = [int(a / b) if abs(a) < 2**52 else a for a in (low, high) for b in (small, large)]
        return min(corners), max(corners)
    return (0 if low >= 0 else -(large - 1)), (large - 1 if high >= 0 else 0)


@lowers("max")
def maximum(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    if is_complex(eqn.aval.dtype):
        from .complex import extremum

        return extremum(ctx, eqn, x, y)
    if is_bool(eqn.aval.dtype):
        return emit(ctx, eqn, "Or", x, y)
    for a, b in ((x, y), (y, x)):
        if is_float(a.dtype) and a.held != () and b.scalar is not None and b.scalar == b.scalar and b.scalar != -np.inf:
            result = emit(ctx, eqn, "Relu", a) if b.scalar == 0 else emit(ctx, eqn, "Max", x, y)
            ctx.remember(result.value, "Max", a, float(b.scalar))
            return result
        if is_scalar(b, -np.inf) and is_float(a.dtype) and a.shape == tuple(eqn.aval.shape):
            return a
    pair = both_bounds(x, y)
    bounds = (max(pair[0][0], pair[1][0]), max(pair[0][1], pair[1][1])) if pair else None
    return emit(ctx, eqn, "Max", x, y, bounds=bounds)


@lowers("min")
def minimum(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    if is_complex(eqn.aval.dtype):
        from .complex import extremum

        return extremum(ctx, eqn, x, y)
    if is_bool(eqn.aval.dtype):
        return emit(ctx, eqn, "And", x, y)
    for a, b in ((x, y), (y, x)):
        made = ctx.origin(a.value)
        if made is not None and made[0] == "Max" and b.scalar is not None and float(b.scalar) >= made[2]:
            low, high = constant(np.asarray(made[2], a.dtype)), constant(np.asarray(b.scalar))
            return emit(ctx, eqn, "Clip", made[1], low, high)
    pair = both_bounds(x, y)
    bounds = (min(pair[0][0], pair[1][0]), min(pair[0][1], pair[1][1])) if pair else None
    return emit(ctx, eqn, "Min", x, y, bounds=bounds)


@lowers("clamp")
def clamp(ctx: Context, eqn: Any, low: Operand, x: Operand, high: Operand) -> Operand:
    bounds = None
    if low.bounds and high.bounds:
        bounds = (min(low.bounds[0], high.bounds[0]), high.bounds[1])
        if x.bounds:
            if x.bounds[0] >= low.bounds[1] and x.bounds[1] <= high.bounds[0]:
                return x
            bounds = (max(bounds[0], min(x.bounds[0], high.bounds[0])), min(bounds[1], max(x.bounds[1], low.bounds[0])))
    if low.held == high.held == () and not is_bool(x.dtype) and low.scalar is not None and high.scalar is not None:
        # Where low > high both agree on high; ONNX defines Clip as Min(Max(x, low), high), as JAX does.
        return (
            emit(ctx, eqn, "Clip", x, low, high, bounds=bounds) if x.held else _min_max(ctx, eqn, low, x, high, bounds)
        )
    return _min_max(ctx, eqn, low, x, high, bounds)


def _min_max(ctx: Context, eqn: Any, low: Operand, x: Operand, high: Operand, bounds: Bounds | None) -> Operand:
    value = ctx.op("Min", ctx.op("Max", ctx.value(x), ctx.value(low)), ctx.value(high))
    return ctx.result(value, eqn.aval, dims.broadcast(low.held, x.held, high.held), bounds)


@lowers("neg")
def neg(ctx: Context, eqn: Any, x: Operand) -> Operand:
    if is_unsigned(x.dtype):
        value = ctx.op("Sub", ctx.const(0, x.dtype), ctx.value(x))
        return ctx.result(value, eqn.aval, x.held)
    bounds = fits(x.dtype, (-x.bounds[1], -x.bounds[0])) if x.bounds else None
    return emit(ctx, eqn, "Neg", x, bounds=bounds)


@lowers("abs")
def absolute(ctx: Context, eqn: Any, x: Operand) -> Operand:
    if is_complex(x.dtype):
        from .complex import modulus

        return modulus(ctx, eqn, x)
    if is_unsigned(x.dtype):
        return x
    bounds = None
    if x.bounds is not None:
        low = 0 if x.bounds[0] <= 0 <= x.bounds[1] else min(abs(b) for b in x.bounds)
        bounds = fits(x.dtype, (low, max(abs(b) for b in x.bounds)))
    return emit(ctx, eqn, "Abs", x, bounds=bounds)


@lowers("sign")
def sign(ctx: Context, eqn: Any, x: Operand) -> Operand:
    if is_complex(x.dtype):
        from .unary import of_complex

        return of_complex(ctx, eqn, x)
    if not is_float(x.dtype):
        return emit(ctx, eqn, "Sign", x, bounds=(-1, 1))
    return emit(ctx, eqn, "Sign", x)
