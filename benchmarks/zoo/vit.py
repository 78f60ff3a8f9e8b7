"""ViT-S/16 (Dosovitskiy et al., 2020; Touvron et al., 2020) and MLP-Mixer S/16 (Tolstikhin et al., 2021)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from .layers import Layout
from .model import ZooModel, linen_model, normal_input


class EncoderBlock(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm(1e-6)(x))
        y = nn.gelu(nn.Dense(4 * width)(nn.LayerNorm(1e-6)(x)), approximate=False)
        return x + nn.Dense(width)(y)


class ViT(nn.Module):
    layout: Layout
    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layout.conv(self.width, self.patch, self.patch, padding="VALID")(x)
        x = self.layout.to_sequence(x)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], axis=1)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, x.shape[1], self.width))
        for _ in range(self.depth):
            x = EncoderBlock(self.heads)(x)
        return nn.Dense(self.classes)(nn.LayerNorm(1e-6)(x[:, 0]))


class MixerBlock(nn.Module):
    """An MLP across the positions, then one across the channels."""

    positions_width: int = 256
    channels_width: int = 2048

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm(1e-6)(x).swapaxes(1, 2)
        y = nn.Dense(x.shape[1])(nn.gelu(nn.Dense(self.positions_width)(y)))
        x = x + y.swapaxes(1, 2)
        y = nn.LayerNorm(1e-6)(x)
        return x + nn.Dense(x.shape[2])(nn.gelu(nn.Dense(self.channels_width)(y)))


class Mixer(nn.Module):
    layout: Layout
    patch: int = 16
    width: int = 512
    depth: int = 8
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layout.conv(self.width, self.patch, self.patch, padding="VALID")(x)
        x = self.layout.to_sequence(x)
        for _ in range(self.depth):
            x = MixerBlock()(x)
        return nn.Dense(self.classes)(nn.LayerNorm(1e-6)(x).mean(axis=1))


def build_vit(layout: str = "nhwc", batch: int = 1, size: int = 224, depth: int = 12) -> ZooModel:
    inputs = (normal_input(batch, size, size, 3),)
    return linen_model("vit-s16", "transformer", lambda at: ViT(at, depth=depth), inputs, layout=layout)


def build_mixer(layout: str = "nhwc", batch: int = 1, size: int = 224, depth: int = 8) -> ZooModel:
    inputs = (normal_input(batch, size, size, 3),)
    return linen_model("mlp-mixer-s16", "mlp", lambda at: Mixer(at, depth=depth), inputs, layout=layout)
