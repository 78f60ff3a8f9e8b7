"""`fuse` finds SiLU, and what it finds stays bit for bit what it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import operations
from xlapass.core.tracing import trace
from xlapass.passes.composites.silu import SILU
from xlapass.testing import assert_equal_results, program_text

SPELLINGS = {
    "jax.nn": jax.nn.silu,
    "sigmoid first": lambda x: jax.nn.sigmoid(x) * x,
    "by exp": lambda x: x / (1 + jnp.exp(-x)),
    "by exp, as a product": lambda x: x * (1 / (jnp.exp(-x) + 1)),
}


@given(
    st.sampled_from(sorted(SPELLINGS)),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from(["float32", "float16", "bfloat16"]),
)
def test_opening_gives_back_the_very_operations(run, name, shape, dtype):
    program = run("inline", trace(SPELLINGS[name], jnp.ones(shape, dtype)))
    fused = run("fuse", program)
    assert [eqn.primitive.name for eqn in fused.jaxpr.eqns] == ["composite"]
    assert program_text(run("lower-composites", fused)) == program_text(program)


def test_the_bits_are_the_same(registry_with):
    x = jnp.array([0.0, -0.0, 1.5, -100.0, 100.0, jnp.inf, -jnp.inf, jnp.nan])
    assert_equal_results("inline,fuse", jax.nn.silu, x, registry=registry_with())


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x * jax.nn.sigmoid(-x),
        lambda x: jnp.exp(x) * jax.nn.sigmoid(x),
        lambda x: x / (2 + jnp.exp(-x)),
        lambda x: x / (1 + jnp.exp(x)),
    ],
)
def test_what_only_looks_like_it_is_left_alone(run, fn):
    assert "composite" not in operations(run("inline,fuse", trace(fn, jnp.ones(3))))


def test_decomposition():
    x = jnp.linspace(-5, 5, 31)
    np.testing.assert_allclose(SILU(x), jax.nn.silu(x), rtol=1e-6)
