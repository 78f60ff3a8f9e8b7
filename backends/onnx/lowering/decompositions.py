"""Plain JAX forms, in simpler primitives, of functions that ONNX does not have (at every type)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..registry import decomposes

Array = Any


def widened(function: Callable[..., Array]) -> Callable[..., Array]:
    """Computes 16-bit (and narrower) floats in float32."""

    @functools.wraps(function)
    def wrapped(x: Array, *rest: Array) -> Array:
        if jnp.finfo(x.dtype).bits >= 32:
            return function(x, *rest)
        return function(x.astype(jnp.float32), *(r.astype(jnp.float32) for r in rest)).astype(x.dtype)

    return wrapped


def full(x: Array, value: float) -> Array:
    """An array like ``x`` of one value."""
    return lax.full_like(x, value)


def polynomial(x: Array, coefficients: Any) -> Array:
    """Horner's rule; the highest power first."""
    result = lax.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        result = result * x + lax.full_like(x, c, shape=())
    return result


def chebyshev(x: Array, coefficients: Any) -> Array:
    """Clenshaw's recurrence for a Chebyshev series on [-1, 1]; the lowest order first."""
    twice = x * lax.full_like(x, 2.0, shape=())
    later, latest = lax.full_like(x, 0.0), lax.full_like(x, 0.0)
    for c in coefficients[:0:-1]:
        later, latest = latest, twice * latest - later + lax.full_like(x, c, shape=())
    return x * latest - later + lax.full_like(x, coefficients[0], shape=())


# -- elementary -------------------------------------------------------------------------------------------------


@decomposes("log1p")
def log1p(x: Array, **_: Any) -> Array:
    """x log(u) / (u - 1), where u is 1+x as it was rounded (Kahan): near 0 both err alike.

    A product keeps the sign of -0; ONNX Runtime's Where would lose it, and with it the end of loops that divide by it.
    """
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return lax.log(x + 1)
    u = x + 1
    undefined = (u == 1) | (u == jnp.inf)
    return x * jnp.where(undefined, 1, lax.log(u) / jnp.where(undefined, 1, u - 1))


@decomposes("log2")
def log2(x: Array, **_: Any) -> Array:
    """As XLA is told to compute it, where the primitive exists (JAX 0.12)."""
    return lax.log(x) * (1 / math.log(2.0))


@decomposes("one_minus_square")
def one_minus_square(x: Array, **_: Any) -> Array:
    """As a product, which does not cancel near 1."""
    return (1 + x) * (1 - x)


@decomposes("polynomial")
def polynomial_of_operands(x: Array, *coefficients: Array, **_: Any) -> Array:
    """Horner's rule; the lowest power first."""
    result = coefficients[-1]
    for c in coefficients[-2::-1]:
        result = result * x + c
    return result


@decomposes("expm1")
def expm1(x: Array, **_: Any) -> Array:
    """exp(x)-1 as tanh(x/2) * (exp(x)+1), which does not cancel."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return lax.exp(x) - 1
    return lax.tanh(x * 0.5) * (lax.exp(x) + 1)


@decomposes("cbrt")
def cbrt(x: Array, **_: Any) -> Array:
    """The real cube root: of the magnitude, with the sign of x."""
    root = lax.pow(lax.abs(x), lax.full_like(x, 1 / 3, shape=()))
    if x.dtype == jnp.float64:
        root = jnp.where((root == 0) | jnp.isinf(root), root, root - (root - lax.abs(x) / (root * root)) / 3)
    return lax.sign(x) * root


def is_negative(x: Array) -> Array:
    """Whether the sign bit is set (NaN aside): the reciprocal shows it for zeros."""
    return (x < 0) | ((x == 0) & (1 / x < 0))


@decomposes("atan2")
def atan2(y: Array, x: Array, **_: Any) -> Array:
    """The angle of the point (x, y), with the IEEE results on the axes and at infinity."""
    a, b = lax.abs(y), lax.abs(x)
    infinite = jnp.isinf(a) & jnp.isinf(b)
    ratio = jnp.where(infinite | ((a == 0) & (b == 0)), jnp.where(infinite, 1.0, 0.0).astype(x.dtype), a / b)
    angle = lax.atan(ratio)
    angle = jnp.where(is_negative(x), math.pi - angle, angle)
    return jnp.where(is_negative(y), -angle, angle)


def logistic(x: Array) -> Array:
    """The sigmoid; the runtime's float64 kernel is an approximation."""
    return 1 / (1 + lax.exp(-x))


def round_away(x: Array) -> Array:
    """Rounds halves away from zero."""
    whole = jnp.trunc(x)
    return jnp.where(lax.abs(x - whole) >= 0.5, whole + lax.sign(x), whole)


def integer_power(x: Array, power: int) -> Array:
    """x**power by repeated squaring."""
    if power == 0:
        return lax.full_like(x, 1)
    if power < 0:
        return 1 / integer_power(x, -power)
    result, square = None, x
    while power:
        if power & 1:
            result = square if result is None else result * square
        power >>= 1
        if power:
            square = square * square
    return result


def integer_to_integer_power(x: Array, y: Array) -> Array:
    """Integers to integer powers, modulo the width, by squaring; negative powers as XLA computes them."""
    bits = np.iinfo(y.dtype).bits
    result, square, rest = lax.full_like(x, 1), x, y
    for _ in range(bits):
        odd = (rest & 1) == 1
        result = jnp.where(odd, result * square, result)
        square = square * square
        rest = lax.shift_right_logical(rest, jnp.asarray(1, y.dtype))
    return result


def complex_power(x: Array, y: Array) -> Array:
    """x**y through the logarithm; 0**0 is 1."""
    y = y.astype(x.dtype)
    value = lax.exp(y * lax.log(jnp.where(x == 0, lax.full_like(x, 1), x)))
    at_zero = jnp.where(y == 0, lax.full_like(x, 1), lax.full_like(x, 0))
    return jnp.where(x == 0, at_zero, value)


# -- float64 forms of what the runtime has in float32 only --------------------------------------------------------


def tan(x: Array) -> Array:
    return lax.sin(x) / lax.cos(x)


def sinh(x: Array) -> Array:
    half = lax.exp(x * 0.5)
    big = 0.5 * half * half - 0.5 / half / half
    e = expm1(x)
    return jnp.where(lax.abs(x) < 1, 0.5 * (e + e / (e + 1)), big)


def cosh(x: Array) -> Array:
    half = lax.exp(lax.abs(x) * 0.5)
    return 0.5 * half * half + 0.5 / half / half


def asinh(x: Array) -> Array:
    a = lax.abs(x)
    small = log1p(a + a * a / (1 + lax.sqrt(a * a + 1)))
    return lax.sign(x) * jnp.where(a > 1e8, lax.log(a) + math.log(2.0), small)


def acosh(x: Array) -> Array:
    return jnp.where(x > 1e8, lax.log(x) + math.log(2.0), log1p((x - 1) + lax.sqrt((x - 1) * (x + 1))))


def atanh(x: Array) -> Array:
    return 0.5 * (log1p(x) - log1p(-x))


def atan(x: Array) -> Array:
    """Chebyshev series on [-tan(pi/8), tan(pi/8)] after the usual two reductions."""
    a = lax.abs(x)
    large, middle = a > math.tan(3 * math.pi / 8), a > math.tan(math.pi / 8)
    reduced = jnp.where(large, -1 / jnp.where(large, a, full(a, 1)), jnp.where(middle, (a - 1) / (a + 1), a))
    reduced = jnp.where(jnp.isinf(a), full(a, 0), reduced)
    offset = jnp.where(large, full(a, math.pi / 2), jnp.where(middle, full(a, math.pi / 4), full(a, 0)))
    limit = math.tan(math.pi / 8) ** 2
    series = _fit(lambda z: math.atan(math.sqrt(z)) / math.sqrt(z) if z > 1e-12 else 1 - z / 3, 0.0, limit, 16)
    square = reduced * reduced
    value = offset + reduced * chebyshev(square * (2 / limit) - 1, series)
    return jnp.where(x < 0, -value, value)


def asin(x: Array) -> Array:
    return 2 * atan(x / (1 + lax.sqrt((1 - x) * (1 + x))))


def acos(x: Array) -> Array:
    return jnp.where(
        x == -1, full(x, math.pi), 2 * atan(lax.sqrt((1 - x) * (1 + x)) / jnp.where(x == -1, full(x, 1), 1 + x))
    )


@functools.cache
def _fit_cached(key: str, low: float, high: float, degree: int) -> np.ndarray[Any, Any]:
    return _fit(_FITTED[key], low, high, degree)


def _fit(function: Callable[[float], float], low: float, high: float, degree: int) -> np.ndarray[Any, Any]:
    """Chebyshev coefficients of a smooth function on [low, high]."""
    return np.polynomial.chebyshev.chebinterpolate(
        lambda t: np.array([function(0.5 * (low + high) + 0.5 * (high - low) * v) for v in t]), degree
    )


#: exp(x*x)*erfc(x) in the variable (x-4)/(x+4), which maps [1, inf) to [-0.6, 1).
_FITTED: dict[str, Callable[[float], float]] = {
    "erfcx": lambda t: _scaled_erfc(4 * (1 + t) / (1 - t)) if t < 0.999 else 0.0,
    "erf": lambda z: math.erf(math.sqrt(z)) / math.sqrt(z) if z > 1e-10 else 2 / math.sqrt(math.pi) * (1 - z / 3),
}


def _scaled_erfc(x: float) -> float:
    """exp(x^2) erfc(x); by the asymptotic series where erfc underflows."""
    if x < 20:
        return math.exp(x * x) * math.erfc(x)
    term = total = 1.0
    for k in range(1, 8):
        term *= -(2 * k - 1) / (2 * x * x)
        total += term
    return total / (x * math.sqrt(math.pi))


def _erfc_of_large(a: Array) -> Array:
    """erfc for a >= 1."""
    t = (a - 4) / (a + 4)
    low, high = -0.6, 0.75
    series = _fit_cached("erfcx", low, high, 28)
    position = (t - 0.5 * (low + high)) * (2 / (high - low))
    return jnp.where(a > 27.5, full(a, 0), lax.exp(-a * a) * chebyshev(jnp.minimum(position, 1), series))


def erf(x: Array) -> Array:
    """The error function in float64."""
    a = lax.abs(x)
    inner = x * chebyshev(2 * jnp.minimum(x * x, 1) - 1, _fit_cached("erf", 0.0, 1.0, 18))
    outer = lax.sign(x) * (1 - _erfc_of_large(jnp.maximum(a, 1)))
    return jnp.where(a < 1, inner, outer)


#: exp(x*x) erfc(x) / t as the exponential of a polynomial in t = 1/(1+x/2), to 1.2e-7 (Numerical Recipes, 6.2.2).
_ERFC_FIT = (
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807,
    -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223,
)  # fmt: skip


@decomposes("erfc", note="float32 to 1.2e-7, float64 to 1e-14")
def erfc(x: Array, **_: Any) -> Array:
    """The complementary error function, accurate in its tail."""

    @widened
    def value(x: Array) -> Array:
        a = lax.abs(x)
        if x.dtype == jnp.float64:
            tail = _erfc_of_large(jnp.maximum(a, 1))
            return jnp.where(a < 1, 1 - lax.erf(x), jnp.where(x < 0, 2 - tail, tail))
        t = 1 / (1 + 0.5 * a)
        tail = t * lax.exp(polynomial(t, _ERFC_FIT) - a * a)
        return jnp.where(x < 0, 2 - tail, tail)

    return value(x)


#: Giles' approximation of the inverse error function (GPU Computing Gems 2011, single precision).
_ERFINV_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_ERFINV_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


@decomposes("erf_inv", note="float64 after two Newton steps")
def erf_inv(x: Array, **_: Any) -> Array:
    """The inverse error function."""

    @widened
    def value(x: Array) -> Array:
        w = -log1p(-x * x)
        centre = polynomial(w - 2.5, _ERFINV_CENTRE)
        tail = polynomial(lax.sqrt(jnp.maximum(w, 5)) - 3, _ERFINV_TAIL)
        y = jnp.where(w < 5, centre, tail) * x
        if x.dtype == jnp.float64:
            for _ in range(2):
                residue = jnp.where(lax.abs(x) < 0.5, erf(y) - x, lax.sign(x) * ((1 - lax.abs(x)) - erfc(lax.abs(y))))
                y = jnp.where(lax.abs(x) < 1, y - residue * lax.exp(y * y) * (math.sqrt(math.pi) / 2), y)
        return jnp.where(lax.abs(x) == 1, x * jnp.inf, y)

    return value(x)
