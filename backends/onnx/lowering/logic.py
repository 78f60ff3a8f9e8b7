"""Comparisons, logic, selection and shifts, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from .. import dims
from ..context import Context
from ..operand import Bounds, Operand, constant, is_bool, is_complex, is_float, is_unsigned
from ..registry import lowers
from . import bits
from .elementwise import both_bounds, emit, is_scalar

_T = ir.DataType

_COMPARISONS = {"lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal"}


@lowers("lt", "le", "gt", "ge", "eq")
def compare(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    if is_complex(x.dtype):
        from .complex import equal

        return equal(ctx, eqn, x, y)
    known = _decided(eqn.primitive, x, y)
    if known is not None:
        return constant(np.array(known), tuple(eqn.aval.shape))
    if is_bool(x.dtype) and eqn.primitive != "eq":
        value = ctx.op(
            _COMPARISONS[eqn.primitive], *(ctx.build.cast(ctx.value(v), _T.INT32) for v in (x, y)), to=_T.BOOL
        )
        return ctx.result(value, eqn.aval, dims.broadcast(x.held, y.held))
    result = emit(ctx, eqn, _COMPARISONS[eqn.primitive], x, y, to=_T.BOOL)
    return ctx.with_facts(result, compared=x) if eqn.primitive == "lt" and is_scalar(y, 0) else result


def _decided(name: str, x: Operand, y: Operand) -> bool | None:
    pair = both_bounds(x, y)
    if pair is None:
        return None
    (a, b), (c, d) = pair
    match name:
        case "lt":
            return True if b < c else False if a >= d else None
        case "le":
            return True if b <= c else False if a > d else None
        case "gt":
            return True if a > d else False if b <= c else None
        case "ge":
            return True if a >= d else False if b < c else None
    return False if b < c or d < a else None


@lowers("ne")
def not_equal(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    if is_complex(x.dtype):
        from .complex import equal

        same = equal(ctx, eqn, x, y)
        return ctx.result(ctx.op("Not", ctx.value(same)), eqn.aval, same.held)
    if is_bool(x.dtype):
        return emit(ctx, eqn, "Xor", x, y)
    if _same_variable(eqn) and is_float(x.dtype):
        return emit(ctx, eqn, "IsNaN", x, to=_T.BOOL)
    value = ctx.op("Not", ctx.op("Equal", ctx.value(x), ctx.value(y), to=_T.BOOL))
    return ctx.result(value, eqn.aval, dims.broadcast(x.held, y.held))


def _same_variable(eqn: Any) -> bool:
    return eqn.invars[0] is eqn.invars[1]


@lowers("and", "or", "xor")
def bitwise(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    name = {"and": "And", "or": "Or", "xor": "Xor"}[eqn.primitive]
    if not is_bool(x.dtype):
        bounds = None
        if eqn.primitive == "and":
            masks = [v.bounds for v in (x, y) if v.bounds is not None and v.bounds[0] >= 0]
            bounds = (0, min(b[1] for b in masks)) if masks else None
        return emit(ctx, eqn, f"Bitwise{name}", x, y, bounds=bounds)
    for a, b in ((x, y), (y, x)):
        if a.scalar is not None and eqn.primitive != "xor" and b.shape == tuple(eqn.aval.shape):
            if bool(a.scalar) == (eqn.primitive == "and"):
                return b
            return constant(np.array(a.scalar), tuple(eqn.aval.shape))
    return emit(ctx, eqn, name, x, y)


@lowers("not")
def invert(ctx: Context, eqn: Any, x: Operand) -> Operand:
    return emit(ctx, eqn, "Not" if is_bool(x.dtype) else "BitwiseNot", x)


@lowers("select_n")
def select_n(ctx: Context, eqn: Any, which: Operand, *cases: Operand) -> Operand:
    """The first case where ``which`` is 0 or False, the second where it is 1 or True, and so on."""
    if which.scalar is not None:
        chosen = cases[int(which.scalar)]
        if chosen.shape == tuple(eqn.aval.shape):
            return chosen
    if is_complex(eqn.aval.dtype) or ctx.inner(eqn.aval):
        return _select_pairs(ctx, eqn, which, cases)
    held = dims.broadcast(which.held, *(c.held for c in cases))
    bounds = _union(cases)
    if is_bool(which.dtype):
        picked = _select_bool(ctx, which, cases) if is_bool(eqn.aval.dtype) else None
        if picked is None:
            picked = ctx.op("Where", ctx.value(which), ctx.value(cases[1]), ctx.value(cases[0]), typed=(1, 2))
        result = ctx.result(picked, eqn.aval, held, bounds)
        return _wrapped(ctx, which, cases, result)
    value = ctx.value(cases[-1])
    for k in range(len(cases) - 2, -1, -1):
        here = ctx.op("LessOrEqual", ctx.value(which), ctx.const(k, which.dtype), to=_T.BOOL)
        value = ctx.op("Where", here, ctx.value(cases[k]), value, typed=(1, 2))
    return ctx.result(value, eqn.aval, held, bounds)


def _union(cases: tuple[Operand, ...]) -> Bounds | None:
    known = [c.bounds for c in cases if c.bounds is not None]
    if len(known) < len(cases) or is_bool(cases[0].dtype):
        return None
    return min(b[0] for b in known), max(b[1] for b in known)


def _select_bool(ctx: Context, which: Operand, cases: tuple[Operand, ...]) -> ir.Value | None:
    """Selection between booleans, one of them constant, as logic; there is no bool kernel of Where."""
    no, yes = cases
    if is_scalar(no, 0):
        return ctx.op("And", ctx.value(which), ctx.value(yes))
    if is_scalar(yes, 1):
        return ctx.op("Or", ctx.value(which), ctx.value(no))
    if is_scalar(yes, 0):
        return ctx.op("And", ctx.op("Not", ctx.value(which)), ctx.value(no))
    if is_scalar(no, 1):
        return ctx.op("Or", ctx.op("Not", ctx.value(which)), ctx.value(yes))
    return None


def _wrapped(ctx: Context, which: Operand, cases: tuple[Operand, ...], result: Operand) -> Operand:
    """Notes ``where(i < 0, i + n, i)``, the way JAX writes an index that may count from the end."""
    raw, shifted = which.compared, cases[1].shifted
    if raw is not None and shifted is not None and shifted[0] is raw and cases[0] is raw:
        return ctx.with_facts(result, wrapped=(raw, shifted[1]))
    return result


def _select_pairs(ctx: Context, eqn: Any, which: Operand, cases: tuple[Operand, ...]) -> Operand:
    """Selection between arrays whose storage has a trailing axis: the selector gets one of size one."""
    selector = ctx.unsqueezed(which)
    held = dims.broadcast(which.held, *(c.held for c in cases))
    value = ctx.value(cases[-1])
    if is_bool(which.dtype):
        value = ctx.op("Where", selector, value, ctx.value(cases[0]), typed=(1, 2))
        return ctx.result(value, eqn.aval, held)
    for k in range(len(cases) - 2, -1, -1):
        here = ctx.op("LessOrEqual", selector, ctx.const(k, which.dtype), to=_T.BOOL)
        value = ctx.op("Where", here, ctx.value(cases[k]), value, typed=(1, 2))
    return ctx.result(value, eqn.aval, held)


@lowers("shift_left", "shift_right_logical", "shift_right_arithmetic")
def shift(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    """Shifts; by at least the width they give 0, or the sign for the arithmetic one, as in XLA."""
    bits = np.dtype(x.dtype).itemsize * 8
    unsigned = ir.DataType.from_numpy(np.dtype(f"uint{bits}"))
    signed = ir.DataType.from_numpy(np.dtype(f"int{bits}"))
    small = y.bounds is not None and y.bounds[0] >= 0 and y.bounds[1] < bits
    held = dims.broadcast(x.held, y.held)
    if eqn.primitive == "shift_right_arithmetic":
        return ctx.result(_arithmetic(ctx, x, y, bits, small), eqn.aval, held)
    direction = "LEFT" if eqn.primitive == "shift_left" else "RIGHT"
    amount = ctx.build.cast(ctx.value(y), unsigned)
    value = ctx.op("BitShift", ctx.build.cast(ctx.value(x), unsigned), amount, direction=direction)
    if not small:
        inside = ctx.op("Less", amount, ctx.const(bits, unsigned.numpy()), to=_T.BOOL)
        value = ctx.op("Where", inside, value, ctx.const(0, unsigned.numpy()), typed=(1, 2))
    bounds = None
    if small and y.is_const and y.bounds is not None and direction == "RIGHT":
        bounds = (0, (2**bits - 1) >> y.bounds[0]) if y.bounds[0] or is_unsigned(x.dtype) else None
    return ctx.result(value if is_unsigned(x.dtype) else ctx.build.cast(value, signed), eqn.aval, held, bounds)


def _arithmetic(ctx: Context, x: Operand, y: Operand, bits: int, small: bool) -> ir.Value:
    """Arithmetic right shift: of ``~x`` where the highest bit is set, so that zeros come in, then back."""
    unsigned = ir.DataType.from_numpy(np.dtype(f"uint{bits}"))
    signed = ir.DataType.from_numpy(np.dtype(f"int{bits}"))
    value, amount = ctx.build.cast(ctx.value(x), signed), ctx.build.cast(ctx.value(y), unsigned)
    if not small:
        inside = ctx.op("Less", amount, ctx.const(bits, unsigned.numpy()), to=_T.BOOL)
        amount = ctx.op("Where", inside, amount, ctx.const(bits - 1, unsigned.numpy()), typed=(1, 2))
    negative = ctx.op("Less", value, ctx.const(0, signed.numpy()), to=_T.BOOL)
    magnitude = ctx.op("Where", negative, ctx.op("BitwiseNot", value), value, typed=(1, 2))
    moved = ctx.op("BitShift", ctx.build.cast(magnitude, unsigned), amount, direction="RIGHT")
    moved = ctx.build.cast(moved, signed)
    moved = ctx.op("Where", negative, ctx.op("BitwiseNot", moved), moved, typed=(1, 2))
    return ctx.build.cast(moved, ir.DataType.from_numpy(np.dtype(x.dtype)))


@lowers("is_finite")
def is_finite(ctx: Context, eqn: Any, x: Operand) -> Operand:
    value = ctx.value(x)
    bad = ctx.op("Or", ctx.op("IsInf", value, to=_T.BOOL), ctx.op("IsNaN", value, to=_T.BOOL))
    return ctx.result(ctx.op("Not", bad), eqn.aval, x.held)


@lowers("nextafter")
def nextafter(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    return ctx.trace_and_lower(bits.next_after, x, y)[0]


@lowers("lt_to", "le_to", "eq_to", note="every NaN counts as positive")
def total_order(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    """Comparison in the total order of floats: -0 before 0, NaN last."""
    function = {
        "lt_to": bits.before,
        "le_to": lambda a, b: ~bits.before(b, a),
        "eq_to": lambda a, b: ~(bits.before(a, b) | bits.before(b, a)),
    }[eqn.primitive]
    return ctx.trace_and_lower(function, x, y)[0]
