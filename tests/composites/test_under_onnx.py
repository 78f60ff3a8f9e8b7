"""Composites that become single operators of ONNX, under ONNX Runtime."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

import xlapass

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def operators(fn, *args, tolerance=1e-4):
    """The operators of the exported model, whose results are compared with JAX's."""
    artifact = xlapass.compile(fn, *args, pipeline="onnx")
    have, want = artifact.executable()(*args), jax.jit(fn)(*args)
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=tolerance, atol=tolerance)
    return [node.op_type for node in artifact.model.graph]


def library(**options):
    return lambda q, k, v, **masks: jax.nn.dot_product_attention(q, k, v, **options, **masks)


SEEN = RNG.random((2, 1, 5, 7)) > 0.5
SEEN[0, 0, 2] = False  # a query that sees no key
ATTENTION = {
    "plain": (library(), 4, {}),
    "causal": (library(is_causal=True), 4, {}),
    "causal, grouped": (library(is_causal=True), 2, {}),
    "mask": (library(), 4, {"mask": SEEN}),
    "mask of keys": (library(), 4, {"mask": SEEN[:, :, :1]}),
    "mask, grouped": (library(), 2, {"mask": SEEN}),
    "bias": (library(scale=0.3), 4, {"bias": normal(1, 4, 5, 7)}),
    "bias and mask": (library(), 4, {"bias": normal(2, 4, 5, 7), "mask": SEEN}),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name):
    fn, heads, masks = ATTENTION[name]
    args = (normal(2, 5, 4, 8), normal(2, 7, heads, 8), normal(2, 7, heads, 8))
    found = operators(lambda q, k, v, *rest: fn(q, k, v, **dict(zip(masks, rest, strict=True))), *args, *masks.values())
    assert found.count("Attention") == 1
    assert not {"MatMul", "Softmax", "Einsum"} & set(found)


class Block(nn.Module):
    """A transformer block, with the norm before (GPT-2) or behind (BERT)."""

    heads: int
    before: bool

    @nn.compact
    def __call__(self, x, mask):
        x = self._normed(lambda y: self._attend(y, mask), x)
        return self._normed(lambda y: nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(32)(y), approximate=self.before)), x)

    def _normed(self, layer, x):
        return x + layer(nn.LayerNorm()(x)) if self.before else nn.LayerNorm()(x + layer(x))

    def _attend(self, x, mask):
        batch, length, width = x.shape
        q, k, v = (nn.Dense(width)(x).reshape(batch, length, self.heads, -1).transpose(0, 2, 1, 3) for _ in range(3))
        scores = jnp.matmul(q, k.swapaxes(2, 3)) / math.sqrt(width // self.heads)
        if self.before:
            scores = jnp.where(np.tril(np.ones((length, length), bool)), scores, jnp.finfo(x.dtype).min)
        else:
            scores = scores + (1.0 - mask[:, None, None, :]) * jnp.finfo(x.dtype).min
        y = jnp.matmul(nn.softmax(scores), v)
        return nn.Dense(width)(y.transpose(0, 2, 1, 3).reshape(batch, length, width))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("before", [True, False], ids=["gpt2", "bert"])
def test_two_layers_of_a_transformer(before, batch):
    blocks = [Block(4, before), Block(4, before)]
    x, mask = normal(batch, 6, 16), np.array([[1, 1, 1, 1, 1, 0]] * batch, np.float32)
    shapes = jax.eval_shape(blocks[0].init, jax.random.key(0), x, mask)
    params = [jax.tree.map(lambda v: 0.3 * normal(*v.shape), shapes) for _ in blocks]

    def fn(x, mask):
        for block, variables in zip(blocks, params, strict=True):
            x = block.apply(variables, x, mask)
        return x

    found = operators(fn, x, mask)
    assert (found.count("LayerNormalization"), found.count("Gelu"), found.count("Attention")) == (4, 2, 2)
    assert not {"Softmax", "Erf", "ReduceMean", "Sqrt"} & set(found)


@pytest.mark.parametrize(
    "module, operator",
    [(nn.LayerNorm(dtype=jnp.bfloat16), "LayerNormalization"), (nn.RMSNorm(dtype=jnp.bfloat16), "RMSNormalization")],
)
def test_norms_of_narrow_floats_with_wide_parameters(module, operator):
    x = jnp.asarray(normal(2, 5, 8), jnp.bfloat16)
    variables = jax.tree.map(lambda v: normal(*v.shape), jax.eval_shape(module.init, jax.random.key(0), x))
    assert operator in operators(lambda x: module.apply(variables, x), x, tolerance=2e-2)


@pytest.mark.parametrize(
    "fn, operator",
    [
        (jax.nn.hard_swish, "HardSwish"),
        (jax.nn.hard_sigmoid, "HardSigmoid"),
        (jax.nn.relu6, "Clip"),
        (jax.nn.softplus, "Softplus"),
        (jax.nn.mish, "Mish"),
        (lambda x: jax.nn.elu(x, 0.5), "Elu"),
        (jax.nn.selu, "Selu"),
        (lambda x: jax.nn.celu(x, 2.0), "Celu"),
        (jax.nn.leaky_relu, "LeakyRelu"),
        (jax.nn.log_softmax, "LogSoftmax"),
        (lambda x: x - jax.nn.logsumexp(x, axis=0), "LogSoftmax"),
        (lambda x: jax.nn.gelu(x, approximate=False), "Gelu"),
    ],
)
def test_activations_are_one_operator(fn, operator):
    x = np.linspace(-100, 100, 402, dtype=np.float32).reshape(2, 201)
    assert operators(fn, x) == [operator]
