"""A causal transformer in Flax nnx.

    xlapass --pipeline=cpu examples/nnx_transformer.py

An nnx module is a `model` as it is: its weights become constants of the program.
"""

import jax
import jax.numpy as jnp
from flax import nnx

VOCABULARY = 8192
LENGTH = 64
WIDTH = 256
HEADS = 4
DEPTH = 4


class Attention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.out = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        batch, length, _ = x.shape
        query, key, value = jnp.split(self.qkv(x).reshape(batch, length, 3 * HEADS, -1), 3, axis=2)
        y = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        return self.out(y.reshape(x.shape))


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm1 = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.attention = Attention(rngs)
        self.norm2 = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(jax.nn.gelu(self.up(self.norm2(x))))


class Transformer(nnx.Module):
    """Logits `[batch, length, vocabulary]` of the token after each of `tokens` `[batch, length]`."""

    def __init__(self, rngs: nnx.Rngs):
        self.embedding = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.places = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.blocks = nnx.List(Block(rngs) for _ in range(DEPTH))
        self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)

    def __call__(self, tokens):
        x = self.embedding(tokens) + self.places(jnp.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.embedding.attend(self.norm(x))


model = Transformer(nnx.Rngs(0))


def example_inputs():
    return (jax.random.randint(jax.random.key(0), (1, LENGTH), 0, VOCABULARY),)
