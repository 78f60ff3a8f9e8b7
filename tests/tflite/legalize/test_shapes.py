"""Arrays of no and of many dimensions, without elements, and transposed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from .conftest import SWEEP

RNG = np.random.default_rng(0)
SIZES = (2, 3, 1, 2, 2, 1, 2, 3)
X = RNG.random((4, 3)).astype(np.float32) + 0.5
EMPTY = np.zeros((0, 3), np.float32)


def _moves(x):
    order = tuple(np.random.default_rng(x.ndim).permutation(x.ndim))
    padded = lax.pad(x, jnp.float32(1), [(1, -1, 1)] * x.ndim)
    return jnp.transpose(x, order), padded, lax.slice(x, [0] * x.ndim, x.shape, [2] * x.ndim), jnp.tile(x, 2), x[::-1]


def _functions(x):
    first = x[:1]
    return x + first, jnp.maximum(x, first), jnp.where(x > first, x, first), jnp.tanh(x) * 2, x - jnp.mean(x)


def _reductions(x):
    sums = x.sum(tuple(range(0, x.ndim, 2))), x.max(-1), x.min(0), x.prod(0), jnp.any(x > 0, -1)
    return *sums, jnp.argmax(x, 0), jnp.argmin(x, -1), jnp.cumsum(x, -1), lax.cummax(x, 0)


def _places(x):
    return jnp.sort(x, 0), x[jnp.array([1, 0, 5])], x.at[0].add(1.0), lax.dynamic_slice(x, [1] * x.ndim, [1] * x.ndim)


@pytest.mark.parametrize("rank", range(1, 9) if SWEEP else (1, 3, 7))
@pytest.mark.parametrize("fn", [_moves, _functions, _reductions, _places])
def test_many_dimensions(rank, fn, agrees):
    agrees(fn, RNG.standard_normal(SIZES[:rank]).astype(np.float32))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: (x.sum(), x.sum(0), x.sum(1), jnp.max(x, 0, initial=3)),
        lambda x: (jnp.concatenate([x, jnp.ones((2, 3)), x]), jnp.pad(x, 1), x @ jnp.ones((3, 2)), x.T @ x),
        lambda x: (jnp.sort(x), jnp.argsort(x, 0), jnp.cumsum(x, 0), x.T, x.reshape(3, 0), jnp.zeros((0, 6))),
        lambda x: jnp.ones((4, 3)).at[jnp.zeros((0,), jnp.int32)].add(x),
    ],
)
def test_no_elements(fn, agrees):
    agrees(fn, EMPTY)


def test_a_constant_stays_in_front_of_something_transposed(agrees):
    agrees(lambda x: (2.0 - x.T, 2.0 / x.T, X.T - x.T, 1 - jax.nn.sigmoid(x.T), 3 / jnp.sqrt(x.T).reshape(-1)), X)
    agrees(lambda x: (2 - x.T, lax.div(jnp.full((3, 4), 500), x.T)), (X * 50).astype(np.int32))


def test_a_difference_that_is_safe_is_left_alone():
    from .conftest import legal

    program = legal(lambda x: 1.0 - x, (X,))
    assert [eqn.primitive.name for eqn in program.jaxpr.jaxpr.eqns] == ["sub"]
