"""What is known of integers from what made them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from xlapass.backends.tflite.legalize.bounds import bounds_of
from xlapass.core.graph import Graph

INTEGERS = jax.ShapeDtypeStruct((6,), np.int32)
BYTES = jax.ShapeDtypeStruct((6,), np.uint8)


@pytest.mark.parametrize(
    ("fn", "spec", "bounds"),
    [
        (lambda x: lax.clamp(2, x, 5), INTEGERS, (2, 5)),
        (lambda x: lax.max(lax.min(x, 5), -1), INTEGERS, (-1, 5)),
        (lambda x: lax.clamp(0, x, 3) * 4 + lax.iota(np.int32, 6), INTEGERS, (0, 17)),
        (lambda x: lax.argmax(x, 0, np.int32) - 2, INTEGERS, (-2, 3)),
        (lambda x: x.astype(np.int32), BYTES, (0, 255)),
        (lambda x: (x > 0).astype(np.int32), INTEGERS, (0, 1)),
        (lambda x: lax.top_k(x, 2)[1], INTEGERS, (0, 5)),
        (lambda x: lax.select(x > 0, lax.clamp(0, x, 1), jnp.full((6,), 9, np.int32)), INTEGERS, (0, 9)),
        (lambda x: x + 1, INTEGERS, None),
        (lambda x: lax.clamp(0, x, 2**30) * 4, INTEGERS, None),
    ],
)
def test_bounds(fn, spec, bounds):
    graph = Graph(jax.make_jaxpr(fn)(spec))
    assert bounds_of(graph.outputs[0]) == bounds
