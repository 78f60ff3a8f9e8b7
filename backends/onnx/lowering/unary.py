"""Elementary functions of one argument, and powers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from .. import dims
from ..context import Context
from ..operand import Operand, is_bool, is_complex, is_float, is_integer
from ..registry import Refusal, lowers
from . import bits, decompositions
from .elementwise import emit, real_only

#: Primitive -> operator, for every real float type.
_EVERY_FLOAT = {
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "sin": "Sin",
    "cos": "Cos",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "floor": "Floor",
    "ceil": "Ceil",
}

#: Primitive -> operator without a kernel for float64, which is decomposed instead.
_NOT_DOUBLE = {
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
    "erf": "Erf",
}


@lowers(*_EVERY_FLOAT, note="complex by decomposition")
def elementary(ctx: Context, eqn: Any, x: Operand) -> Operand:
    if is_complex(x.dtype):
        return of_complex(ctx, eqn, x)
    if eqn.primitive == "logistic" and np.dtype(x.dtype) == np.float64:
        return ctx.trace_and_lower(decompositions.logistic, x)[0]
    return emit(ctx, eqn, _EVERY_FLOAT[eqn.primitive], x)


@lowers(*_NOT_DOUBLE, note="float64 by decomposition, to about 1e-15")
def elementary_not_double(ctx: Context, eqn: Any, x: Operand) -> Operand:
    if is_complex(x.dtype):
        return of_complex(ctx, eqn, x)
    if np.dtype(x.dtype) == np.float64:
        return ctx.trace_and_lower(getattr(decompositions, eqn.primitive), x)[0]
    return emit(ctx, eqn, _NOT_DOUBLE[eqn.primitive], x)


def of_complex(ctx: Context, eqn: Any, x: Operand) -> Operand:
    from . import complex as pairs

    function = pairs.FUNCTIONS.get(eqn.primitive)
    if function is None:
        raise Refusal(f"{eqn.primitive} of complex numbers has no ONNX form here")
    return ctx.trace_and_lower(function, x)[0]


@lowers("rsqrt")
def rsqrt(ctx: Context, eqn: Any, x: Operand) -> Operand:
    if is_complex(x.dtype):
        return of_complex(ctx, eqn, x)
    value = ctx.op("Reciprocal", ctx.op("Sqrt", ctx.value(x)))
    return ctx.result(value, eqn.aval, x.held)


@lowers("exp2")
def exp2(ctx: Context, eqn: Any, x: Operand) -> Operand:
    real_only(eqn, x)
    value = ctx.op("Pow", ctx.const(2, x.dtype), ctx.value(x))
    return ctx.result(value, eqn.aval, x.held)


@lowers("round")
def round_(ctx: Context, eqn: Any, x: Operand) -> Operand:
    """ONNX rounds halves to even; JAX's other method rounds them away from zero."""
    if int(eqn.params["rounding_method"]) == 1:
        return emit(ctx, eqn, "Round", x)
    return ctx.trace_and_lower(decompositions.round_away, x)[0]


@lowers("square")
def square(ctx: Context, eqn: Any, x: Operand) -> Operand:
    if is_complex(x.dtype):
        from .complex import multiply

        return multiply(ctx, eqn, x, x)
    return emit(ctx, eqn, "Mul", x, x)


@lowers("integer_pow")
def integer_pow(ctx: Context, eqn: Any, x: Operand) -> Operand:
    power = eqn.params["y"]
    if is_complex(x.dtype):
        return ctx.trace_and_lower(lambda a: decompositions.integer_power(a, power), x)[0]
    if power == 2:
        return emit(ctx, eqn, "Mul", x, x)
    if power == -1 and is_float(x.dtype):
        return emit(ctx, eqn, "Reciprocal", x)
    if is_integer(x.dtype) or abs(power) <= 3:
        return ctx.trace_and_lower(lambda a: decompositions.integer_power(a, power), x)[0]
    value = ctx.op("Pow", ctx.value(x), ctx.const(power, x.dtype))
    return ctx.result(value, eqn.aval, x.held)


@lowers("pow")
def power(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    if is_complex(x.dtype):
        return ctx.trace_and_lower(lambda a, b: decompositions.complex_power(a, b), x, y)[0]
    if x.dtype == y.dtype:
        if y.scalar is not None and float(y.scalar) == 2.0:
            return emit(ctx, eqn, "Mul", x, x)
        if y.scalar is not None and float(y.scalar) == 0.5 and math.isfinite(float(y.scalar)):
            # sqrt(-inf) is NaN where pow(-inf, 0.5) is inf, so the general operator stays.
            return emit(ctx, eqn, "Pow", x, y)
        return emit(ctx, eqn, "Pow", x, y)
    if is_integer(y.dtype) and is_float(x.dtype):
        exponent = ctx.build.cast(ctx.value(y), ir.DataType.from_numpy(np.dtype(x.dtype)))
        value = ctx.op("Pow", ctx.value(x), exponent)
        return ctx.result(value, eqn.aval, dims.broadcast(x.held, y.held))
    return ctx.trace_and_lower(decompositions.integer_to_integer_power, x, y)[0]


@lowers("real", "imag", "conj", "complex")
def parts(ctx: Context, eqn: Any, *operands: Operand) -> Operand:
    from . import complex as pairs

    if eqn.primitive == "complex":
        return pairs.join(ctx, eqn, *operands)
    (x,) = operands
    if not is_complex(x.dtype):
        if eqn.primitive == "conj":
            return pairs.join(ctx, eqn, x, None)
        raise Refusal(f"{eqn.primitive} of a real number")
    if eqn.primitive == "conj":
        return pairs.conjugate(ctx, eqn, x)
    return pairs.part(ctx, eqn, x, 0 if eqn.primitive == "real" else 1)


@lowers("population_count", "clz")
def bit_counts(ctx: Context, eqn: Any, x: Operand) -> Operand:
    function = bits.population_count if eqn.primitive == "population_count" else bits.leading_zeros
    if is_bool(x.dtype):
        raise Refusal(f"{eqn.primitive} of booleans")
    return ctx.trace_and_lower(function, x)[0]
