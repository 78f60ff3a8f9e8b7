"""What looks at the bits of numbers: counts, neighbours, reduced precision, in plain JAX."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..registry import decomposes

Array = Any


def next_after(x: Array, y: Array) -> Array:
    """The neighbour of x towards y, by stepping the bit pattern."""
    bits = jnp.finfo(x.dtype).bits
    word = jnp.dtype(f"int{bits}")
    sign_bit = np.array(np.iinfo(word).min, word)
    pattern = lax.bitcast_convert_type(x, word)
    tiny = (lax.bitcast_convert_type(y, word) & sign_bit) | jnp.asarray(1, word)
    away = (y > x) == (x > 0)
    stepped = jnp.where(x == 0, tiny, jnp.where(away, pattern + 1, pattern - 1))
    result = jnp.where(x == y, y, lax.bitcast_convert_type(stepped, x.dtype))
    return jnp.where(jnp.isnan(x) | jnp.isnan(y), x + y, result)


def before(x: Array, y: Array) -> Array:
    """x < y in the total order; the sign of a zero shows in its reciprocal."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x < y
    return (x < y) | (jnp.isnan(y) & ~jnp.isnan(x)) | ((x == y) & (1 / x < 1 / y))


def population_count(x: Array) -> Array:
    """Number of set bits, by adding neighbouring fields."""
    bits = jnp.iinfo(x.dtype).bits
    word = jnp.dtype(f"uint{max(bits, 32)}")
    narrow = x if jnp.issubdtype(x.dtype, jnp.unsignedinteger) else x.astype(jnp.dtype(f"uint{bits}"))
    v = narrow.astype(word)

    def mask(field: int) -> Array:
        width = jnp.iinfo(word).bits
        pattern = sum(((1 << field) - 1) << k for k in range(0, width, 2 * field))
        return jnp.asarray(pattern, word)

    for field in (1, 2, 4, 8, 16, 32):
        if field < jnp.iinfo(word).bits:
            v = (v & mask(field)) + (lax.shift_right_logical(v, jnp.asarray(field, word)) & mask(field))
    return v.astype(x.dtype)


def leading_zeros(x: Array) -> Array:
    """Number of leading zero bits: those not set after the highest bit is smeared downwards."""
    bits = jnp.iinfo(x.dtype).bits
    narrow = jnp.dtype(f"uint{bits}")
    v = x.astype(narrow)
    step = 1
    while step < bits:
        v = v | lax.shift_right_logical(v, jnp.asarray(step, narrow))
        step *= 2
    return (jnp.asarray(bits, narrow) - population_count(v)).astype(x.dtype)


@decomposes("reduce_precision")
def reduce_precision(x: Array, *, exponent_bits: int, mantissa_bits: int) -> Array:
    """Rounds to a float format with fewer bits, to nearest even, as XLA does; out of range becomes infinite or 0."""
    info = jnp.finfo(x.dtype)
    word = jnp.dtype(f"uint{info.bits}")
    one = jnp.asarray(1, word)
    bits = lax.bitcast_convert_type(x, word)
    drop = info.nmant - mantissa_bits
    if drop > 0:
        shift = jnp.asarray(drop, word)
        odd = lax.shift_right_logical(bits, shift) & one
        bits = bits + odd + jnp.asarray((1 << (drop - 1)) - 1, word)
        bits = bits & ~jnp.asarray((1 << drop) - 1, word)
    result = lax.bitcast_convert_type(bits, x.dtype)
    if exponent_bits < info.nexp:
        bias = (1 << (exponent_bits - 1)) - 1
        largest = math.ldexp(2.0 - 2.0 ** -min(mantissa_bits, info.nmant), bias)
        smallest = math.ldexp(1.0, 1 - bias)
        result = jnp.where(lax.abs(result) > largest, lax.sign(x) * jnp.inf, result)
        result = jnp.where(lax.abs(result) < smallest, x * 0, result)
    return jnp.where(jnp.isnan(x), x, result)
