"""Reinterpreting bits between types that are carried in others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import numbers
from .carriers import carrier_dtype, kind_of


class NoBits(Exception):
    """A type's bits are not at hand; the message says which."""


def _width(dtype: Any) -> int:
    return 8 if dtype == np.bool_ else int(jnp.finfo(dtype).bits if _is_float(dtype) else jnp.iinfo(dtype).bits)


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def why_no_bits(source: Any, target: Any) -> str | None:
    """Why bits of one type cannot be read as the other, or None."""
    for dtype in (source, target):
        if _is_float(dtype) and np.dtype(dtype).name not in ("float32", "bfloat16", "float16"):
            return f"{np.dtype(dtype).name} is computed in float32, which has other bits"
        if _width(dtype) not in (8, 16, 32, 64):
            return f"{np.dtype(dtype).name} has a width that TFLite does not store"
    if 64 in (_width(source), _width(target)) and min(_width(source), _width(target)) < 32:
        return "parts of 64-bit integers narrower than 32 bits are not supported"
    return None


def bitcast(x: jax.Array, source: Any, target: Any) -> jax.Array:
    """The carrier of the bits of ``x``, which carries a ``source``, read as ``target``."""
    words, wanted = _to_word(x, source), _width(target)
    have = _width(source)
    if have == 64 or wanted == 64:
        words = lax.bitcast_convert_type(words, np.int64 if wanted == 64 else np.int32)
    elif have > wanted:
        words = _split(words, have, wanted)
    elif have < wanted:
        words = _joined(words, have)
    return _from_word(words, target)


def _to_word(x: jax.Array, dtype: Any) -> jax.Array:
    """The bits as a non-negative number in int32, or all of an int32 or int64."""
    if dtype == np.float32:
        return lax.bitcast_convert_type(x, np.int32)
    if dtype == jnp.bfloat16:
        return lax.shift_right_logical(lax.bitcast_convert_type(x, np.int32), jnp.int32(16))
    if dtype == np.float16:
        return _half_bits(x)
    if kind_of(dtype) == "narrow":
        return numbers.wrapped(x, jnp.dtype(f"uint{_width(dtype)}"))
    return x


def _from_word(words: jax.Array, dtype: Any) -> jax.Array:
    if dtype == np.float32:
        return lax.bitcast_convert_type(words, np.float32)
    if dtype == jnp.bfloat16:
        return lax.bitcast_convert_type(words * jnp.int32(1 << 16), np.float32)
    if dtype == np.float16:
        return _half_from_bits(words)
    if kind_of(dtype) == "narrow":
        return numbers.wrapped(words, dtype)
    return words.astype(carrier_dtype(dtype))


def _split(words: jax.Array, have: int, wanted: int) -> jax.Array:
    unsigned = jnp.dtype(f"uint{wanted}")
    parts = [lax.shift_right_logical(words, jnp.int32(k)) for k in range(0, have, wanted)]
    return jnp.stack([numbers.wrapped(part, unsigned) for part in parts], axis=-1)


def _joined(words: jax.Array, have: int) -> jax.Array:
    total = words[..., 0]
    for k in range(1, words.shape[-1]):
        total = total + words[..., k] * numbers.constant(words, np.int64(1 << (have * k)).astype(np.int32))
    return total


def _half_from_bits(words: jax.Array) -> jax.Array:
    """float32 of the bits of a float16."""
    sign = jnp.where(words >= 1 << 15, np.float32(-1), np.float32(1))
    size = jnp.where(words >= 1 << 15, words - (1 << 15), words)
    normal = lax.bitcast_convert_type(size * (1 << 13) + (112 << 23), np.float32)
    subnormal = size.astype(np.float32) * np.float32(2.0**-24)
    special = jnp.where(size == 31 << 10, np.float32(np.inf), np.float32(np.nan))
    value = jnp.where(size < 1 << 10, subnormal, jnp.where(size >= 31 << 10, special, normal))
    return sign * value


def _half_bits(x: jax.Array) -> jax.Array:
    """The bits of the float16 that a float32 carries."""
    bits = lax.bitcast_convert_type(x, np.int32)
    negative = bits < 0
    size = jnp.where(negative, bits + jnp.int32(-(2**31)), bits)
    magnitude = lax.bitcast_convert_type(size, np.float32)
    normal = lax.shift_right_logical(size - (112 << 23), jnp.int32(13))
    subnormal = jnp.round(magnitude * np.float32(2.0**24)).astype(np.int32)
    special = jnp.where(x != x, np.int32(0x7E00), np.int32(31 << 10))
    half = jnp.where(magnitude < np.float32(2.0**-14), subnormal, jnp.where(magnitude > 65504, special, normal))
    return jnp.where((x != x), special, half) + jnp.where(negative, np.int32(1 << 15), np.int32(0))
