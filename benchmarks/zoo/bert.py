"""BERT-base (Devlin et al., 2018): the encoder with its pooler."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from .model import ZooModel, draw_params, token_input

EPSILON = 1e-12


class SelfAttention(nn.Module):
    """Heads-first attention; `bias` is added to the scores, 0 where a key may be seen."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array:
        batch, length, width = x.shape

        def split(y: jax.Array) -> jax.Array:
            return y.reshape(batch, length, self.heads, -1).transpose(0, 2, 1, 3)

        query, key, value = (split(nn.Dense(width)(x)) for _ in range(3))
        scores = jnp.matmul(query, key.transpose(0, 1, 3, 2)) / math.sqrt(width // self.heads)
        y = jnp.matmul(nn.softmax(scores + bias), value)
        return nn.Dense(width)(y.transpose(0, 2, 1, 3).reshape(batch, length, width))


class Layer(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = nn.LayerNorm(EPSILON)(x + SelfAttention(self.heads)(x, bias))
        y = nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(x), approximate=False))
        x = nn.LayerNorm(EPSILON)(x + y)
        return x


class Bert(nn.Module):
    """Hidden states `[batch, length, width]` and the pooled first one `[batch, width]`.

    Takes token and segment numbers and a mask that is 1 at tokens and 0 at padding, all int32 `[batch, length]`.
    """

    vocabulary: int = 30522
    context: int = 512
    segments: int = 2
    width: int = 768
    depth: int = 12
    heads: int = 12

    @nn.compact
    def __call__(self, tokens: jax.Array, segments: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nn.Embed(self.vocabulary, self.width)(tokens)
        x = x + nn.Embed(self.context, self.width)(jnp.arange(tokens.shape[1]))
        x = nn.LayerNorm(EPSILON)(x + nn.Embed(self.segments, self.width)(segments))
        bias = (1.0 - mask[:, None, None, :].astype(x.dtype)) * jnp.finfo(x.dtype).min
        for _ in range(self.depth):
            x = Layer(self.heads)(x, bias)
        return x, nn.tanh(nn.Dense(self.width)(x[:, 0]))


def build(batch: int = 1, length: int = 128, depth: int = 12) -> ZooModel:
    """The last eighth of the input is padding."""
    module = Bert(depth=depth)
    mask = jnp.broadcast_to((jnp.arange(length) < length - length // 8).astype(jnp.int32), (batch, length))
    inputs = (token_input(module.vocabulary, batch, length), token_input(module.segments, batch, length), mask)
    return ZooModel("bert-base", "transformer", module.apply, draw_params(module, inputs), inputs)
