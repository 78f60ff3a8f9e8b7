"""`fuse` finds attention as libraries and people spell it, and what it finds stays bit for bit what it was."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from support import operations
from xlapass.core.composites import attributes_of
from xlapass.core.graph import Graph
from xlapass.core.tracing import trace
from xlapass.passes.composites.attention import attention

CLEAN = "inline,fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"
RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


B, T, S, N, D = 2, 5, 7, 4, 8
Q, K, V = normal(B, T, N, D), normal(B, S, N, D), normal(B, S, N, D)
FIRST = [x.transpose(0, 2, 1, 3) for x in (Q, K, V)]
GROUPED = (Q, normal(B, S, 2, D), normal(B, S, 2, D))
MASK = jnp.asarray(RNG.random((B, 1, T, S)) > 0.3)
BIAS = normal(B, N, T, S)
TRIANGLE = np.tril(np.ones((T, S), bool))
X, MEMORY = normal(B, T, 8), normal(B, S, 8)
ROOT = D**0.5
LEAST = float(jnp.finfo(jnp.float32).min)


def einsum(q, k, v):
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / ROOT), v)


def scaled_query(q, k, v):
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q * (1 / ROOT), k)), v)


def scaled_key(q, k, v):
    return jax.nn.softmax(q @ (k / ROOT).swapaxes(-1, -2)) @ v


def matmul_first(q, k, v):
    scores = (q @ k.swapaxes(-1, -2)) * (1 / ROOT)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)) @ v


def where_causal(q, k, v):
    scores = q @ k.swapaxes(-1, -2) / ROOT
    return jax.nn.softmax(jnp.where(TRIANGLE, scores, -1e9)) @ v


def where_upper(q, k, v):
    scores = q @ k.swapaxes(-1, -2) / ROOT
    return jax.nn.softmax(jnp.where(np.triu(np.ones((T, S), bool), 1), -jnp.inf, scores)) @ v


def added_causal(q, k, v):
    return jax.nn.softmax(q @ k.swapaxes(-1, -2) / ROOT + jnp.where(TRIANGLE, 0.0, LEAST)) @ v


def positions(q, k, v):
    seen = jnp.arange(k.shape[2]) <= jnp.arange(q.shape[2])[:, None]
    return jax.nn.softmax(jnp.where(seen, q @ k.swapaxes(-1, -2), LEAST)) @ v


def bias_and_mask(q, k, v, bias, mask):
    scores = jnp.where(mask, jnp.einsum("bthd,bshd->bhts", q, k) / ROOT + bias, -1e30)
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)


def values_of_other_depth(q, k, v):
    return jax.nn.softmax(q @ k.swapaxes(-1, -2)) @ v[..., :3]


def grouped_by_hand(q, k, v):
    q = q.reshape(B, T, 2, 2, D).transpose(0, 2, 3, 1, 4)
    weights = jax.nn.softmax(jnp.einsum("bkgtd,bskd->bkgts", q, k))
    return jnp.einsum("bkgts,bskd->bkgtd", weights, v)


def heads_only(q, k, v):
    return jax.nn.softmax(q @ k.swapaxes(-1, -2) / ROOT) @ v


def library(**options):
    return lambda q, k, v: jax.nn.dot_product_attention(q, k, v, **options)


LINEN = nn.MultiHeadDotProductAttention(num_heads=2)
VARIABLES = jax.tree.map(lambda v: normal(*v.shape), jax.eval_shape(LINEN.init, jax.random.key(0), X, MEMORY))


def linen(x, memory, mask):
    return LINEN.apply(VARIABLES, x, memory, mask=mask)


EQUINOX = eqx.nn.MultiheadAttention(2, 8, key=jax.random.key(0))
NNX = nnx.MultiHeadAttention(num_heads=2, in_features=8, decode=False, rngs=nnx.Rngs(0))
BF16 = tuple(x.astype(jnp.bfloat16) for x in (Q, K, V))

LAST, HEADS_FIRST = "bqhd,bkhd,bkhe->bqhe", "bhqd,bhdk,bhke->bhqe"
FOUND = {
    "einsum": (einsum, (Q, K, V), LAST, ROOT**-1, (), False),
    "scaled query": (scaled_query, (Q, K, V), LAST, ROOT**-1, (), False),
    "scaled key": (scaled_key, FIRST, "bhqd,bhkd,bhke->bhqe", ROOT**-1, (), False),
    "matmul": (matmul_first, FIRST, HEADS_FIRST, ROOT**-1, (), False),
    "where, causal": (where_causal, FIRST, "bhqd,bhdk,bhke,bhqk->bhqe", ROOT**-1, ("keep",), True),
    "where, upper triangle": (where_upper, FIRST, "bhqd,bhdk,bhke,bhqk->bhqe", ROOT**-1, ("drop",), True),
    "added, causal": (added_causal, FIRST, "bhqd,bhdk,bhke,11qk->bhqe", ROOT**-1, ("add",), True),
    "positions": (positions, FIRST, "bhqd,bhdk,bhke,bhqk->bhqe", 1.0, ("keep",), True),
    "bias and mask": (bias_and_mask, (Q, K, V, BIAS, MASK), "bqhd,bkhd,bkhe,bhqk,bhqk->bqhe", ROOT**-1,
                      ("add", "keep"), False),
    "other depth": (values_of_other_depth, FIRST, HEADS_FIRST, 1.0, (), False),
    "one batch dimension": (heads_only, [x[0] for x in FIRST], "hqd,hdk,hke->hqe", ROOT**-1, (), False),
    "grouped by hand": (grouped_by_hand, GROUPED, "bhgqd,bkhd,bkhe->bhgqe", 1.0, (), False),
    "jax.nn": (library(), (Q, K, V), "bqh1d,bkhd,bkhe->bqh1e", ROOT**-1, (), False),
    "jax.nn, causal": (library(is_causal=True), (Q, K, V), "bqh1d,bkhd,bkhe,1bhqk->bqh1e", ROOT**-1, ("keep",), True),
    "jax.nn, grouped": (library(is_causal=True), GROUPED, "bqhgd,bkhd,bkhe,gbhqk->bqhge", ROOT**-1, ("keep",), True),
    "jax.nn, scale": (library(scale=0.5), BF16, "bqh1d,bkhd,bkhe->bqh1e", 0.5, (), False),
    "linen": (linen, (X, MEMORY, MASK), "bqhd,bkhd,bkhe,bhqk->bqhe", 0.5, ("keep",), False),
    "nnx": (NNX, (X, MEMORY), "bqh1d,bkhd,bkhe->bqh1e", 0.5, (), False),
    "equinox": (jax.vmap(EQUINOX), (X, MEMORY, 2 * MEMORY), LAST, 0.5, (), False),
}  # fmt: skip


def found(program):
    return [node for node in Graph(program.jaxpr).nodes() if node.params.get("name") == "xlapass.attention"]


def without_fills(program):
    """The operations, less the broadcasts into which arrays of one number turn in the body of a composite."""
    return sorted(name for name in operations(program) if name != "broadcast_in_dim")


@pytest.mark.parametrize("name", FOUND)
def test_every_spelling_is_found_and_stays_what_it_was(run, name):
    fn, args, equation, scale, kinds, is_causal = FOUND[name]
    program = run(CLEAN, trace(fn, *args))
    fused = run("fuse", program)
    (node,) = found(fused)
    attributes = attributes_of(node)
    assert attributes["equation"] == equation
    assert (attributes["kinds"], attributes["is_causal"]) == (kinds, is_causal)
    assert attributes["scale"] == pytest.approx(scale, rel=1e-2)
    assert len(node.inputs) == 3 + len(kinds)
    assert without_fills(run("lower-composites", fused)) == without_fills(program)
    np.testing.assert_array_equal(fused(*args), program(*args))
    # The meaning that the attributes give is what was there.
    body = node.body.to_closed()
    operands = [v.numpy() if v.is_const else RNG.normal(size=v.shape).astype(v.dtype) for v in node.inputs]
    (want,) = jax.extend.core.jaxpr_as_fun(body)(*operands)
    tolerance = 2e-2 if want.dtype == jnp.bfloat16 else 1e-5
    have = attention(*(jnp.asarray(x, jnp.float32) if x.dtype != bool else x for x in operands), **attributes)
    np.testing.assert_allclose(have, np.asarray(want, np.float32), rtol=tolerance, atol=tolerance)


def test_symbolic_sizes_are_no_obstacle(run):
    program = run(CLEAN, trace(positions, *FIRST, dynamic=["b, _, t, _", "b, _, s, _", "b, _, s, _"]))
    fused = run("fuse", program)
    (node,) = found(fused)
    assert attributes_of(node)["is_causal"]
    args = [x[:1, :, :3] for x in FIRST]
    np.testing.assert_array_equal(fused(*args), program(*args))


def test_softmax_remains_a_composite_inside(run):
    (node,) = found(run(f"{CLEAN},fuse", trace(einsum, Q, K, V)))
    assert [e.params["name"] for e in node.body.to_closed().eqns if e.primitive.name == "composite"] == [
        "xlapass.softmax"
    ]


def over_the_queries(q, k, v):
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k), 2), v)


def weights_are_a_result(q, k, v):
    weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
    return jnp.einsum("bhts,bshd->bthd", weights, v), weights


def heads_are_summed(q, k, v):
    return jnp.einsum("bhts,bshd->btd", jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k)), v)


def masked_after(q, k, v):
    weights = jnp.where(TRIANGLE, jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k)), 0.0)
    return jnp.einsum("bhts,bshd->bthd", weights, v)


def something_between(q, k, v):
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.tanh(jnp.einsum("bthd,bshd->bhts", q, k))), v)


@pytest.mark.parametrize(
    "fn", [over_the_queries, weights_are_a_result, heads_are_summed, masked_after, something_between]
)
def test_what_only_looks_like_it_is_left_alone(run, fn):
    assert found(run(f"{CLEAN},fuse", trace(fn, Q, K, V))) == []


@pytest.mark.parametrize(
    "mask, causal",
    [
        (lambda i, j: i >= j, True),
        (lambda i, j: j < i + 1, True),
        (lambda i, j: ~(j > i), True),
        (lambda i, j: i > j, False),
        (lambda i, j: i + 1 >= j, False),
        (lambda i, j: j >= i, False),
        (lambda i, j: (i >= j) | (j < 2), False),
    ],
)
@pytest.mark.parametrize("pipeline", [CLEAN, "inline,simplify,dead-code"])
def test_what_is_causal(run, mask, causal, pipeline):
    def model(q, k, v):
        seen = mask(lax.broadcasted_iota(jnp.int32, (T, S), 0), lax.broadcasted_iota(jnp.int32, (T, S), 1))
        return jax.nn.softmax(jnp.where(seen, q @ k.swapaxes(-1, -2), LEAST)) @ v

    (node,) = found(run(f"{pipeline},fuse", trace(model, *FIRST)))
    assert attributes_of(node)["is_causal"] is causal
