"""`fuse` finds rotary embeddings of halves and of neighbours."""

import jax.numpy as jnp
import numpy as np
import pytest
from xlapass.core.composites import attributes_of
from xlapass.core.graph import Graph
from xlapass.core.tracing import trace
from xlapass.passes.composites.rotary_embedding import rotary_embedding

CLEAN = "inline,fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 5, 3, 8)), jnp.float32)
ANGLES = jnp.arange(5.0)[:, None, None] * 100 ** -jnp.linspace(0, 1, 4)
COS, SIN = jnp.cos(ANGLES), jnp.sin(ANGLES)


def of_split(x, cos, sin):
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def of_index(x, cos, sin):
    first, second = x[..., :4], x[..., 4:]
    return jnp.concatenate([cos * first - sin * second, sin * first + cos * second], axis=-1)


def rotate_half(x, cos, sin):
    turned = jnp.concatenate((-x[..., 4:], x[..., :4]), axis=-1)
    return x * jnp.concatenate((cos, cos), -1) + turned * jnp.concatenate((sin, sin), -1)


def stacked(x, cos, sin):
    first, second = x[..., ::2], x[..., 1::2]
    return jnp.stack([first * cos - second * sin, first * sin + second * cos], axis=-1).reshape(x.shape)


def found(program):
    return [node for node in Graph(program.jaxpr).nodes() if node.name == "composite"]


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("fn, interleaved", [(of_split, False), (of_index, False), (rotate_half, False),
                                             (stacked, True)])  # fmt: skip
def test_every_spelling_is_found_and_stays_what_it_was(run, fn, interleaved, constant):
    model, args = (lambda x: fn(x, COS, SIN), (X,)) if constant else (fn, (X, COS, SIN))
    program = run(CLEAN, trace(model, *args))
    fused = run("fuse", program)
    (node,) = found(fused)
    assert (node.params["name"], attributes_of(node)) == ("xlapass.rotary_embedding", {"interleaved": interleaved})
    assert len(node.inputs) == 3
    np.testing.assert_array_equal(fused(*args), program(*args))
    double = fn is rotate_half
    cos, sin = ((jnp.concatenate((a, a), -1) if double else a) for a in (COS, SIN))
    np.testing.assert_allclose(
        rotary_embedding(X, cos, sin, interleaved=interleaved), fn(X, COS, SIN), rtol=1e-5, atol=1e-6
    )


def test_a_symbolic_batch_is_no_obstacle(run):
    fused = run(f"{CLEAN},fuse", trace(lambda x: of_split(x, COS, SIN), X, dynamic="batch, ..."))
    assert len(found(fused)) == 1
    np.testing.assert_allclose(fused(X[:1]), of_split(X[:1], COS, SIN), rtol=1e-6)


def the_other_way_round(x, cos, sin):
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([second * cos - first * sin, first * cos + second * sin], axis=-1)


def along_another_axis(x, cos, sin):
    first, second = x[..., :4], x[..., 4:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)


def overlapping(x, cos, sin):
    first, second = x[..., :4], x[..., 3:7]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def a_reflection(x, cos, sin):
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos + second * sin, second * cos - first * sin], axis=-1)


@pytest.mark.parametrize("fn", [the_other_way_round, along_another_axis, overlapping, a_reflection])
def test_what_only_looks_like_it_is_left_alone(run, fn):
    assert found(run(f"{CLEAN},fuse", trace(fn, X, COS, SIN))) == []
