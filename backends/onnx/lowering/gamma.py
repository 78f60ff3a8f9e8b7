"""The gamma function, its relatives, and Bessel functions, in plain JAX."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..registry import decomposes
from .decompositions import chebyshev, full, log1p, widened

Array = Any


#: Lanczos' series for the gamma function with g = 7 and nine terms.
_LANCZOS = (
    676.520368121885098567009190444019, -1259.13921672240287047156078755283, 771.3234287776530788486528258894,
    -176.61502916214059906584551354, 12.507343278686904814458936853, -0.13857109526572011689554707,
    9.984369578019570859563e-6, 1.50563273514931155834e-7,
)  # fmt: skip
_LANCZOS_BASE = 0.99999999999980993227684700473478
_LANCZOS_G = 7.0


@decomposes("lgamma")
def lgamma(x: Array, **_: Any) -> Array:
    """log|gamma(x)| by Lanczos' series, reflected for x < 0.5."""

    @widened
    def value(x: Array) -> Array:
        reflect = x < 0.5
        z = jnp.where(reflect, -x, x - 1)
        total = lax.full_like(x, _LANCZOS_BASE)
        for k, c in enumerate(_LANCZOS):
            total = total + c / (z + (k + 1))
        t = z + (_LANCZOS_G + 0.5)
        log_t = math.log(_LANCZOS_G + 0.5) + log1p(z / (_LANCZOS_G + 0.5))
        main = (z + 0.5 - t / log_t) * log_t + (0.5 * math.log(2 * math.pi)) + lax.log(total)
        a = lax.abs(x)
        part = a - lax.floor(a)
        part = jnp.where(part > 0.5, 1 - part, part)
        sine = lax.log(lax.sin(math.pi * part))
        mirrored = jnp.where(jnp.isinf(sine), -sine, math.log(math.pi) - sine - main)
        return jnp.where(jnp.isinf(x), full(x, jnp.inf), jnp.where(reflect, mirrored, main))

    return value(x)


@decomposes("digamma")
def digamma(x: Array, **_: Any) -> Array:
    """The logarithmic derivative of gamma, from the same series; NaN at its poles."""

    @widened
    def value(x: Array) -> Array:
        reflect = x < 0.5
        z = jnp.where(reflect, -x, x - 1)
        numerator, denominator = lax.full_like(x, 0), lax.full_like(x, _LANCZOS_BASE)
        for k, c in enumerate(_LANCZOS):
            term = z + (k + 1)
            numerator = numerator - c / (term * term)
            denominator = denominator + c / term
        t = z + (_LANCZOS_G + 0.5)
        log_t = math.log(_LANCZOS_G + 0.5) + log1p(z / (_LANCZOS_G + 0.5))
        main = log_t + numerator / denominator - _LANCZOS_G / t
        part = x + lax.abs(lax.floor(x + 0.5))
        angle = math.pi * part
        mirrored = main - math.pi * lax.cos(angle) / lax.sin(angle)
        pole = (x <= 0) & (x == lax.floor(x))
        return jnp.where(pole, full(x, jnp.nan), jnp.where(reflect, mirrored, main))

    return value(x)


@functools.cache
def _bessel_series(order: int, low: bool) -> np.ndarray[Any, Any]:
    """Chebyshev coefficients of the scaled Bessel function on [0, 8] in x/4-1, or times sqrt(x) in 16/x-1 beyond."""
    function = jax.scipy.special.i0e if order == 0 else jax.scipy.special.i1e
    degree = 30 if low else 26

    def sample(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        cpu = jax.local_devices(backend="cpu")[0]
        with jax.ensure_compile_time_eval(), jax.enable_x64(True), jax.default_device(cpu):
            x = 4 * (t + 1) if low else 16 / (np.maximum(t, -1 + 1e-12) + 1)
            y = np.asarray(jax.jit(function)(x))
        return y if low else y * np.sqrt(x)

    return np.polynomial.chebyshev.chebinterpolate(sample, degree)


def _bessel(x: Array, order: int) -> Array:
    a = lax.abs(x)
    near = chebyshev(jnp.minimum(a, 8) / 4 - 1, _bessel_series(order, True))
    far = jnp.maximum(a, 8)
    beyond = chebyshev(16 / far - 1, _bessel_series(order, False)) / lax.sqrt(far)
    value = jnp.where(a <= 8, near, beyond)
    return value if order == 0 else jnp.where(x < 0, -value, value)


@decomposes("bessel_i0e")
def bessel_i0e(x: Array, **_: Any) -> Array:
    return widened(lambda v: _bessel(v, 0))(x)


@decomposes("bessel_i1e")
def bessel_i1e(x: Array, **_: Any) -> Array:
    return widened(lambda v: _bessel(v, 1))(x)
