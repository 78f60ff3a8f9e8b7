"""Changes of element type."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
from jax import lax

from ..context import Context
from ..operand import Operand, inner_shape, is_bool, is_complex, is_float, is_integer, stored_type
from ..registry import Refusal, lowers

_T = ir.DataType


@lowers("convert_element_type")
def convert_element_type(ctx: Context, eqn: Any, x: Operand) -> Operand:
    new = eqn.aval.dtype
    if x.dtype == new:
        return x
    if is_complex(new):
        return _to_complex(ctx, eqn, x)
    if is_complex(x.dtype):
        from .complex import _half

        return ctx.result(_numeric(ctx, _half(ctx, x, 0), _part_dtype(x.dtype), new), eqn.aval, x.held)
    bounds = None
    if x.bounds is not None and is_integer(new):
        info = np.iinfo(np.dtype(new))
        bounds = x.bounds if info.min <= x.bounds[0] and x.bounds[1] <= info.max else None
    facts: dict[str, Any] = {}
    if bounds is not None or x.dim is not None:
        facts = {"iota": x.iota, "dim": x.dim if is_integer(new) else None}
        if x.wrapped is not None and is_integer(new):
            facts["wrapped"] = x.wrapped
    return ctx.result(_numeric(ctx, ctx.value(x), x.dtype, new), eqn.aval, x.held, bounds, **facts)


def _part_dtype(dtype: Any) -> Any:
    return np.float32 if np.dtype(dtype) == np.complex64 else np.float64


def _to_complex(ctx: Context, eqn: Any, x: Operand) -> Operand:
    new = eqn.aval.dtype
    if is_complex(x.dtype):
        return ctx.result(ctx.build.cast(ctx.value(x), stored_type(new)), eqn.aval, x.held)
    from .complex import join

    part = eqn.aval.update(dtype=np.dtype(_part_dtype(new)))
    real = ctx.result(_numeric(ctx, ctx.value(x), x.dtype, part.dtype), part, x.held)
    return join(ctx, eqn, real, None)


def _numeric(ctx: Context, value: ir.Value, old: Any, new: Any) -> ir.Value:
    """A cast with XLA's results: floats saturate when they become integers (NaN is 0), anything but 0 is True."""
    target = stored_type(new)
    if is_float(old) and is_integer(new):
        return _float_to_integer(ctx, value, old, new)
    if is_bool(new):
        if is_float(old) or is_integer(old):
            zero = ctx.const(np.zeros((), old))
            return ctx.op("Not", ctx.op("Equal", value, zero, to=_T.BOOL))
        return value
    if np.dtype(old).name.startswith("float8") or np.dtype(new).name.startswith("float8"):
        value = ctx.build.cast(value, _T.FLOAT)
    return ctx.build.cast(value, target)


def _float_to_integer(ctx: Context, value: ir.Value, old: Any, new: Any) -> ir.Value:
    """Saturating conversion; the range is applied where the cast itself would wrap or be undefined."""
    info = np.iinfo(np.dtype(new))
    if np.dtype(old).itemsize < 4:
        value, old = ctx.build.cast(value, _T.FLOAT), np.dtype(np.float32)
    target = stored_type(new)
    if info.bits < 32:
        value = ctx.op("Clip", value, ctx.const(info.min, old), ctx.const(info.max, old))
        return ctx.build.cast(ctx.build.cast(value, _T.INT32), target)
    beyond = ctx.op(
        "GreaterOrEqual", value, ctx.const(2.0**info.bits if info.min == 0 else -float(info.min), old), to=_T.BOOL
    )
    if info.min == 0:
        value = ctx.op("Relu", value)
        if info.bits == 32:
            value = ctx.build.cast(value, _T.INT64)
    return ctx.op("Where", beyond, ctx.const(info.max, new), ctx.build.cast(value, target), typed=(1, 2))


@lowers("bitcast_convert_type")
def bitcast_convert_type(ctx: Context, eqn: Any, x: Operand) -> Operand:
    old, new = x.dtype, eqn.aval.dtype
    if is_complex(old) or is_complex(new):
        raise Refusal("bitcasts of complex numbers have no ONNX form")
    if np.dtype(old).itemsize == np.dtype(new).itemsize:
        if is_integer(old) and is_integer(new):
            return ctx.result(ctx.build.cast(ctx.value(x), stored_type(new)), eqn.aval, x.held)
        value = ctx.op("BitCast", ctx.value(x), to=stored_type(new), cast_to=int(stored_type(new)), typed=())
        return ctx.result(value, eqn.aval, x.held)
    return _resizing_bitcast(ctx, eqn, x)


def _resizing_bitcast(ctx: Context, eqn: Any, x: Operand) -> Operand:
    """Bitcast between widths: words are split into, or joined from, a last axis of smaller words, lowest first."""
    old, new = np.dtype(x.dtype), np.dtype(eqn.aval.dtype)

    def split(a: Any) -> Any:
        word, part = jnp.dtype(f"uint{old.itemsize * 8}"), jnp.dtype(f"uint{new.itemsize * 8}")
        words = lax.bitcast_convert_type(a, word)
        shifts = [k * new.itemsize * 8 for k in range(old.itemsize // new.itemsize)]
        parts = [lax.shift_right_logical(words, jnp.asarray(s, word)).astype(part) for s in shifts]
        return lax.bitcast_convert_type(jnp.stack(parts, axis=-1), new)

    def join(a: Any) -> Any:
        word, part = jnp.dtype(f"uint{new.itemsize * 8}"), jnp.dtype(f"uint{old.itemsize * 8}")
        parts = lax.bitcast_convert_type(a, part).astype(word)
        total = parts[..., 0]
        for k in range(1, new.itemsize // old.itemsize):
            total = total | lax.shift_left(parts[..., k], jnp.asarray(k * old.itemsize * 8, word))
        return lax.bitcast_convert_type(total, new)

    return ctx.trace_and_lower(split if old.itemsize > new.itemsize else join, x)[0]


@lowers("random_wrap", "random_unwrap")
def rewrap(ctx: Context, eqn: Any, x: Operand) -> Operand:
    """Keys are stored as their words, so both directions only change the view."""
    full = ctx.full(x)
    if inner_shape(eqn.aval.dtype):
        return ctx.result(full, eqn.aval)
    return ctx.result(full, eqn.aval, tuple(eqn.aval.shape))
