"""Arithmetic that TFLite does otherwise than XLA, or not at every type."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ....core.node import Node
from .numbers import constant, smallest
from .rule import lowering, node_lowering

Array = jax.Array


def _is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def _cbrt(x: Array, **_: Any) -> Array:
    """The real cube root: POW of a negative base is NaN."""
    return lax.sign(x) * lax.pow(lax.abs(x), lax.full_like(x, 1 / 3))


def _remainder(x: Array, y: Array) -> Array:
    """Of truncated division: the sign is the dividend's, and that of FLOOR_MOD the divisor's."""
    return jnp.where(y == constant(y, 0), x, x - lax.div(x, y) * y)


def _float_remainder(x: Array, y: Array) -> Array:
    """FLOOR_MOD of magnitudes is exact, and has the sign of neither; an infinite divisor leaves the dividend."""
    size, divisor = lax.abs(x), lax.abs(y)
    infinite = divisor == np.float32(np.inf)
    rest = lax.rem(size, jnp.where(infinite, np.float32(1), divisor))
    rest = jnp.where(infinite & (size != np.float32(np.inf)), size, rest)
    return jnp.where(x < 0, -rest, rest)


def _why_not_remainder(node: Node) -> str | None:
    x, y = node.inputs
    if all(_is_not_negative(v) for v in (x, y)):
        return "neither operand is negative"
    return None


def _is_not_negative(value: Any) -> bool:
    """Whether a value is known not to be negative: a magnitude, or a constant."""
    if value.is_const:
        return bool((value.numpy() >= 0).all())
    node = value.producer
    if node is None:
        return False
    if node.name == "abs" and _is_float(value):
        return True
    if node.name in ("broadcast_in_dim", "reshape", "copy"):
        return _is_not_negative(node.inputs[0])
    return node.name == "select_n" and all(map(_is_not_negative, node.inputs[1:]))


def _integer_divide(x: Array, y: Array) -> Array:
    """int32: XLA's quotient by 0 is -1, and the smallest number over -1 is itself; the machine's division stops."""
    zero, one, minus = constant(y, 0), constant(y, 1), constant(y, -1)
    awkward = (y == zero) | ((y == minus) & (x == smallest(x)))
    quotient = lax.div(x, jnp.where(awkward, one, y))
    return jnp.where(y == zero, minus, quotient)


def _why_not_integer_divide(node: Node) -> str | None:
    x, y = node.inputs
    if x.dtype != np.int32:
        return f"it divides {x.dtype}"
    if y.is_const and not np.isin(y.numpy(), (0, -1)).any():
        return "the divisor is a constant that is harmless"
    if _is_guarded(y):
        return "the divisor is guarded already"
    return None


def _is_guarded(value: Any) -> bool:
    """Whether a divisor comes from a selection that replaced zeros by ones."""
    node = value.producer
    while node is not None and node.name == "reshape":
        node = node.inputs[0].producer
    if node is None or node.name != "select_n":
        return False
    return any(_holds_only(case, 1) for case in node.inputs[1:])


def _holds_only(value: Any, number: int) -> bool:
    if value.is_const:
        return bool((value.numpy() == number).all())
    node = value.producer
    return node is not None and node.name in ("broadcast_in_dim", "reshape") and _holds_only(node.inputs[0], number)


def _wide_divide(x: Array, y: Array) -> Array:
    """int64 through float32 quotients: each round leaves a remainder some 2**20 times smaller."""
    zero, one = constant(y, 0), constant(y, 1)
    negative = (x < zero) != (y < zero)
    lowest = smallest(x)
    dividend, divisor = _magnitude(x), _magnitude(jnp.where(y == zero, one, y))
    over = divisor < zero  # the smallest number: its quotient is 1 of itself, else 0
    divisor = jnp.where(over, one, divisor)
    halved = dividend < zero
    dividend = jnp.where(halved, constant(x, np.iinfo(np.int64).max), dividend)
    quotient, rest = lax.full_like(dividend, 0), dividend
    for _ in range(4):
        part = (rest.astype(np.float32) / divisor.astype(np.float32)).astype(np.int64)
        quotient, rest = quotient + part, rest - part * divisor
    for _ in range(2):
        low, high = rest < zero, rest >= divisor
        quotient = quotient + high.astype(x.dtype) - low.astype(x.dtype)
        rest = jnp.where(low, rest + divisor, jnp.where(high, rest - divisor, rest))
    quotient = jnp.where(halved & (rest + one == divisor), quotient + one, quotient)
    quotient = jnp.where(over, (x == lowest).astype(x.dtype), quotient)
    return jnp.where(y == zero, constant(x, -1), jnp.where(negative, -quotient, quotient))


def _magnitude(x: Array) -> Array:
    return jnp.where(x < constant(x, 0), -x, x)


def _why_not_int64(node: Node) -> str | None:
    return None if node.inputs[0].dtype == np.int64 else f"it takes {node.inputs[0].dtype}"


def _sign(x: Array) -> Array:
    return (x > constant(x, 0)).astype(x.dtype) - (x < constant(x, 0)).astype(x.dtype)


def _round(x: Array, *, rounding_method: Any) -> Array:
    """Halves away from zero."""
    whole = lax.floor(lax.abs(x))
    up = jnp.where(lax.abs(x) - whole >= np.float32(0.5), whole + 1, whole)
    return lax.sign(x) * up


def _why_not_round(node: Node) -> str | None:
    away = node.params["rounding_method"] == lax.RoundingMethod.AWAY_FROM_ZERO
    return None if away else "TFLite rounds halves to even too"


def _power_of_integers(x: Array, y: Array) -> Array:
    """By squaring, one bit of the exponent after the other; XLA takes no account of a negative exponent's sign."""
    result, square, rest = lax.full_like(x, 1), x, y
    two = constant(y, 2)
    for _ in range(np.iinfo(y.dtype).bits):
        half = lax.shift_right_logical(rest, constant(rest, 1))
        odd = rest != half * two
        result, square, rest = jnp.where(odd, result * square, result), square * square, half
    return result


def _float_power(x: Array, y: Array) -> Array:
    """XLA's results at the edges, for real exponents of any sign; an integer exponent is a number of this type."""
    y = y.astype(x.dtype)
    return lax.pow(x, y)


def _why_not_mixed_power(node: Node) -> str | None:
    x, y = node.inputs
    return None if _is_float(x) and not _is_float(y) else "its exponent has the base's type"


def _why_not_power_of_integers(node: Node) -> str | None:
    return "it is a power of floats" if _is_float(node.inputs[0]) else None


def _logical(node: Node, x: Array, y: Array) -> Array:
    """Order of booleans: false comes before true."""
    name = node.name
    if name in ("max", "min"):
        return x | y if name == "max" else x & y
    if name == "gt" or name == "le":
        more = x & ~y
        return more if name == "gt" else ~more
    less = ~x & y
    return less if name == "lt" else ~less


def _why_not_bool(node: Node) -> str | None:
    return None if node.inputs[0].dtype == np.bool_ else f"it takes {node.inputs[0].dtype}"


def _clamp_booleans(low: Array, x: Array, high: Array) -> Array:
    return (x | low) & high


def _clamp(low: Array, x: Array, high: Array) -> Array:
    """Where the bounds cross, XLA gives the upper one, and the converters' clamp the lower one."""
    return lax.min(lax.max(jnp.broadcast_to(low, x.shape), x), jnp.broadcast_to(high, x.shape))


def _why_not_clamp(node: Node) -> str | None:
    low, x, high = node.inputs
    if x.dtype == np.bool_:
        return "it takes booleans"
    if low.is_const and high.is_const and (low.numpy() <= high.numpy()).all():
        return "its bounds are constants that do not cross"
    return None


def _rsqrt(x: Array, **_: Any) -> Array:
    """The delegate's RSQRT of 0 is NaN; this way it is infinite."""
    return 1 / lax.sqrt(x)


def _why_not_rsqrt(node: Node) -> str | None:
    made_by = node.inputs[0].producer
    if made_by is not None and made_by.name == "add" and any(map(_is_positive, made_by.inputs)):
        return "its operand has a positive number added to it"
    return None


def _is_positive(value: Any) -> bool:
    if value.is_const:
        return bool((value.numpy() > 0).all())
    node = value.producer
    return node is not None and node.name in ("broadcast_in_dim", "reshape") and _is_positive(node.inputs[0])


def _why_not_float(node: Node) -> str | None:
    return None if _is_float(node.inputs[0]) else "it takes integers"


def _why_not_integer(node: Node) -> str | None:
    return "it takes floats" if _is_float(node.inputs[0]) else None


def _why_not_bool_at(node: Node, index: int) -> str | None:
    return None if node.inputs[index].dtype == np.bool_ else f"it takes {node.inputs[index].dtype}"


RULES = (
    lowering("cube-root", "cbrt", _cbrt, any_size=True),
    lowering(
        "float-remainder", "rem", _float_remainder, lambda n: _why_not_float(n) or _why_not_remainder(n), any_size=True
    ),
    lowering(
        "integer-remainder", "rem", _remainder, lambda n: _why_not_integer(n) or _why_not_remainder(n), any_size=True
    ),
    lowering("guarded-division", "div", _integer_divide, _why_not_integer_divide, "exact", any_size=True),
    lowering("wide-division", "div", _wide_divide, _why_not_int64, "exact", any_size=True),
    lowering("wide-magnitude", "abs", _magnitude, _why_not_int64, "exact", any_size=True),
    lowering("wide-sign", "sign", _sign, _why_not_int64, "exact", any_size=True),
    lowering("reciprocal-square-root", "rsqrt", _rsqrt, _why_not_rsqrt, any_size=True),
    lowering("round-away", "round", _round, _why_not_round, "exact", any_size=True),
    lowering("power-of-integers", "pow", _power_of_integers, _why_not_power_of_integers, "exact", any_size=True),
    lowering("power-to-integers", "pow", _float_power, _why_not_mixed_power, any_size=True),
    lowering("clamp-booleans", "clamp", _clamp_booleans, lambda n: _why_not_bool_at(n, 1), "exact", any_size=True),
    lowering("clamp-to-crossed-bounds", "clamp", _clamp, _why_not_clamp, "exact", any_size=True),
    node_lowering("order-of-booleans", "max min lt le gt ge", _logical, _why_not_bool, "exact", any_size=True),
)
