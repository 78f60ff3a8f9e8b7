"""GPT-2 (Radford et al., 2019), the smallest: prefill of a prompt, and one decode step with a key-value cache."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from .model import ZooModel, draw_params, normal_input, token_input

# Keys and values of one layer, each `[batch, length, heads, head width]`.
Cache = tuple[jax.Array, jax.Array]


class SelfAttention(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, position: Any, cache: Cache | None) -> tuple[jax.Array, Cache]:
        batch, length, width = x.shape
        qkv = nn.Dense(3 * width)(x).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if cache is not None:
            key = lax.dynamic_update_slice(cache[0], key, (0, position, 0, 0))
            value = lax.dynamic_update_slice(cache[1], value, (0, position, 0, 0))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(width // self.heads)
        visible = jnp.arange(key.shape[1]) <= position + jnp.arange(length)[:, None]
        weights = nn.softmax(jnp.where(visible, scores, jnp.finfo(scores.dtype).min))
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, length, width)
        return nn.Dense(width)(y), (key, value)


class Block(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, position: Any, cache: Cache | None) -> tuple[jax.Array, Cache]:
        width = x.shape[-1]
        y, cache = SelfAttention(self.heads)(nn.LayerNorm(1e-5)(x), position, cache)
        x = x + y
        y = nn.gelu(nn.Dense(4 * width)(nn.LayerNorm(1e-5)(x)), approximate=True)
        return x + nn.Dense(width)(y), cache


class GPT2(nn.Module):
    """Logits for `tokens` `[batch, length]` that start at `position`, and the cache of every layer.

    The output matrix is the transposed embedding. With `last_only` the logits are those of the last position,
    `[batch, vocabulary]`; otherwise `[batch, length, vocabulary]`.
    """

    vocabulary: int = 50257
    context: int = 1024
    width: int = 768
    depth: int = 12
    heads: int = 12
    last_only: bool = True

    @nn.compact
    def __call__(
        self, tokens: jax.Array, position: Any = 0, caches: tuple[Cache, ...] | None = None
    ) -> tuple[jax.Array, tuple[Cache, ...]]:
        embedding = nn.Embed(self.vocabulary, self.width)
        places = nn.Embed(self.context, self.width)(position + jnp.arange(tokens.shape[1]))
        x = embedding(tokens) + places
        updated = []
        for layer in range(self.depth):
            x, cache = Block(self.heads)(x, position, None if caches is None else caches[layer])
            updated.append(cache)
        x = nn.LayerNorm(1e-5)(x)
        return embedding.attend(x[:, -1] if self.last_only else x), tuple(updated)


def build_prefill(batch: int = 1, length: int = 128, depth: int = 12) -> ZooModel:
    """`fn(params, tokens [batch, length])` gives the logits of the last position and the caches."""
    module = GPT2(depth=depth)
    inputs = (token_input(module.vocabulary, batch, length),)
    return ZooModel("gpt2-prefill", "transformer", module.apply, draw_params(module, inputs), inputs)


def build_decode(batch: int = 1, length: int = 256, depth: int = 12) -> ZooModel:
    """`fn(params, token [batch, 1], position [], caches)`: one step in the middle of a cache of `length` places."""
    module = GPT2(depth=depth)
    token = token_input(module.vocabulary, batch, 1)
    filled = normal_input(2 * depth, batch, length, module.heads, module.width // module.heads)
    caches = tuple((filled[2 * layer], filled[2 * layer + 1]) for layer in range(depth))
    inputs = (token, jnp.asarray(length // 2, jnp.int32), caches)
    return ZooModel("gpt2-decode", "transformer", module.apply, draw_params(module, (token,)), inputs)
