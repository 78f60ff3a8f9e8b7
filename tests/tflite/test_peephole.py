"""Reshapes around products and convolutions go where they change nothing, and stay where they do."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from xlapass.backends.tflite.report import operation_counts

RNG = np.random.default_rng(0)
UP, DOWN = RNG.standard_normal((16, 32)).astype(np.float32), RNG.standard_normal((32, 16)).astype(np.float32)
BIAS = RNG.standard_normal(16).astype(np.float32)
SIGNAL = RNG.standard_normal((3, 16, 16)).astype(np.float32)
POINT = RNG.standard_normal((16, 16, 1, 1)).astype(np.float32)


def dense(x):
    return jax.nn.gelu(x @ UP) @ DOWN + BIAS


def heads(x):
    y = (x @ UP).reshape(*x.shape[:-1], 4, 8)
    return jax.nn.softmax(y), y


def signal(x):
    y = lax.conv_general_dilated(x, SIGNAL, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    return jnp.tanh(y + BIAS)


def gate(x):
    z = x.mean((2, 3), keepdims=True)
    z = lax.conv_general_dilated(z, POINT, (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW"))
    return x * jax.nn.sigmoid(jax.nn.relu(z + BIAS[:, None, None]))


def shared(x):
    """The product without its bias is read, too."""
    y = lax.conv_general_dilated(x, SIGNAL, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    return y + BIAS, y * 2


def other_bias(x):
    """One number per position is no bias."""
    y = lax.conv_general_dilated(x, SIGNAL, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    return y + jnp.arange(x.shape[1], dtype=jnp.float32)[:, None]


@pytest.mark.parametrize(
    ("fn", "shape", "expected"),
    [
        (dense, (1, 7, 5, 16), {"FULLY_CONNECTED": 2, "GELU": 1}),
        (dense, (3, 7, 16), {"FULLY_CONNECTED": 2, "GELU": 1}),
        (dense, (7, 16), {"FULLY_CONNECTED": 2, "GELU": 1}),
        (heads, (2, 7, 16), {"FULLY_CONNECTED": 1, "RESHAPE": 1, "SOFTMAX": 1}),
        (signal, (1, 20, 16), {"CONV_2D": 1, "TANH": 1, "RESHAPE": 2}),
        (gate, (1, 16, 6, 6), {"CONV_2D": 1, "LOGISTIC": 1, "MUL": 1}),
        (shared, (1, 20, 16), {"CONV_2D": 1, "ADD": 1, "MUL": 1}),
        (other_bias, (1, 16, 16), {"CONV_2D": 1, "ADD": 1}),
    ],
)
def test_operators(fn, shape, expected, compiled):
    x = RNG.standard_normal(shape).astype(np.float32)
    artifact = compiled(fn, x)
    counts = Counter(operation_counts(artifact.model))
    assert {name: counts[name] for name in expected} == expected
    have, want = (jax.tree.leaves(f(x)) for f in (artifact.executable(num_threads=1), fn))
    for a, b in zip(have, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert all(row.delegated == row.count for row in artifact.description().rows)
