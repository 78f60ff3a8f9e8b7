"""Sorts, their relatives, and extrema: ties, NaN, zeros of both signs, several keys."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

STEP = 3

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 6)).astype(np.float32)
ODD = np.array([[0.0, -0.0, np.nan, 1, np.inf, -np.inf], [2, np.nan, np.inf, -1, np.nan, 0]], np.float32)
WORDS = RNG.integers(0, 2**32, (4, 3), dtype=np.uint32)

CASES = {
    "sort": (lambda x: (jnp.sort(x, 0), jnp.sort(x, -1), jnp.argsort(x), jnp.argsort(x, descending=True)), X),
    "odd": (lambda x: (jnp.sort(x, -1), jnp.argsort(x, -1), jnp.argmax(x, 1), jnp.argmin(x, 1)), ODD),
    "keys": (lambda x: lax.sort((jnp.round(x), x, -x), num_keys=2, dimension=0), X),
    "unsigned": (lambda u: lax.sort((u, jnp.arange(12).reshape(4, 3)), num_keys=1, dimension=0)[1], WORDS),
    "top-k": (lambda x: (*lax.top_k(x, 2), lax.top_k(x, 3)[0], lax.approx_max_k(x, 2)), ODD),
    "median": (lambda x: (jnp.median(x, 1), jnp.quantile(x, 0.3, axis=1), jnp.nanmedian(x)), X),
    "unique": (lambda x: jnp.unique(jnp.round(x), size=5, return_counts=True, return_inverse=True, fill_value=0), X),
    "search": (lambda x: (jnp.searchsorted(jnp.sort(x[0]), x), jnp.digitize(x, jnp.array([-1.0, 0, 1]))), X),
    "booleans": (lambda x: (jnp.sort(x > 0), jnp.argmax(x > 0, 1), jnp.max(x > 0, 0), lax.top_k(x > 0, 2)[1]), X),
    "bytes": (lambda x: (jnp.sort(x), jnp.argmin(x, -1), lax.top_k(x, 2)), (X * 50).astype(np.int8)),
    "three-dimensions": (lambda x: (jnp.sort(x, 0), jnp.argsort(x, 1)), RNG.standard_normal((2, 3, 1)).astype("f")),
}


def test_sorting(case, agrees):
    fn, *args = case
    agrees(fn, *args)
