"""Primitives that JAX 0.12 adds, in terms of those that there were before."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax import lax

from .rule import lowering


def _log2(x: jax.Array, **_: Any) -> jax.Array:
    return lax.log(x) * (1 / math.log(2.0))


def _one_minus_square(x: jax.Array, **_: Any) -> jax.Array:
    """As a product, which does not cancel near 1."""
    return (1 + x) * (1 - x)


def _polynomial(x: jax.Array, *coefficients: jax.Array, **_: Any) -> jax.Array:
    """Horner's rule; the coefficient of the lowest power comes first."""
    result = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = result * x + coefficient
    return result


def _unstack(x: jax.Array, *, axis: int, **_: Any) -> list[jax.Array]:
    return [lax.index_in_dim(x, k, axis, keepdims=False) for k in range(x.shape[axis])]


RULES = [
    lowering("log-base-two", "log2", _log2),
    lowering("one-minus-square", "one_minus_square", _one_minus_square),
    lowering("polynomial", "polynomial", _polynomial),
    lowering("unstack", "unstack", _unstack, numerics="exact", any_size=True),
]
