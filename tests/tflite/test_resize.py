"""Image resizing as one operator, whatever its axes and sizes; and what is no such resizing, left alone."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import operations
from xlapass.backends.tflite.report import operation_counts
from xlapass.backends.tflite.resize import nearest, weights
from xlapass.core.manager import PassManager
from xlapass.core.tracing import trace

PASSES = "inline,fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code),resize-tflite"
RNG = np.random.default_rng(0)
NAMES = {"bilinear": "RESIZE_BILINEAR", "nearest": "RESIZE_NEAREST_NEIGHBOR"}


def resizing(shape, method="bilinear", antialias=True):
    return lambda x: jax.image.resize(x, shape, method, antialias=antialias)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1, 4, 8, 3), (1, 8, 16, 3)),
        ((2, 3, 5, 4), (2, 7, 11, 4)),
        ((1, 4, 6, 2), (1, 4, 15, 2)),
        ((1, 3, 4, 8), (1, 3, 9, 8)),
        ((1, 3, 4, 8), (1, 3, 8, 17)),
        ((5, 6, 3), (10, 12, 3)),
    ],
    ids=["doubled", "odd", "one side", "height", "channels first", "no batch"],
)
@pytest.mark.parametrize("method", NAMES)
def test_one_operator(before, after, method, compiled):
    x = RNG.standard_normal(before).astype(np.float32)
    artifact = compiled(resizing(after, method), x)
    counts = operation_counts(artifact.model)
    assert counts[NAMES[method]] == 1
    assert set(counts) <= {NAMES[method], "TRANSPOSE", "RESHAPE"}
    np.testing.assert_allclose(artifact.executable()(x), jax.image.resize(x, after, method), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "fn",
    [
        resizing((1, 2, 4, 3)),
        resizing((1, 8, 16, 3), "cubic"),
        resizing((1, 8, 16, 6)),
        lambda x: x[:, np.array([0, 0, 2, 3])],
        lambda x: jax.lax.dot_general(x, RNG.standard_normal((3, 5)).astype(np.float32), (((3,), (0,)), ((), ()))),
    ],
    ids=["antialiased", "cubic", "three axes", "some rows", "any matrix"],
)
def test_left_alone(fn):
    x = RNG.standard_normal((1, 4, 8, 3)).astype(np.float32)
    assert "composite" not in operations(PassManager(PASSES).run(trace(fn, x)))


@given(st.integers(1, 9), st.integers(1, 20))
def test_any_sizes(before, after):
    """What the operators compute is what JAX computes."""
    rows = np.eye(before, dtype=np.float32)
    linear = jax.image.resize(rows, (after, before), "linear", antialias=False)
    np.testing.assert_allclose(weights(before, after).T, linear, atol=1e-6)
    np.testing.assert_array_equal(rows[nearest(before, after)], jax.image.resize(rows, (after, before), "nearest"))
