"""`fuse` finds softmax along any axis, and what it finds stays bit for bit what it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from support import operations
from xlapass.core.composites import attributes_of
from xlapass.core.graph import Graph
from xlapass.core.tracing import trace
from xlapass.passes.composites.softmax import SOFTMAX
from xlapass.testing import assert_equal_results, program_text

X = jnp.arange(12.0).reshape(3, 4)


def by_hand(x, axis):
    e = jnp.exp(x - jnp.max(x, axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def by_reshape(x, axis):
    kept = tuple(1 if i == axis else d for i, d in enumerate(x.shape))
    e = jnp.exp(x - lax.stop_gradient(jnp.max(x, axis).reshape(kept)))
    return e / jnp.sum(e, axis).reshape(kept)


def by_full_broadcast(x, axis):
    others = tuple(i for i in range(x.ndim) if i != axis)
    e = jnp.exp(x - lax.broadcast_in_dim(jnp.max(x, axis), x.shape, others))
    return e / lax.broadcast_in_dim(jnp.sum(e, axis), x.shape, others)


SPELLINGS = {"jax.nn": jax.nn.softmax, "by hand": by_hand, "reshape": by_reshape, "broadcast": by_full_broadcast}


def composites_of(program):
    return [(n.params["name"], attributes_of(n)) for n in Graph(program.jaxpr).nodes() if n.name == "composite"]


@given(
    st.sampled_from(sorted(SPELLINGS)),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(0, 2),
    st.sampled_from(["float32", "float16", "bfloat16"]),
)
def test_opening_gives_back_the_very_operations(run, name, shape, axis, dtype):
    axis %= len(shape)
    program = run("inline", trace(lambda x: SPELLINGS[name](x, axis), jnp.ones(shape, dtype)))
    fused = run("fuse", program)
    assert composites_of(fused) == [("xlapass.softmax", {"axis": axis})]
    assert program_text(run("lower-composites", fused)) == program_text(program)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_bits_are_the_same(registry_with, dtype):
    x = jnp.array([[0.0, 1.0, -1e4], [jnp.inf, 1.0, 0.0], [-jnp.inf, -jnp.inf, -jnp.inf], [jnp.nan, 0.0, 1.0]], dtype)
    assert_equal_results("inline,fuse", jax.nn.softmax, x, registry=registry_with())


def test_rows_without_elements(run):
    program = trace(jax.nn.softmax, jnp.ones((0, 3)))
    fused = run("inline,fuse", program)
    assert composites_of(fused) == [("xlapass.softmax", {"axis": 1})]
    assert fused(jnp.ones((0, 3))).shape == (0, 3)


def over_different_axes(x):
    e = jnp.exp(x - jnp.max(x, 0, keepdims=True))
    return e / e.sum(1, keepdims=True)


def along_the_wrong_axis(x):
    e = jnp.exp(x - jnp.max(x, 0)[:, None])
    return e / jnp.sum(e, 0, keepdims=True)


def over_both_axes(x):
    e = jnp.exp(x - jnp.max(x, keepdims=True))
    return e / jnp.sum(e, keepdims=True)


def of_something_else(x):
    e = jnp.exp(x - jnp.max(2 * x, 0, keepdims=True))
    return e / jnp.sum(e, 0, keepdims=True)


@pytest.mark.parametrize("fn", [over_different_axes, along_the_wrong_axis, over_both_axes, of_something_else])
def test_what_only_looks_like_it_is_left_alone(run, fn):
    assert "composite" not in operations(run("inline,fuse", trace(fn, jnp.ones((3, 3)))))


@pytest.mark.parametrize("axis", [0, 1])
def test_decomposition(axis):
    np.testing.assert_allclose(SOFTMAX(X, axis=axis), jax.nn.softmax(X, axis), rtol=1e-6)
