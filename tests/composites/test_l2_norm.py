"""`fuse` finds division by the norm, however the divisor is kept from zero."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from xlapass.core.composites import attributes_of
from xlapass.core.graph import Graph
from xlapass.core.tracing import trace
from xlapass.passes.composites.l2_norm import l2_norm

CLEAN = "inline,fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"
X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)), jnp.float32).at[0, 0].set(0)


def squares(x, axis=-1):
    return jnp.sum(x * x, axis, keepdims=True)


FOUND = [
    (lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), "none", 2),
    (lambda x: x / jnp.sqrt(squares(x, 1)), "none", 1),
    (lambda x: x * lax.rsqrt(squares(x) + 1e-6), "add", 2),
    (lambda x: x / jnp.sqrt(squares(x, (1, 2)) + 1e-6), "add", (1, 2)),
    (lambda x: x * lax.rsqrt(jnp.maximum(squares(x), 1e-12)), "max", 2),
    (lambda x: x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-6), "add-norm", 2),
    (lambda x: x / jnp.maximum(jnp.sqrt(jnp.sum(x**2, 0)), 1e-6), "max-norm", 0),
]


def found(program):
    return [node for node in Graph(program.jaxpr).nodes() if node.name == "composite"]


@pytest.mark.parametrize("fn, guard, axis", FOUND)
def test_every_spelling_is_found_and_stays_what_it_was(run, fn, guard, axis):
    program = run(CLEAN, trace(fn, X))
    fused = run("fuse", program)
    (node,) = Graph(fused.jaxpr).nodes()
    attributes = attributes_of(node)
    assert (node.params["name"], attributes["guard"], attributes["axis"]) == ("xlapass.l2_norm", guard, axis)
    np.testing.assert_array_equal(fused(X), program(X))
    np.testing.assert_allclose(l2_norm(X, **attributes), program(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x / jnp.sum(jnp.abs(x), -1, keepdims=True),
        lambda x: x[0, :4, :4] / jnp.linalg.norm(x[0, :4, :4], axis=1),
        lambda x: 2 * x / jnp.linalg.norm(x, axis=1, keepdims=True),
    ],
)
def test_what_only_looks_like_it_is_left_alone(run, fn):
    assert found(run(f"{CLEAN},fuse", trace(fn, X))) == []
