"""Constant scales and shifts: merged, and moved into the matrix products that alone read them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from support import check, operations, run

PASS = "merge-scales"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 4)).astype(np.float32)
W, V = (RNG.standard_normal((4, 3)).astype(np.float32) for _ in range(2))
A, B, C = (RNG.uniform(0.5, 1.5, (1, 1, 4)).astype(np.float32) for _ in range(3))


def products(x, w):
    return lax.dot_general(x, w, (((2,), (0,)), ((), ())))


def test_shifts_around_a_scale():
    """Batch norm after something that is no product."""
    small = [np.float32([[[1, 2]]]), np.float32([[[3, 4]]]), np.float32([[[5, 7]]])]
    check(
        PASS,
        lambda x: (x - small[0]) * small[1] + small[2],
        np.ones((1, 3, 2), np.float32),
        before="""
        program(a:f32[1,3,2]):
          const b:f32[1,1,2] = [[[1.0, 2.0]]]
          const c:f32[1,1,2] = [[[3.0, 4.0]]]
          const d:f32[1,1,2] = [[[5.0, 7.0]]]
          e:f32[1,3,2] = sub a b
          f:f32[1,3,2] = mul e c
          g:f32[1,3,2] = add f d
          return g
        """,
        after="""
        program(a:f32[1,3,2]):
          const b:f32[1,1,2] = [[[3.0, 4.0]]]
          const c:f32[1,1,2] = [[[2.0, -1.0]]]
          d:f32[1,3,2] = mul a b
          e:f32[1,3,2] = add d c
          return e
        """,
    )


def test_scale_and_shift_before_a_product():
    assert operations(run(PASS, lambda x: products(x * A + B, W), X)) == ["dot_general", "add"]
    assert operations(run(PASS, lambda x: products(x / A - B, W), X)) == ["dot_general", "add"]
    assert operations(run(PASS, lambda x: [products(x * A, w) for w in (W, V)], X)) == ["dot_general", "dot_general"]
    right = run(PASS, lambda x: lax.dot_general(W, x * A, (((0,), (2,)), ((), ()))), X)
    assert operations(right) == ["dot_general"]


def test_layer_norm_before_a_product():
    def normalized(x):
        scale = lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-5) * A
        return products(x * scale + B, W)

    before = operations(run("inline", normalized, X))
    assert before[-5:] == ["rsqrt", "mul", "mul", "add", "dot_general"]
    assert operations(run(f"inline,{PASS}", normalized, X))[-4:] == ["rsqrt", "mul", "dot_general", "add"]


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: (lambda y: (products(y, W), y))(x * A),
        lambda x: products(x * jnp.sum(x), W),
        lambda x: products(x * np.float32([[[1], [2], [3], [4], [5]]]), W),
        lambda x: lax.dot_general(x * A, x, (((2,), (2,)), ((0,), (0,)))),
        lambda x: (lambda s: (s * B + C, s))(x - A),
        lambda x: (x[:, :1] - A) * RNG.uniform(1, 2, (1, 5, 1)).astype(np.float32) + C,
        lambda x: (x.astype(jnp.int32) - 1) * 2 + 3,
    ],
    ids=["used elsewhere", "computed", "other axis", "no weights", "shift used", "outer", "integers"],
)
def test_left_alone(fn):
    before = operations(run("inline", fn, X))
    assert operations(run(f"inline,{PASS}", fn, X)) == before


def test_overflow_is_refused():
    huge = np.full((1, 1, 4), 3e38, np.float32)
    program = run(PASS, lambda x: (x - huge) * huge + C, np.zeros_like(X))
    assert operations(program) == ["sub", "mul", "add"]


@settings(max_examples=10)
@given(
    st.permutations(range(3)),
    st.sampled_from(["mul", "div", "add", "sub"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2),
)
def test_any_product(order, kind, right, batched, axis):
    """Any axes, either side, with and without batch dimensions."""
    rng = np.random.default_rng(sum(order))
    x = rng.standard_normal((2, 3, 4)).transpose(order).astype(np.float32)
    contracted = order.index(2)
    batch = ((order.index(0),), (0,)) if batched else ((), ())
    w = rng.standard_normal((2, 4, 5) if batched else (4, 5)).astype(np.float32)
    shape = [1, 1, 1]
    shape[axis] = x.shape[axis]
    constant = rng.uniform(0.5, 2, shape).astype(np.float32)
    contracting = ((contracted,), (w.ndim - 2,))

    def fn(x):
        y = getattr(lax, kind)(x, jnp.broadcast_to(constant, x.shape))
        if right:
            return lax.dot_general(w, y, (contracting[::-1], batch[::-1]))
        return lax.dot_general(y, w, (contracting, batch))

    run(f"fold-constants,{PASS}", fn, jax.numpy.asarray(x))
