"""Functions of complex numbers, in real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array


def _exp(z: Array, **_: Any) -> Array:
    size = lax.exp(lax.real(z))
    return lax.complex(size * lax.cos(lax.imag(z)), size * lax.sin(lax.imag(z)))


def _expm1(z: Array, **_: Any) -> Array:
    """Without cancellation: exp(x) cos(y) - 1 = expm1(x) cos(y) - 2 sin(y/2)**2."""
    x, y = lax.real(z), lax.imag(z)
    half = lax.sin(0.5 * y)
    return lax.complex(lax.expm1(x) * lax.cos(y) - 2 * half * half, lax.exp(x) * lax.sin(y))


def _log(z: Array, **_: Any) -> Array:
    return lax.complex(lax.log(lax.abs(z)), lax.atan2(lax.imag(z), lax.real(z)))


def _log1p(z: Array, **_: Any) -> Array:
    x, y = lax.real(z), lax.imag(z)
    return lax.complex(0.5 * lax.log1p(x * (2 + x) + y * y), lax.atan2(y, 1 + x))


def _sqrt(z: Array, **_: Any) -> Array:
    size = lax.abs(z)
    re = lax.sqrt((size + lax.abs(lax.real(z))) * 0.5)
    divisor = jnp.where(re == 0, 1, 2 * re)
    other = lax.abs(lax.imag(z)) / divisor
    left = lax.real(z) < 0
    sign = jnp.where(lax.imag(z) < 0, -1, 1).astype(re.dtype)
    return lax.complex(jnp.where(left, other, re), sign * jnp.where(left, re, other))


def _rsqrt(z: Array, **_: Any) -> Array:
    return lax.full_like(z, 1) / _sqrt(z)


def _sin(z: Array, **_: Any) -> Array:
    x, y = lax.real(z), lax.imag(z)
    return lax.complex(lax.sin(x) * lax.cosh(y), lax.cos(x) * lax.sinh(y))


def _cos(z: Array, **_: Any) -> Array:
    x, y = lax.real(z), lax.imag(z)
    return lax.complex(lax.cos(x) * lax.cosh(y), -lax.sin(x) * lax.sinh(y))


def _tan(z: Array, **_: Any) -> Array:
    return _sin(z) / _cos(z)


def _sinh(z: Array, **_: Any) -> Array:
    x, y = lax.real(z), lax.imag(z)
    return lax.complex(lax.sinh(x) * lax.cos(y), lax.cosh(x) * lax.sin(y))


def _cosh(z: Array, **_: Any) -> Array:
    x, y = lax.real(z), lax.imag(z)
    return lax.complex(lax.cosh(x) * lax.cos(y), lax.sinh(x) * lax.sin(y))


def _tanh(z: Array, **_: Any) -> Array:
    """(tanh x + i tan y) / (1 + i tanh x tan y)."""
    t, u = lax.tanh(lax.real(z)), lax.tan(lax.imag(z))
    return lax.complex(t, u) / lax.complex(lax.full_like(t, 1), t * u)


def _logistic(z: Array, **_: Any) -> Array:
    one = lax.full_like(z, 1)
    return one / (one + _exp(-z))


def _power(x: Array, y: Array, **_: Any) -> Array:
    """Through the logarithm; 0**0 is 1."""
    y = y.astype(x.dtype)
    one, zero = lax.full_like(x, 1), lax.full_like(x, 0)
    value = _exp(y * _log(jnp.where(x == zero, one, x)))
    return jnp.where(x == zero, jnp.where(y == zero, one, zero), value)


def _integer_power(x: Array, *, y: int, **_: Any) -> Array:
    """Repeated squaring."""
    if y < 0:
        return lax.full_like(x, 1) / _integer_power(x, y=-y)
    result, square = None, x
    while y:
        if y & 1:
            result = square if result is None else result * square
        y >>= 1
        square = square * square if y else square
    return lax.full_like(x, 1) if result is None else result


def _cumulative_product(z: Array, *, axis: int, reverse: bool) -> Array:
    result: Array = lax.associative_scan(lax.mul, z, reverse=reverse, axis=axis)
    return result


def _sort(*operands: Array, num_keys: int, **params: Any) -> list[Array]:
    """By the real parts, then by the imaginary ones: each complex operand is two."""
    apart = [[lax.real(x), lax.imag(x)] if jnp.iscomplexobj(x) else [x] for x in operands]
    keys = sum(map(len, apart[:num_keys]))
    ordered = iter(lax.sort([part for parts in apart for part in parts], num_keys=keys, **params))
    return [lax.complex(next(ordered), next(ordered)) if len(parts) == 2 else next(ordered) for parts in apart]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": _exp,
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "sin": _sin,
    "cos": _cos,
    "tan": _tan,
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": _tanh,
    "logistic": _logistic,
    "pow": _power,
    "integer_pow": _integer_power,
    "cumprod": _cumulative_product,
    "sort": _sort,
}
"""Primitive to its form, on complex arrays."""
