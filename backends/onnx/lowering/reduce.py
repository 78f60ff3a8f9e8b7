"""Reductions, arg-reductions and cumulative operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from jax import lax

from .. import dims
from ..context import Context
from ..operand import Operand, constant, is_bool, is_complex, is_float, is_integer, stored_type
from ..registry import Refusal, lowers
from .shape import typed

_T = ir.DataType

_EXTREMUM = {"reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}


@lowers("reduce_sum", "reduce_prod")
def reduce_sum(ctx: Context, eqn: Any, x: Operand) -> Operand:
    axes = eqn.params["axes"]
    if not axes:
        return x
    if is_complex(x.dtype):
        if eqn.primitive == "reduce_sum":
            value = ctx.op("ReduceSum", ctx.full(x), ctx.ints(*axes), keepdims=0, typed=(0,))
            return ctx.result(value, eqn.aval)
        return ctx.trace_and_lower(lambda a: _fold(a, axes, lambda p, q: p * q), x)[0]
    if not is_float(x.dtype):
        return _integer_sum(ctx, eqn, x) if eqn.primitive == "reduce_sum" else _integer_product(ctx, eqn, x)
    op_type = "ReduceSum" if eqn.primitive == "reduce_sum" else "ReduceProd"
    value = ctx.op(op_type, ctx.full(x), ctx.ints(*axes), keepdims=0, typed=(0,))
    if op_type == "ReduceSum":
        ctx.remember(value, "ReduceSum", x, axes)
    return ctx.result(value, eqn.aval)


#: The kernels add integers in float64, which is exact up to here.
_EXACT_SUM = 2**53


def _integer_sum(ctx: Context, eqn: Any, x: Operand) -> Operand:
    """A sum that wraps around: by ReduceSum where that is exact, else as a product with ones."""
    axes, dtype = eqn.params["axes"], np.dtype(x.dtype)
    count = dims.size(tuple(x.shape[k] for k in axes))
    info = np.iinfo(dtype)
    low, high = x.bounds if x.bounds is not None else (info.min, info.max)
    many = count if isinstance(count, int) else 1 << (52 - min(info.bits, 32))
    low, high = many * low, many * high
    if isinstance(count, int) and info.min <= low and high <= info.max and max(-low, high) <= _EXACT_SUM:
        value = ctx.op("ReduceSum", ctx.full(x), ctx.ints(*axes), keepdims=0, typed=(0,))
        return ctx.result(value, eqn.aval, bounds=(min(low, 0), max(high, 0)))
    if max(-low, high) <= _EXACT_SUM:
        wide = ctx.build.cast(ctx.full(x), _T.INT64)
        value = ctx.op("ReduceSum", wide, ctx.ints(*axes), keepdims=0, typed=(0,))
        return ctx.result(ctx.build.cast(value, stored_type(dtype)), eqn.aval)
    kept = [k for k in range(x.rank) if k not in axes]

    def product(a: Any) -> Any:
        rows = lax.transpose(a, (*kept, *axes)).reshape(*(a.shape[k] for k in kept), count)
        return lax.dot(rows, lax.full((count,), 1, dtype))

    return ctx.trace_and_lower(product, x)[0]


def _integer_product(ctx: Context, eqn: Any, x: Operand) -> Operand:
    """A product that wraps around: ReduceProd goes through float64, so the factors are multiplied pair by pair."""
    axes = eqn.params["axes"]
    if all(isinstance(x.shape[k], int) for k in axes):
        return ctx.trace_and_lower(lambda a: halving(a, axes, lax.mul, np.array(1, x.dtype)), x)[0]
    kept = [k for k in range(x.rank) if k not in axes]

    def scanned(a: Any) -> Any:
        rows = lax.transpose(a, (*axes, *kept)).reshape(-1, *(a.shape[k] for k in kept))
        return lax.scan(lambda total, row: (total * row, None), lax.full(rows.shape[1:], 1, a.dtype), rows)[0]

    return ctx.trace_and_lower(scanned, x)[0]


def _fold(a: Any, axes: Any, combine: Any) -> Any:
    for axis in sorted(axes, reverse=True):
        total = lax.index_in_dim(a, 0, axis, keepdims=False)
        for k in range(1, a.shape[axis]):
            total = combine(total, lax.index_in_dim(a, k, axis, keepdims=False))
        a = total
    return a


@lowers("reduce_max", "reduce_min")
def reduce_max(ctx: Context, eqn: Any, x: Operand) -> Operand:
    """Maximum or minimum. The runtime's kernel ignores NaN, so it is put back unless the use restores it anyway."""
    axes = [k for k in eqn.params["axes"] if not (x.padded[k] == 1 and x.shape[k] != 0)]
    if is_complex(x.dtype):
        raise Refusal(f"{eqn.primitive} of complex numbers has no ONNX form here")
    if not axes:
        held = tuple(d for k, d in enumerate(x.padded) if k not in eqn.params["axes"])
        moved = ctx.reheld(x, held)
        return Operand(tuple(eqn.aval.shape), x.dtype, held, moved.value, moved.const, x.bounds)
    if any(d == 0 for d in x.shape if isinstance(d, int)):
        return _of_nothing(eqn, x)
    op_type = _EXTREMUM[eqn.primitive]
    full = ctx.full(x)
    axes_value = ctx.ints(*eqn.params["axes"])
    value = ctx.op(op_type, full, axes_value, keepdims=0, typed=(0,))
    if is_float(x.dtype) and not _nan_returns(ctx, eqn):
        nan = ctx.op("IsNaN", full, to=_T.BOOL)
        nan = ctx.op("ReduceMax", nan, axes_value, keepdims=0, typed=(0,), kernel="ReduceMax")
        value = ctx.op("Where", nan, ctx.const(np.nan, x.dtype), value, typed=(1, 2))
    return ctx.result(value, eqn.aval, bounds=x.bounds)


def _of_nothing(eqn: Any, x: Operand) -> Operand:
    """The extremum over no elements, for which the kernels have no value."""
    dtype, is_max = np.dtype(x.dtype), eqn.primitive == "reduce_max"
    if is_bool(dtype):
        worst: Any = not is_max
    elif is_integer(dtype):
        worst = np.iinfo(dtype).min if is_max else np.iinfo(dtype).max
    else:
        worst = -np.inf if is_max else np.inf
    return constant(np.asarray(worst, dtype), tuple(eqn.aval.shape))


#: What may stand between a maximum and its subtraction in a softmax.
_PASSES = frozenset({"broadcast_in_dim", "stop_gradient", "reshape", "expand_dims", "squeeze", "max"})


def _nan_returns(ctx: Context, eqn: Any) -> bool:
    """Whether every use subtracts the extremum from the array it came from, which gives NaN wherever it matters."""
    source = eqn.invars[0]
    pending, seen = [eqn.outvars[0]], 0
    while pending:
        var = pending.pop()
        users = ctx.uses.get(var, [])
        if not users:
            return False
        for user in users:
            seen += 1
            if user is None:
                return False
            if user.primitive.name in _PASSES:
                pending.extend(user.outvars)
            elif not (user.primitive.name == "sub" and user.invars[0] is source and user.invars[1] is var):
                return False
    return seen > 0


@lowers("reduce_and", "reduce_or", "reduce_xor")
def reduce_logical(ctx: Context, eqn: Any, x: Operand) -> Operand:
    axes = eqn.params["axes"]
    if not axes:
        return x
    if is_bool(x.dtype) and any(d == 0 for d in x.shape if isinstance(d, int)):
        nothing = np.asarray(eqn.primitive == "reduce_and")
        return constant(nothing, tuple(eqn.aval.shape))
    if not is_bool(x.dtype):
        combine = {"reduce_and": lax.bitwise_and, "reduce_or": lax.bitwise_or, "reduce_xor": lax.bitwise_xor}
        if any(not isinstance(x.shape[k], int) for k in axes):
            raise Refusal(f"{eqn.primitive} of integers over a dynamic axis")
        identity = np.array(-1 if eqn.primitive == "reduce_and" else 0).astype(x.dtype)
        return ctx.trace_and_lower(lambda a: halving(a, axes, combine[eqn.primitive], identity), x)[0]
    if eqn.primitive == "reduce_xor":
        total = ctx.op("ReduceSum", ctx.build.cast(ctx.full(x), _T.INT32), ctx.ints(*axes), keepdims=0, typed=(0,))
        odd = ctx.op("BitwiseAnd", total, ctx.const(np.int32(1)))
        return ctx.result(ctx.build.cast(odd, _T.BOOL), eqn.aval)
    op_type = "ReduceMin" if eqn.primitive == "reduce_and" else "ReduceMax"
    return ctx.result(ctx.op(op_type, ctx.full(x), ctx.ints(*axes), keepdims=0, typed=(0,)), eqn.aval)


def halving(a: Any, axes: Any, combine: Any, identity: Any) -> Any:
    """Reduces axes with any associative, commutative function, in log2(n) steps."""
    for axis in sorted(axes, reverse=True):
        n = a.shape[axis]
        if n == 0:
            shape = tuple(d for k, d in enumerate(a.shape) if k != axis)
            a = lax.full(shape, identity, a.dtype)
            continue
        while n > 1:
            half = n // 2
            low, high = (lax.slice_in_dim(a, k, k + half, axis=axis) for k in (0, half))
            rest = lax.slice_in_dim(a, 2 * half, n, axis=axis)
            a = combine(low, high)
            if n % 2:
                a = lax.concatenate([a, rest], axis)
            n = a.shape[axis]
        a = lax.squeeze(a, (axis,))
    return a


@lowers("reduce")
def reduce(ctx: Context, eqn: Any, *operands: Operand) -> list[Operand]:
    """A reduction with the user's own function, in halving steps."""
    many = len(operands) // 2
    axes, body = eqn.params["dimensions"], eqn.params["jaxpr"]
    if any(not isinstance(x.shape[k], int) for x in operands[:many] for k in axes):
        raise Refusal("a reduction with a function of the program over a dynamic axis")
    from jax.extend.core import jaxpr_as_fun

    function = jaxpr_as_fun(body)

    def apply(*arrays: Any) -> Any:
        import jax

        current, initial = list(arrays[:many]), arrays[many:]

        def combine(left: Any, right: Any) -> list[Any]:
            step = function
            for _ in range(left[0].ndim):
                step = jax.vmap(step)
            return list(step(*left, *right))

        for axis in sorted(axes, reverse=True):
            while current[0].shape[axis] > 1:
                n = current[0].shape[axis]
                half = n // 2
                low = [lax.slice_in_dim(a, 0, half, axis=axis) for a in current]
                high = [lax.slice_in_dim(a, half, 2 * half, axis=axis) for a in current]
                rest = [lax.slice_in_dim(a, 2 * half, n, axis=axis) for a in current]
                current = combine(low, high)
                if n % 2:
                    current = [lax.concatenate([a, r], axis) for a, r in zip(current, rest, strict=True)]
        if any(current[0].shape[k] == 0 for k in axes):
            return [lax.broadcast(i, eqn.aval.shape) for i in initial]
        current = [lax.squeeze(a, axes) for a in current]
        return combine([lax.broadcast(i, a.shape) for i, a in zip(initial, current, strict=True)], current)

    return ctx.trace_and_lower(apply, *operands)


@lowers("argmax", "argmin")
def argmax(ctx: Context, eqn: Any, x: Operand) -> Operand:
    """The first extremum; NaN counts as the extremum, as in JAX."""
    (axis,) = eqn.params["axes"]
    op_type = "ArgMax" if eqn.primitive == "argmax" else "ArgMin"
    value, dtype = ctx.full(x), x.dtype
    if is_float(dtype):
        value = ordered_key(ctx, value, dtype, nan_first=True, negate=eqn.primitive == "argmin")
        op_type = "ArgMax"
    index = ctx.op(op_type, value, axis=axis, keepdims=0, to=_T.INT64)
    size = x.shape[axis]
    bounds = (0, size - 1) if isinstance(size, int) and size else None
    return ctx.result(ctx.build.cast(index, stored_type(eqn.aval.dtype)), eqn.aval, bounds=bounds)


def ordered_key(ctx: Context, value: ir.Value, dtype: Any, *, nan_first: bool, negate: bool = False) -> ir.Value:
    """Floats as sort keys in which NaN has a place: above everything (``nan_first``: it is selected as a maximum).

    Kernels compare NaN by chance. Keys are float64 for narrower floats, with infinity moved to 1e300, so that NaN can
    take its place; float64 itself has no room, and there NaN ties with infinity.
    """
    nan = ctx.op("IsNaN", value, to=_T.BOOL)
    if negate:
        value = ctx.op("Neg", value)
    if np.dtype(dtype) != np.float64:
        value = ctx.op("Min", ctx.build.cast(value, _T.DOUBLE), ctx.const(np.float64(1e300)))
    return ctx.op("Where", nan, ctx.const(np.float64(np.inf)), value, typed=(1, 2))


@lowers("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def cumulative(ctx: Context, eqn: Any, x: Operand) -> Operand:
    axis, reverse = eqn.params["axis"], eqn.params["reverse"]
    name = eqn.primitive
    if dims.size(x.shape) == 0 or x.shape[axis] == 1:
        return x
    if is_complex(x.dtype):
        return _complex_cumulative(ctx, eqn, x)
    if name == "cumsum":
        value = ctx.op(
            "CumSum", ctx.full(x), ctx.const(np.int64(axis)), typed=(0,), **({"reverse": 1} if reverse else {})
        )
        return ctx.result(value, eqn.aval)
    if name == "cumprod" and ctx.build.has("CumProd"):
        value = ctx.op(
            "CumProd", ctx.full(x), ctx.const(np.int64(axis)), typed=(0,), **({"reverse": 1} if reverse else {})
        )
        return ctx.result(value, eqn.aval)
    return _scan(ctx, eqn, x)


def _complex_cumulative(ctx: Context, eqn: Any, x: Operand) -> Operand:
    axis, reverse = eqn.params["axis"], eqn.params["reverse"]
    if eqn.primitive == "cumsum":
        value = ctx.op("CumSum", ctx.full(x), ctx.const(np.int64(axis)), typed=(0,), reverse=int(reverse))
        return ctx.result(value, eqn.aval)
    if eqn.primitive != "cumprod" or not isinstance(x.shape[axis], int):
        raise Refusal(f"{eqn.primitive} of complex numbers has no ONNX form here")
    return ctx.trace_and_lower(lambda a: lax.associative_scan(lax.mul, a, reverse=reverse, axis=axis), x)[0]


def _scan(ctx: Context, eqn: Any, x: Operand) -> Operand:
    """A running product, extremum or log-sum-exp as an ONNX Scan along the axis."""
    axis, reverse, name = eqn.params["axis"], eqn.params["reverse"], eqn.primitive
    rest = tuple(d for k, d in enumerate(x.shape) if k != axis)
    start = _identity(name, x.dtype)
    full = ctx.full(x)
    carry = ctx.full(constant(np.asarray(start, x.dtype), rest))
    build, dtype = ctx.build, stored_type(x.dtype)
    spec = [dims.spec(d) for d in rest]
    state, item = build.input("state", dtype, spec), build.input("item", dtype, spec)
    with build.body() as nodes:
        if name == "cumlogsumexp":
            operands = (ctx.result(v, typed(rest, x.dtype)) for v in (state, item))
            combined = ctx.value(ctx.trace_and_lower(_log_add, *operands)[0])
        else:
            combined = ctx.op({"cumprod": "Mul", "cummax": "Max", "cummin": "Min"}[name], state, item)
    body = build.graph(name, [state, item], [combined, combined], nodes)
    _, value = ctx.outputs(
        "Scan",
        carry,
        full,
        n=2,
        to=(dtype, dtype),
        typed=(),
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_output_axes=[axis],
        scan_input_directions=[int(reverse)],
        scan_output_directions=[int(reverse)],
    )
    return ctx.result(value, eqn.aval, bounds=x.bounds if name in ("cummax", "cummin") else None)


def _log_add(a: Any, b: Any) -> Any:
    import jax.numpy as jnp

    return jnp.logaddexp(a, b)


def _identity(name: str, dtype: Any) -> Any:
    if name == "cumprod":
        return 1
    low = name in ("cummax", "cumlogsumexp")
    if is_float(dtype):
        return -np.inf if low else np.inf
    if is_bool(dtype):
        return not low
    info = np.iinfo(np.dtype(dtype))
    return info.min if low else info.max
