"""The incomplete gamma and beta functions, and the zeta family."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..registry import Refusal, decomposes
from .gamma import digamma, lgamma

Array = Any

#: Terms after which series and continued fractions have converged to float64 for arguments of ordinary size.
_TERMS = 300
#: Terms of Hurwitz' zeta summed one by one before the Euler-Maclaurin tail.
_ZETA_TERMS = 12
#: Even Bernoulli numbers over the factorials of their index.
_BERNOULLI = tuple(
    b / math.factorial(2 * k + 2)
    for k, b in enumerate((1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510))
)


def _log_factor(a: Array, x: Array) -> Array:
    """x^a exp(-x) / gamma(a), whose logarithm does not overflow."""
    return jnp.exp(a * jnp.log(x) - x - lgamma(a))


def _lower_series(a: Array, x: Array) -> Array:
    """P(a, x) by its power series, for x < a + 1."""

    def step(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        total, term = state
        term = term * x / (a + (k + 1).astype(a.dtype))
        return total + term, term

    total, _ = lax.fori_loop(0, _TERMS, step, (1 / a, 1 / a))
    return total * _log_factor(a, x)


def _upper_fraction(a: Array, x: Array) -> Array:
    """Q(a, x) by its continued fraction (modified Lentz), for x >= a + 1."""
    tiny = jnp.asarray(jnp.finfo(a.dtype).tiny * 1e4, a.dtype)
    b = x + 1 - a
    d = 1 / b

    def step(k: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        b, c, d, h = state
        n = (k + 1).astype(a.dtype)
        numerator = -n * (n - a)
        b = b + 2
        d = numerator * d + b
        c = b + numerator / c
        d = 1 / jnp.where(jnp.abs(d) < tiny, tiny, d)
        c = jnp.where(jnp.abs(c) < tiny, tiny, c)
        return b, c, d, h * d * c

    *_, h = lax.fori_loop(0, _TERMS, step, (b, jnp.full_like(b, 1) / tiny, d, d))
    return h * _log_factor(a, x)


def _regularized_gamma(a: Array, x: Array) -> tuple[Array, Array]:
    """P and Q for a > 0, x > 0, both from whichever expansion converges."""
    low = x < a + 1
    one = jnp.full_like(x, 1)
    p = _lower_series(jnp.where(low, a, one), jnp.where(low, x, one))
    q = _upper_fraction(jnp.where(low, one, a), jnp.where(low, 3 * one, x))
    return jnp.where(low, p, 1 - q), jnp.where(low, 1 - p, q)


def _edges(value: Array, a: Array, x: Array, at_zero: float, at_infinity: float) -> Array:
    """The values on the border of the domain, NaN outside it."""
    value = jnp.where(x == 0, at_zero, value)
    value = jnp.where(jnp.isinf(x), at_infinity, value)
    value = jnp.where((a == 0) & (x > 0), at_infinity, value)
    value = jnp.where(jnp.isinf(a), at_zero, value)
    bad = (x < 0) | (a < 0) | ((a == 0) & (x == 0)) | (jnp.isinf(a) & jnp.isinf(x)) | jnp.isnan(a) | jnp.isnan(x)
    return jnp.where(bad, jnp.nan, value)


def _inside(a: Array, x: Array) -> tuple[Array, Array]:
    """Arguments with those at or beyond the border replaced by 1."""
    ok = (a > 0) & (x > 0) & jnp.isfinite(a) & jnp.isfinite(x)
    return jnp.where(ok, a, 1), jnp.where(ok, x, 1)


def _in_float32(function: Any) -> Any:
    @functools.wraps(function)
    def wrapped(*arrays: Array, **params: Any) -> Array:
        dtype = arrays[0].dtype
        if jnp.finfo(dtype).bits >= 32:
            return function(*arrays)
        return function(*(a.astype(jnp.float32) for a in arrays)).astype(dtype)

    return wrapped


@decomposes("igamma")
@_in_float32
def igamma(a: Array, x: Array) -> Array:
    return _edges(_regularized_gamma(*_inside(a, x))[0], a, x, 0.0, 1.0)


@decomposes("igammac")
@_in_float32
def igammac(a: Array, x: Array) -> Array:
    return _edges(_regularized_gamma(*_inside(a, x))[1], a, x, 1.0, 0.0)


@decomposes("igamma_grad_a")
@_in_float32
def igamma_grad_a(a: Array, x: Array) -> Array:
    """The derivative of the series by its parameter; the fraction is differentiated likewise."""
    inner_a, inner_x = _inside(a, x)

    def value(v: Array) -> Array:
        low = inner_x < v + 1
        one = jnp.full_like(v, 1)
        p = _series_at(jnp.where(low, v, one), jnp.where(low, inner_x, one))
        q = _fraction_at(jnp.where(low, one, v), jnp.where(low, 3 * one, inner_x))
        return jnp.where(low, p, 1 - q)

    _, tangent = jax.jvp(value, (inner_a,), (jnp.ones_like(inner_a),))
    return _edges(tangent, a, x, 0.0, 0.0)


def _series_at(a: Array, x: Array) -> Array:
    """The power series with a factor that JAX can differentiate."""

    def step(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        total, term = state
        term = term * x / (a + (k + 1).astype(a.dtype))
        return total + term, term

    total, _ = lax.fori_loop(0, _TERMS, step, (1 / a, 1 / a))
    return total * jnp.exp(a * jnp.log(x) - x - lax.lgamma(a))


def _fraction_at(a: Array, x: Array) -> Array:
    return _upper_fraction(a, x) / _log_factor(a, x) * jnp.exp(a * jnp.log(x) - x - lax.lgamma(a))


@decomposes("regularized_incomplete_beta")
@_in_float32
def regularized_incomplete_beta(a: Array, b: Array, x: Array) -> Array:
    """I_x(a, b) by its continued fraction (modified Lentz) on the side where it converges."""
    ok = (a > 0) & (b > 0) & (x > 0) & (x < 1)
    p, q, t = (jnp.where(ok, v, 0.5) for v in (a, b, x))
    swap = t > (p + 1) / (p + q + 2)
    p, q, t = jnp.where(swap, q, p), jnp.where(swap, p, q), jnp.where(swap, 1 - t, t)
    factor = jnp.exp(lgamma(p + q) - lgamma(p) - lgamma(q) + p * jnp.log(t) + q * jnp.log(1 - t)) / p
    value = factor * _beta_fraction(p, q, t)
    value = jnp.where(swap, 1 - value, value)
    value = jnp.where(x == 0, 0.0, jnp.where(x == 1, 1.0, value))
    bad = (a <= 0) | (b <= 0) | (x < 0) | (x > 1) | jnp.isnan(a + b + x)
    return jnp.where(bad, jnp.nan, value)


def _beta_fraction(a: Array, b: Array, x: Array) -> Array:
    tiny = jnp.asarray(jnp.finfo(a.dtype).tiny * 1e4, a.dtype)

    def guarded(v: Array) -> Array:
        return jnp.where(jnp.abs(v) < tiny, tiny, v)

    d = 1 / guarded(1 - (a + b) * x / (a + 1))

    def step(k: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        c, d, h = state
        m = (k + 1).astype(a.dtype)
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / guarded(1 + numerator * d)
            c = guarded(1 + numerator / c)
            h = h * d * c
        return c, d, h

    *_, h = lax.fori_loop(0, _TERMS // 2, step, (jnp.full_like(d, 1), d, d))
    return h


def _hurwitz(s: Array, q: Array) -> Array:
    """Hurwitz' zeta for s > 1 by Euler-Maclaurin summation."""
    total = jnp.zeros_like(q + s)
    for k in range(_ZETA_TERMS):
        total = total + jnp.power(q + k, -s)
    edge = q + _ZETA_TERMS
    power = jnp.power(edge, -s)
    total = total + power * edge / (s - 1) + 0.5 * power
    term = s * power / edge
    for k, factor in enumerate(_BERNOULLI):
        total = total + factor * term
        term = term * (s + 2 * k + 1) * (s + 2 * k + 2) / (edge * edge)
    return total


@decomposes("zeta")
@_in_float32
def zeta(s: Array, q: Array) -> Array:
    """Hurwitz' zeta; poles and the domain as in XLA."""
    value = _hurwitz(jnp.where(s > 1, s, 2), jnp.where(q > 0, q, 1))
    negative = q <= 0
    whole = q == jnp.floor(q)
    value = jnp.where(negative & whole, jnp.inf, jnp.where(negative, _shifted(s, q), value))
    return jnp.where(s == 1, jnp.inf, jnp.where((s < 1) | jnp.isnan(s) | jnp.isnan(q), jnp.nan, value))


def _shifted(s: Array, q: Array) -> Array:
    """Between the poles only even s give real terms; the terms before zero are few."""
    total = _hurwitz(jnp.where(s > 1, s, 2), q - jnp.floor(q) + (q == jnp.floor(q)))
    even = (s == jnp.floor(s)) & (jnp.mod(s, 2) == 0)

    def step(k: Array, acc: Array) -> Array:
        at = q + k.astype(q.dtype)
        return acc + jnp.where((at < 0) & even, jnp.power(jnp.abs(at), -s), 0)

    return jnp.where(even, lax.fori_loop(0, _TERMS, step, total), jnp.nan)


@decomposes("polygamma")
@_in_float32
def polygamma(n: Array, x: Array) -> Array:
    """The n-th derivative of digamma: (-1)^(n+1) n! zeta(n+1, x)."""
    whole = (n == jnp.floor(n)) & (n >= 0)
    sign = jnp.where(jnp.mod(n, 2) == 1, 1, -1).astype(x.dtype)
    value = sign * jnp.exp(lgamma(n + 1)) * zeta_of(jnp.maximum(n, 1) + 1, x)
    return jnp.where(whole, jnp.where(n == 0, digamma(x), value), jnp.nan)


def zeta_of(s: Array, q: Array) -> Array:
    """`zeta` in the type of its arguments."""
    return zeta(s, q)


@decomposes("random_gamma_grad")
def random_gamma_grad(a: Array, x: Array, **_: Any) -> Array:
    raise Refusal("the derivative of gamma-distributed samples has no ONNX form here")
