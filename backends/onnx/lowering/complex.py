"""Complex numbers as pairs of reals on a trailing axis."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
from jax import lax

from .. import dims
from ..context import Context
from ..operand import Operand
from ..registry import Refusal

_T = ir.DataType


def _half(ctx: Context, x: Operand, k: int) -> ir.Value:
    """The real (0) or imaginary (1) parts, without the trailing axis."""
    if x.const is not None:
        return ctx.const(x.const.imag if k else x.const.real)
    return ctx.op("Gather", x.value, ctx.const(np.int64(k)), axis=-1, typed=(0,))


def _pair(ctx: Context, eqn: Any, re: ir.Value, im: ir.Value, held: Any) -> Operand:
    """Joins two values of shape ``held``."""
    parts = [ctx.op("Unsqueeze", v, ctx.ints(-1), typed=(0,)) for v in (re, im)]
    return ctx.result(ctx.op("Concat", *parts, axis=-1), eqn.aval, held)


def part(ctx: Context, eqn: Any, x: Operand, k: int) -> Operand:
    """The real or the imaginary part."""
    made = ctx.origin(x.value)
    if made is not None and made[0] == "complex" and made[2][k] is not None:
        known: Operand = made[2][k]
        return known
    return ctx.result(_half(ctx, x, k), eqn.aval, x.held)


def join(ctx: Context, eqn: Any, re: Operand, im: Operand | None) -> Operand:
    """A complex array from its parts; no imaginary part means zeros."""
    if im is None:
        value = ctx.op("Unsqueeze", ctx.value(re), ctx.ints(-1), typed=(0,))
        pads = [0] * len(re.held) + [0] + [0] * len(re.held) + [1]
        value = ctx.op("Pad", value, ctx.ints(*pads), typed=(0,))
        result = ctx.result(value, eqn.aval, re.held)
        ctx.remember(value, "complex", re, (re, None))
        return result
    re, im = (dataclasses.replace(v, shape=tuple(eqn.aval.shape)) for v in (re, im))  # a scalar stands for all
    held = dims.broadcast(re.held, im.held)
    if re.held == im.held:
        result = _pair(ctx, eqn, ctx.value(re), ctx.value(im), held)
    else:
        result = _pair(ctx, eqn, ctx.full(re), ctx.full(im), re.shape)
    ctx.remember(result.value, "complex", re, (re, im))
    return result


def conjugate(ctx: Context, eqn: Any, x: Operand) -> Operand:
    """The complex conjugate."""
    signs = ctx.const(np.array([1, -1]), _real(x.dtype))
    return ctx.result(ctx.op("Mul", ctx.value(x), signs), eqn.aval, x.held)


def _real(dtype: Any) -> Any:
    return np.float32 if np.dtype(dtype) == np.complex64 else np.float64


def multiply(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    """(a+bi)(c+di)."""
    a, b, c, d = (_half(ctx, v, k) for v in (x, y) for k in (0, 1))
    re = ctx.op("Sub", ctx.op("Mul", a, c), ctx.op("Mul", b, d))
    im = ctx.op("Add", ctx.op("Mul", a, d), ctx.op("Mul", b, c))
    return _pair(ctx, eqn, re, im, dims.broadcast(x.held, y.held))


def divide(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    """(a+bi)/(c+di), the divisor scaled by its larger part so that squares do not overflow."""
    a, b, c, d = (_half(ctx, v, k) for v in (x, y) for k in (0, 1))
    scale = ctx.op("Max", ctx.op("Abs", c), ctx.op("Abs", d))
    c, d = ctx.op("Div", c, scale), ctx.op("Div", d, scale)
    norm = ctx.op("Mul", ctx.op("Add", ctx.op("Mul", c, c), ctx.op("Mul", d, d)), scale)
    re = ctx.op("Div", ctx.op("Add", ctx.op("Mul", a, c), ctx.op("Mul", b, d)), norm)
    im = ctx.op("Div", ctx.op("Sub", ctx.op("Mul", b, c), ctx.op("Mul", a, d)), norm)
    return _pair(ctx, eqn, re, im, dims.broadcast(x.held, y.held))


def modulus(ctx: Context, eqn: Any, x: Operand) -> Operand:
    """|a+bi|, the parts scaled by the larger one so that squares neither overflow nor vanish."""
    parts, limits = ctx.op("Abs", ctx.value(x)), np.finfo(_real(x.dtype))
    scale = ctx.op("ReduceMax", parts, ctx.ints(-1), keepdims=1, typed=(0,))
    scale = ctx.op("Clip", scale, ctx.const(limits.tiny), ctx.const(limits.max))
    size = ctx.op("ReduceL2", ctx.op("Div", parts, scale), ctx.ints(-1), keepdims=1, typed=(0,))
    value = ctx.op("Squeeze", ctx.op("Mul", size, scale), ctx.ints(-1), typed=(0,))
    return ctx.result(value, eqn.aval, x.held)


def equal(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    """Equality of both parts."""
    if eqn.primitive not in ("eq", "ne"):
        raise Refusal(f"{eqn.primitive} of complex numbers has no ONNX form here")
    re = ctx.op("Equal", _half(ctx, x, 0), _half(ctx, y, 0), to=_T.BOOL)
    im = ctx.op("Equal", _half(ctx, x, 1), _half(ctx, y, 1), to=_T.BOOL)
    return ctx.result(ctx.op("And", re, im), _bool(eqn.aval), dims.broadcast(x.held, y.held))


def _bool(aval: Any) -> Any:
    return aval.update(dtype=np.dtype(bool))


def extremum(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    """max and min order by the real part, then by the imaginary part."""
    sign = lax.gt if eqn.primitive == "max" else lax.lt

    def pick(a: Any, b: Any) -> Any:
        first = sign(lax.real(a), lax.real(b)) | ((lax.real(a) == lax.real(b)) & sign(lax.imag(a), lax.imag(b)))
        return jnp.where(first, a, b)

    return ctx.trace_and_lower(pick, x, y)[0]


def _exp(z: Any) -> Any:
    size = lax.exp(lax.real(z))
    return lax.complex(size * lax.cos(lax.imag(z)), size * lax.sin(lax.imag(z)))


def _log(z: Any) -> Any:
    return lax.complex(lax.log(lax.abs(z)), lax.atan2(lax.imag(z), lax.real(z)))


def _sqrt(z: Any) -> Any:
    size = lax.abs(z)
    re = lax.sqrt((size + lax.abs(lax.real(z))) * 0.5)
    other = jnp.where(re == 0, re, lax.abs(lax.imag(z)) / (2 * jnp.where(re == 0, lax.full_like(re, 1), re)))
    left = lax.real(z) < 0
    sign = jnp.where(lax.imag(z) < 0, -1, 1).astype(re.dtype)
    return lax.complex(jnp.where(left, other, re), sign * jnp.where(left, re, other))


def _sin(z: Any) -> Any:
    x, y = lax.real(z), lax.imag(z)
    return lax.complex(lax.sin(x) * lax.cosh(y), lax.cos(x) * lax.sinh(y))


def _cos(z: Any) -> Any:
    x, y = lax.real(z), lax.imag(z)
    return lax.complex(lax.cos(x) * lax.cosh(y), -lax.sin(x) * lax.sinh(y))


def _tanh(z: Any) -> Any:
    t, u = lax.tanh(lax.real(z)), lax.tan(lax.imag(z))
    return lax.complex(t, u) / lax.complex(lax.full_like(t, 1), t * u)


def _rotate(z: Any) -> Any:
    return lax.complex(-lax.imag(z), lax.real(z))


def _log1p(z: Any) -> Any:
    x, y = lax.real(z), lax.imag(z)
    return lax.complex(0.5 * lax.log1p(x * (2 + x) + y * y), lax.atan2(y, 1 + x))


def _asinh(z: Any) -> Any:
    """Odd, so that the logarithm is taken where nothing cancels."""
    left = (lax.real(z) < 0) | ((lax.real(z) == 0) & (lax.imag(z) < 0))
    right = jnp.where(left, -z, z)
    value = _log1p(right + right * right / (1 + _sqrt(1 + right * right)))
    return jnp.where(left, -value, value)


def _acosh(z: Any) -> Any:
    return _log(z + _sqrt(z + 1) * _sqrt(z - 1))


def _atanh(z: Any) -> Any:
    return 0.5 * (_log1p(z) - _log1p(-z))


def _turned_back(function: Any) -> Any:
    """``-i f(iz)``: asin from asinh, atan from atanh."""

    def of(z: Any) -> Any:
        value = function(_rotate(z))
        return lax.complex(lax.imag(value), -lax.real(value))

    return of


def _sign(z: Any) -> Any:
    size = lax.abs(z)
    return jnp.where(size == 0, 0, z / jnp.where(size == 0, 1, size))


#: Primitive -> plain JAX form on complex arrays.
FUNCTIONS: dict[str, Any] = {
    "exp": _exp,
    "log": _log,
    "sqrt": _sqrt,
    "sin": _sin,
    "cos": _cos,
    "tan": lambda z: _sin(z) / _cos(z),
    "tanh": _tanh,
    "sinh": lambda z: lax.complex(
        lax.sinh(lax.real(z)) * lax.cos(lax.imag(z)), lax.cosh(lax.real(z)) * lax.sin(lax.imag(z))
    ),
    "cosh": lambda z: lax.complex(
        lax.cosh(lax.real(z)) * lax.cos(lax.imag(z)), lax.sinh(lax.real(z)) * lax.sin(lax.imag(z))
    ),
    "asinh": _asinh,
    "acosh": _acosh,
    "atanh": _atanh,
    "asin": _turned_back(_asinh),
    "acos": lambda z: math.pi / 2 - _turned_back(_asinh)(z),
    "atan": _turned_back(_atanh),
    "sign": _sign,
    "rsqrt": lambda z: 1 / _sqrt(z),
    "logistic": lambda z: 1 / (1 + _exp(-z)),
}
