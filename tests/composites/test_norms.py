"""`fuse` finds normalizations as libraries and people spell them, and what it finds stays bit for bit what it was."""

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
from xlapass.passes.composites.group_norm import group_norm, instance_norm
from xlapass.passes.composites.layer_norm import layer_norm
from xlapass.passes.composites.rms_norm import rms_norm

CLEAN = "inline,fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(1.0, 2.0, (2, 5, 8)), jnp.float32)
IMAGE = jnp.asarray(RNG.normal(1.0, 2.0, (2, 8, 3, 3)), jnp.float32)
SCALE, BIAS = jnp.linspace(0.5, 2.0, 8), jnp.linspace(-1.0, 1.0, 8)


def linen(module, x=X):
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda v: jnp.linspace(0.5, 2.0, v.size, dtype=v.dtype).reshape(v.shape), variables)
    return lambda x: module.apply(variables, x)


def by_hand(x):
    centered = x - x.mean(-1, keepdims=True)
    return SCALE * (centered / jnp.sqrt((centered * centered).mean(-1, keepdims=True) + 1e-5)) + BIAS


def by_variance(x):
    y = (x - jnp.mean(x, -1, keepdims=True)) * (1 / jnp.sqrt(jnp.var(x, -1, keepdims=True) + 1e-5))
    return y * SCALE + BIAS


def by_moments(x):
    mean = jnp.sum(x, -1)[..., None] * (1 / 8)
    variance = jnp.maximum(0, jnp.sum(x**2, -1)[..., None] * (1 / 8) - mean**2)
    return (x - mean) * (lax.rsqrt(variance + 1e-5) * SCALE) + BIAS


def channels_first(x):
    y = (x - x.mean(1, keepdims=True)) * lax.rsqrt(x.var(1, keepdims=True) + 1e-6)
    return y * SCALE[:, None, None] + BIAS[:, None, None]


def llama(x):
    wide = x.astype(jnp.float32)
    wide = wide * lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + 1e-6)
    return wide.astype(x.dtype) * SCALE.astype(x.dtype)


def rms_by_division(x):
    return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * (1 + SCALE)


def groups_by_hand(x):
    y = x.reshape(2, 4, 2, 3, 3)
    y = (y - y.mean((2, 3, 4), keepdims=True)) / jnp.sqrt(y.var((2, 3, 4), keepdims=True) + 1e-5)
    return y.reshape(x.shape) * SCALE[:, None, None]


def instances_by_hand(x):
    y = (x - x.mean((2, 3), keepdims=True)) / jnp.sqrt(x.var((2, 3), keepdims=True) + 1e-5)
    return y * SCALE[:, None, None] + BIAS[:, None, None]


BF16, IMAGE_LAST = X.astype(jnp.bfloat16), IMAGE.transpose(0, 2, 3, 1)
RNGS = nnx.Rngs(0)
LAYER, RMS, GROUP, INSTANCE = ("xlapass." + n for n in ("layer_norm", "rms_norm", "group_norm", "instance_norm"))
FOUND = {
    "linen layer": (linen(nn.LayerNorm()), X, LAYER, 3, {"axis": 2}),
    "linen layer, two passes": (linen(nn.LayerNorm(use_fast_variance=False)), X, LAYER, 3, {"axis": 2}),
    "linen layer, bare": (linen(nn.LayerNorm(use_bias=False, use_scale=False)), X, LAYER, 1, {"axis": 2}),
    "linen layer, no bias": (linen(nn.LayerNorm(use_bias=False)), X, LAYER, 2, {"axis": 2}),
    "linen layer, bfloat16": (linen(nn.LayerNorm(dtype=jnp.bfloat16)), BF16, LAYER, 3, {"axis": 2}),
    "linen layer, channels first": (linen(nn.LayerNorm(1e-5, reduction_axes=1, feature_axes=1), IMAGE), IMAGE, LAYER, 3,
                                    {"axis": 1}),
    "nnx layer": (nnx.LayerNorm(8, rngs=RNGS), X, LAYER, 3, {"axis": 2}),
    "equinox layer": (jax.vmap(jax.vmap(eqx.nn.LayerNorm(8))), X, LAYER, 3, {"axis": 2}),
    "jax.nn.standardize": (jax.nn.standardize, X, LAYER, 1, {"axis": 2}),
    "layer by hand": (by_hand, X, LAYER, 3, {"axis": 2}),
    "layer by variance": (by_variance, X, LAYER, 3, {"axis": 2}),
    "layer by moments": (by_moments, X, LAYER, 3, {"axis": 2}),
    "layer, channels first": (channels_first, IMAGE, LAYER, 3, {"axis": 1}),
    "linen rms": (linen(nn.RMSNorm()), X, RMS, 2, {"axis": 2}),
    "nnx rms, bfloat16": (nnx.RMSNorm(8, dtype=jnp.bfloat16, rngs=RNGS), BF16, RMS, 2, {"axis": 2}),
    "equinox rms": (jax.vmap(jax.vmap(eqx.nn.RMSNorm(8))), X, RMS, 3, {"axis": 2}),
    "llama": (llama, BF16, RMS, 2, {"axis": 2}),
    "rms by division": (rms_by_division, X, RMS, 2, {"axis": 2}),
    "linen group": (linen(nn.GroupNorm(4)), X, GROUP, 3, {"axis": 2, "groups": 4}),
    "linen group, image": (linen(nn.GroupNorm(2), IMAGE_LAST), IMAGE_LAST, GROUP, 3, {"axis": 3, "groups": 2}),
    "nnx group": (nnx.GroupNorm(8, num_groups=2, rngs=RNGS), X, GROUP, 3, {"axis": 2, "groups": 2}),
    "group in a shape of its own": (groups_by_hand, IMAGE, LAYER, 1, {"axis": (2, 3, 4)}),
    "linen instance": (linen(nn.InstanceNorm()), X, INSTANCE, 3, {"axis": 2}),
    "instance by hand": (instances_by_hand, IMAGE, INSTANCE, 3, {"axis": 1}),
}  # fmt: skip


def found(program):
    return [node for node in Graph(program.jaxpr).nodes() if node.name == "composite"]


@pytest.mark.parametrize("name", FOUND)
def test_every_spelling_is_found_and_stays_what_it_was(run, name):
    fn, x, composite, operands, attributes = FOUND[name]
    program = run(CLEAN, trace(fn, x))
    fused = run("fuse", program)
    (node,) = found(fused)
    assert (node.params["name"], len(node.inputs)) == (composite, operands)
    epsilon = attributes_of(node).pop("epsilon")
    assert 0 < epsilon < 1e-4
    assert attributes_of(node) == {**attributes, "epsilon": epsilon}
    assert node.outputs[0].dtype == x.dtype
    assert sorted(operations(run("lower-composites", fused))) == sorted(operations(program))
    np.testing.assert_array_equal(fused(x), program(x))


@pytest.mark.parametrize("name", FOUND)
def test_the_decomposition_is_what_was_found(run, name):
    fn, x, _, _, _ = FOUND[name]
    program = run(f"{CLEAN},fuse", trace(fn, x))
    (node,) = found(program)
    plain = {LAYER: layer_norm, RMS: rms_norm, GROUP: group_norm, INSTANCE: instance_norm}[node.params["name"]]
    constants = [v.numpy() for v in node.inputs if v.is_const]
    given = jnp.asarray(x.reshape(node.inputs[0].shape), jnp.float32)
    want = np.asarray(jax.jit(_body(node))(given.astype(node.inputs[0].dtype), *constants), np.float32)
    tolerance = 3e-2 if x.dtype == jnp.bfloat16 else 2e-5
    have = plain(given, *map(jnp.float32, constants), **attributes_of(node))
    np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)


def _body(node):
    closed = node.body.to_closed()
    return lambda *arrays: jax.extend.core.jaxpr_as_fun(closed)(*arrays)[0]


@pytest.mark.parametrize("fn, name", [(by_hand, LAYER), (linen(nn.LayerNorm()), LAYER), (llama, RMS)])
def test_a_symbolic_batch_is_no_obstacle(run, fn, name):
    program = run(CLEAN, trace(fn, X, dynamic="batch, length, ..."))
    fused = run("fuse", program)
    assert [node.params["name"] for node in found(fused)] == [name]
    np.testing.assert_array_equal(fused(X[:1, :3]), program(X[:1, :3]))


SQUARE = jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32)


def mean_along_the_wrong_axis(x):
    return (x - x.mean(0)[:, None]) * lax.rsqrt(x.var(1, keepdims=True) + 1e-5)


def two_axes(x):
    return (x - x.mean(0, keepdims=True)) * lax.rsqrt(x.var(1, keepdims=True) + 1e-5)


def unbiased_variance(x):
    return (x - x.mean(1, keepdims=True)) * lax.rsqrt(x.var(1, keepdims=True, ddof=1) + 1e-5)


def mean_of_something_else(x):
    return (x - (2 * x).mean(1, keepdims=True)) * lax.rsqrt(x.var(1, keepdims=True) + 1e-5)


def sum_instead_of_mean(x):
    return x * lax.rsqrt(jnp.square(x).sum(1, keepdims=True) + 1e-5)


def used_elsewhere(x):
    inverse = lax.rsqrt(x.var(1, keepdims=True) + 1e-5)
    return (x - x.mean(1, keepdims=True)) * inverse, inverse


REJECTED = [mean_along_the_wrong_axis, two_axes, unbiased_variance, mean_of_something_else, sum_instead_of_mean,
            used_elsewhere]  # fmt: skip


@pytest.mark.parametrize("fn", REJECTED)
def test_what_only_looks_like_it_is_left_alone(run, fn):
    names = [node.params["name"] for node in found(run(f"{CLEAN},fuse", trace(fn, SQUARE)))]
    assert not set(names) & {LAYER, RMS, GROUP, INSTANCE}


def test_what_remains_when_the_mean_is_used_elsewhere(run):
    def model(x):
        mean = x.mean(1, keepdims=True)
        return (x - mean) * lax.rsqrt(x.var(1, keepdims=True) + 1e-5), mean

    (node,) = found(run(f"{CLEAN},fuse", trace(model, SQUARE)))
    assert (node.params["name"], node.inputs[0].producer.name) == (RMS, "sub")


def test_a_scale_along_another_axis_stays_outside(run):
    def model(x):
        return jax.nn.standardize(x) * jnp.arange(4.0)[:, None]

    (node,) = found(run(f"{CLEAN},fuse", trace(model, SQUARE)))
    assert (node.params["name"], len(node.inputs)) == (LAYER, 1)


def test_parameters_may_be_inputs(run):
    program = run(f"{CLEAN},fuse", trace(lambda x, s, b: jax.nn.standardize(x) * s + b, X, SCALE, BIAS))
    (node,) = found(program)
    assert [value.shape for value in node.inputs] == [(2, 5, 8), (8,), (8,)]


def test_an_epsilon_that_is_an_array_is_no_operand(run):
    """JAX makes operands of its own arrays that a composite closes over."""
    epsilon = jnp.float32(1e-3)
    program = trace(lambda x: x * lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + epsilon), X)
    (equation,) = run(f"{CLEAN},fuse", program).jaxpr.jaxpr.eqns
    assert equation.params["name"] == "xlapass.rms_norm"
    assert [var.aval.shape for var in equation.invars] == [X.shape]
