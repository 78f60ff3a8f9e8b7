"""Integers of other widths and signs, in int32 and int64 arithmetic; floats of other widths, in float32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .carriers import kind_of


def constant(x: jax.Array, value: Any) -> jax.Array:
    """A scalar of the element type of ``x``."""
    return jnp.asarray(np.asarray(value).astype(x.dtype))


def smallest(x: jax.Array) -> jax.Array:
    """The smallest signed integer of the type of ``x``: the sign bit."""
    return constant(x, np.iinfo(x.dtype).min)


def flipped(x: jax.Array) -> jax.Array:
    """The sign bit inverted: signed order is then the order of what were unsigned bits, and the other way round."""
    return x + smallest(x)


def wrapped(x: jax.Array, dtype: Any) -> jax.Array:
    """int32 modulo the width of a narrower integer type."""
    if np.dtype(dtype).name in ("int8", "uint8", "int16", "uint16"):
        return x.astype(dtype).astype(np.int32)
    bits = jnp.iinfo(dtype).bits
    up = x * constant(x, 1 << (32 - bits))
    shift = lax.shift_right_arithmetic if jnp.issubdtype(dtype, jnp.signedinteger) else lax.shift_right_logical
    return shift(up, constant(x, 32 - bits))


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """float32 rounded to a shorter float type; unchanged for a longer one."""
    if dtype == np.float16:  # TFLite's CAST rounds to it
        return x.astype(dtype).astype(np.float32)
    info = jnp.finfo(dtype)
    if info.bits >= 32:
        return x
    return lax.reduce_precision(x, int(info.nexp), int(info.nmant))


def as_float(x: jax.Array, dtype: Any) -> jax.Array:
    """float32 of the number that ``x`` carries for ``dtype``."""
    if kind_of(dtype) != "unsigned":
        return x.astype(np.float32)
    if dtype == np.uint32:
        return lax.bitcast_convert_type(x, np.uint32).astype(np.float32)
    return jnp.where(x < 0, x.astype(np.float32) + np.float32(2**64), x.astype(np.float32))


def saturated(x: jax.Array, dtype: Any) -> jax.Array:
    """float32 to the carrier of an integer type, as XLA converts: towards zero, limited to the range, NaN to 0."""
    if kind_of(dtype) == "narrow":
        info = jnp.iinfo(dtype)
        limited = jnp.clip(x, np.float32(info.min), np.float32(info.max))
        return jnp.where(x != x, np.float32(0), limited).astype(np.int32)
    if dtype == np.uint32:
        half = np.float32(2**31)
        low = jnp.clip(x, np.float32(0), np.float32(2**31 - 128)).astype(np.int32)
        high = flipped(jnp.clip(x - half, np.float32(0), np.float32(2**31 - 128)).astype(np.int32))
        number = jnp.where(x >= half, high, low)
        return jnp.where(x >= np.float32(2**32), constant(number, -1), jnp.where(x != x, 0, number))
    if dtype == np.uint64:
        half = np.float32(2**63)
        low = jnp.clip(x, np.float32(0), np.float32(2**63 - 2**39)).astype(np.int64)
        high = flipped(jnp.clip(x - half, np.float32(0), np.float32(2**63 - 2**39)).astype(np.int64))
        number = jnp.where(x >= half, high, low)
        return jnp.where(x >= np.float32(2**64), constant(number, -1), jnp.where(x != x, 0, number))
    return x.astype(dtype)


def converted(x: jax.Array, source: Any, target: Any) -> jax.Array:
    """The carrier of a number of type ``target``, from that of one of type ``source``."""
    if jnp.issubdtype(target, jnp.floating):
        number = as_float(x, source)
        return number if source == target else rounded(number, target)
    if target == np.bool_:
        return x != constant(x, 0)
    if jnp.issubdtype(source, jnp.floating):
        return saturated(x, target)
    if source == np.uint32 and np.dtype(target).itemsize == 8:
        return lax.bitcast_convert_type(x, np.uint32).astype(np.int64)
    wide = x.astype(np.int64 if np.dtype(target).itemsize == 8 else np.int32)
    return wrapped(wide, target) if kind_of(target) == "narrow" else wide


def divided(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Quotient and remainder of unsigned integers given as signed ones of the same bits; by 0: all ones, and x.

    Half the dividend is divided, which is not negative, and the last bit is settled by a comparison.
    """
    one, zero = constant(x, 1), constant(x, 0)
    large = y < zero  # at least 2**(n-1): the quotient is 0 or 1
    divisor = jnp.where(large | (y == zero), one, y)
    quotient = lax.div(lax.shift_right_logical(x, one), divisor) * constant(x, 2)
    rest = x - quotient * divisor
    more = flipped(rest) >= flipped(divisor)
    quotient, rest = jnp.where(more, quotient + one, quotient), jnp.where(more, rest - divisor, rest)
    above = flipped(x) >= flipped(y)
    quotient = jnp.where(large, above.astype(x.dtype), quotient)
    rest = jnp.where(large, jnp.where(above, x - y, x), rest)
    none = y == zero
    return jnp.where(none, constant(x, -1), quotient), jnp.where(none, x, rest)
