"""Bitwise operations. TFLite has XOR and RIGHT_SHIFT of int32; the rest is arithmetic on them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ....core.node import Node
from .numbers import constant
from .rule import lowering

Array = jax.Array


def _why_not_int32(node: Node) -> str | None:
    return None if node.inputs[0].dtype == np.int32 else f"it takes {node.inputs[0].dtype}"


def _why_not_int64(node: Node) -> str | None:
    return None if node.inputs[0].dtype == np.int64 else f"it takes {node.inputs[0].dtype}"


def _why_not_float32(node: Node) -> str | None:
    return None if node.inputs[0].dtype == np.float32 else f"it takes {node.inputs[0].dtype}"


def _why_not_bool(node: Node) -> str | None:
    return None if node.inputs[0].dtype == np.bool_ else f"it takes {node.inputs[0].dtype}"


def _half(x: Array) -> Array:
    return lax.shift_right_arithmetic(x, constant(x, 1))


def _and(x: Array, y: Array) -> Array:
    """x + y counts common bits twice and others once, so it is twice ``x & y`` more than ``x ^ y``.

    Without their last bits, x and y do not overflow; those bits are multiplied.
    """
    two = constant(x, 2)
    upper_x, upper_y = _half(x), _half(y)
    upper = _half(upper_x + upper_y - lax.bitwise_xor(upper_x, upper_y))
    last = (x - upper_x * two) * (y - upper_y * two)
    return upper * two + last


def _or(x: Array, y: Array) -> Array:
    return x + y - lax.bitwise_and(x, y)


def _and_with_mask(node: Node) -> str | None:
    reason = _why_not_int32(node)
    if reason is not None:
        return reason
    mask = _mask_bits(node)
    return None if mask is not None else "no operand is a constant of low ones"


def _mask_bits(node: Node) -> int | None:
    """How many low bits a constant operand keeps, where that is all it does."""
    for value in node.inputs:
        number = _scalar(value)
        if number is not None and number > 0 and number & (number + 1) == 0:
            return number.bit_length()
    return None


def _scalar(value: Any) -> int | None:
    """The number behind a constant of equal elements."""
    node = value.producer
    while node is not None and node.name in ("broadcast_in_dim", "reshape"):
        value = node.inputs[0]
        node = value.producer
    if not value.is_const or not value.numpy().size:
        return None
    array = value.numpy().reshape(-1)
    return int(array[0]) if (array == array[0]).all() else None


def _is_in_range(amount: Array, bits: int) -> Array:
    return (amount >= constant(amount, 0)) & (amount < constant(amount, bits))


_POWERS = np.array([np.int64(1 << k).astype(np.int32) for k in range(31)] + [np.iinfo(np.int32).min], np.int32)


def _power_of_two(amount: Array) -> Array:
    """2**amount for amounts in 0..31, as int32: repeated squaring over the bits of the amount."""
    result, rest = lax.full_like(amount, 1), amount
    for factor in (2, 4, 16, 256, 65536):
        half = _half(rest)
        odd = rest - half * constant(rest, 2)
        result = result * (odd * constant(rest, factor - 1) + constant(rest, 1))
        rest = half
    return result


def _shift_left(x: Array, amount: Array) -> Array:
    """A product; by the width or more, or by a negative amount, nothing is left."""
    inside = _is_in_range(amount, 32)
    factor = _power_of_two(jnp.where(inside, amount, constant(amount, 0)))
    return jnp.where(inside, x * factor, constant(x, 0))


def _shift_right_arithmetic(x: Array, amount: Array) -> Array:
    """Amounts outside of the width leave copies of the sign."""
    return lax.shift_right_arithmetic(x, jnp.where(_is_in_range(amount, 32), amount, constant(amount, 31)))


def _shift_right_logical(x: Array, amount: Array) -> Array:
    """One bit first, after which the number is not negative, and RIGHT_SHIFT brings in zeros."""
    one, zero = constant(x, 1), constant(x, 0)
    inside = _is_in_range(amount, 32)
    safe = jnp.where(inside, amount, zero)
    highest = constant(x, np.iinfo(np.int32).min)
    once = jnp.where(x < zero, _half(x) - highest, _half(x))  # the copied sign bit is taken off again
    moved = lax.shift_right_arithmetic(once, jnp.maximum(safe - one, zero))
    return jnp.where(inside, jnp.where(safe == zero, x, moved), zero)


def _why_not_shift_right(node: Node) -> str | None:
    reason = _why_not_int32(node)
    if reason is not None:
        return reason
    amount = node.inputs[1]
    if _is_safe_amount(amount):
        return "its amount is less than the width"
    return None


def _is_safe_amount(value: Any) -> bool:
    """Whether a shift's amount is known to be within the width: what the rules here build is."""
    number = _scalar(value)
    if number is not None:
        return 0 <= number < 32
    if value.is_const:
        return bool(((value.numpy() >= 0) & (value.numpy() < 32)).all())
    node = value.producer
    if node is None:
        return False
    if node.name == "select_n":
        return any(map(_is_safe_amount, node.inputs[1:]))
    return node.name == "max" and any(v.producer is not None and v.producer.name == "sub" for v in node.inputs)


def _population_count(x: Array) -> Array:
    """Neighbouring fields are added, in ever wider words (Warren, Hacker's Delight, 5-1)."""

    def fields(value: Array, width: int, mask: int) -> Array:
        return lax.bitwise_and(value, constant(value, np.int64(mask).astype(np.int32)))

    value = x - fields(lax.shift_right_logical(x, constant(x, 1)), 1, 0x55555555)
    value = fields(value, 2, 0x33333333) + fields(lax.shift_right_logical(value, constant(x, 2)), 2, 0x33333333)
    value = fields(value + lax.shift_right_logical(value, constant(x, 4)), 4, 0x0F0F0F0F)
    return lax.shift_right_logical(value * constant(x, 0x01010101), constant(x, 24))


def _leading_zeros(x: Array) -> Array:
    """By halving: where the upper half is empty, its width is counted and the lower half takes its place."""
    zero = constant(x, 0)
    rest, count = x, lax.full_like(x, 0)
    for width in (16, 8, 4, 2, 1):
        empty = lax.shift_right_logical(rest, constant(x, 32 - width)) == zero
        count = count + jnp.where(empty, constant(x, width), zero)
        rest = jnp.where(empty, rest * constant(x, 1 << width), rest)
    return jnp.where(x == zero, constant(x, 32), count)


# -- int64, as two int32 words ---------------------------------------------------------------------------------------


def _words(x: Array) -> tuple[Array, Array]:
    """The low and the high word."""
    pair = lax.bitcast_convert_type(x, np.int32)
    return pair[..., 0], pair[..., 1]


def _joined(low: Array, high: Array) -> Array:
    return lax.bitcast_convert_type(jnp.stack([low, high], axis=-1), np.int64)


def _wordwise(function: Any) -> Any:
    def apply(*arrays: Array) -> Array:
        halves = [_words(x) for x in arrays]
        return _joined(function(*(low for low, _ in halves)), function(*(high for _, high in halves)))

    return apply


def _wide_shift_left(x: Array, amount: Array) -> Array:
    low, high = _words(x)
    inside = _is_in_range(amount, 64)
    by = jnp.where(inside, amount, constant(amount, 0)).astype(np.int32)
    over = by >= 32
    near = jnp.where(over, by - 32, by)
    carried = lax.shift_right_logical(low, 32 - near)
    moved_low, moved_high = lax.shift_left(low, near), lax.shift_left(high, near) + carried
    result = _joined(jnp.where(over, 0, moved_low), jnp.where(over, moved_low, moved_high))
    return jnp.where(inside, result, constant(x, 0))


def _wide_shift_right(x: Array, amount: Array, arithmetic: bool) -> Array:
    low, high = _words(x)
    shift = lax.shift_right_arithmetic if arithmetic else lax.shift_right_logical
    inside = _is_in_range(amount, 64)
    by = jnp.where(inside, amount, constant(amount, 0)).astype(np.int32)
    over = by >= 32
    near = jnp.where(over, by - 32, by)
    fill = shift(high, lax.full_like(high, 31)) if arithmetic else lax.full_like(high, 0)
    carried = lax.shift_left(high, 32 - near)
    moved_low, moved_high = lax.shift_right_logical(low, near) + carried, shift(high, near)
    result = _joined(jnp.where(over, moved_high, moved_low), jnp.where(over, fill, moved_high))
    return jnp.where(inside, result, _joined(fill, fill))


def _wide_shift_right_arithmetic(x: Array, amount: Array) -> Array:
    return _wide_shift_right(x, amount, True)


def _wide_shift_right_logical(x: Array, amount: Array) -> Array:
    return _wide_shift_right(x, amount, False)


def _wide_population_count(x: Array) -> Array:
    low, high = _words(x)
    return (lax.population_count(low) + lax.population_count(high)).astype(np.int64)


def _wide_leading_zeros(x: Array) -> Array:
    low, high = _words(x)
    return jnp.where(high == 0, 32 + lax.clz(low), lax.clz(high)).astype(np.int64)


def _different(x: Array, y: Array) -> Array:
    return x != y


# -- bits of floats --------------------------------------------------------------------------------------------------


def _next_after(x: Array, y: Array) -> Array:
    """One step in the order of the bits, towards y; subnormal numbers count as 0, as in XLA on a CPU."""
    bits = lax.bitcast_convert_type(x, np.int32)
    away = (y > x) == (x > 0)
    stepped = lax.bitcast_convert_type(bits + jnp.where(away, np.int32(1), np.int32(-1)), np.float32)
    tiny = lax.bitcast_convert_type(jnp.where(y > 0, np.int32(1), np.int32(np.iinfo(np.int32).min + 1)), np.float32)
    result = jnp.where(x == y, y, jnp.where(x == 0, tiny, stepped))
    return jnp.where((x != x) | (y != y), np.float32(np.nan), result)


def _reduce_precision(x: Array, *, exponent_bits: int, mantissa_bits: int) -> Array:
    """Rounds the bits to nearest even; what is out of range becomes infinite or 0."""
    value = x
    drop = 23 - mantissa_bits
    if drop > 0:
        bits = lax.bitcast_convert_type(x, np.int32)
        kept = lax.shift_right_arithmetic(bits, jnp.int32(drop))
        odd = kept - _half(kept) * 2
        up = lax.shift_right_arithmetic(bits + (odd + np.int32((1 << (drop - 1)) - 1)), jnp.int32(drop))
        value = lax.bitcast_convert_type(up * np.int32(1 << drop), np.float32)
    if exponent_bits < 8:
        bias = (1 << (exponent_bits - 1)) - 1
        largest = np.float32((2.0 - 2.0 ** -min(mantissa_bits, 23)) * 2.0**bias)
        smallest = np.float32(2.0 ** (1 - bias))
        value = jnp.where(lax.abs(value) > largest, lax.sign(value) * np.float32(np.inf), value)
        value = jnp.where(lax.abs(value) < smallest, value * 0, value)
    return jnp.where(x != x, x, value)


RULES = (
    lowering("and", "and", _and, _why_not_int32, "exact", any_size=True),
    lowering("or", "or", _or, _why_not_int32, "exact", any_size=True),
    lowering("shift-left", "shift_left", _shift_left, _why_not_int32, "exact", any_size=True),
    lowering(
        "shift-right", "shift_right_arithmetic", _shift_right_arithmetic, _why_not_shift_right, "exact", any_size=True
    ),
    lowering("shift-right-zeros", "shift_right_logical", _shift_right_logical, _why_not_int32, "exact", any_size=True),
    lowering("population-count", "population_count", _population_count, _why_not_int32, "exact", any_size=True),
    lowering("leading-zeros", "clz", _leading_zeros, _why_not_int32, "exact", any_size=True),
    lowering("wide-and", "and", _wordwise(lax.bitwise_and), _why_not_int64, "exact", any_size=True),
    lowering("wide-or", "or", _wordwise(lax.bitwise_or), _why_not_int64, "exact", any_size=True),
    lowering("wide-xor", "xor", _wordwise(lax.bitwise_xor), _why_not_int64, "exact", any_size=True),
    lowering("wide-not", "not", _wordwise(lax.bitwise_not), _why_not_int64, "exact", any_size=True),
    lowering("wide-shift-left", "shift_left", _wide_shift_left, _why_not_int64, "exact", any_size=True),
    lowering(
        "wide-shift-right",
        "shift_right_arithmetic",
        _wide_shift_right_arithmetic,
        _why_not_int64,
        "exact",
        any_size=True,
    ),
    lowering(
        "wide-shift-right-zeros",
        "shift_right_logical",
        _wide_shift_right_logical,
        _why_not_int64,
        "exact",
        any_size=True,
    ),
    lowering(
        "wide-population-count", "population_count", _wide_population_count, _why_not_int64, "exact", any_size=True
    ),
    lowering("wide-leading-zeros", "clz", _wide_leading_zeros, _why_not_int64, "exact", any_size=True),
    lowering("exclusive-or-of-booleans", "xor", _different, _why_not_bool, "exact", any_size=True),
    lowering("next-after", "nextafter", _next_after, _why_not_float32, "exact", any_size=True),
    lowering("reduce-precision", "reduce_precision", _reduce_precision, None, "exact", any_size=True),
)
