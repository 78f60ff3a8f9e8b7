"""Swin-T (Liu et al., 2021): attention in windows that shift by half their size from block to block."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .layers import Layout
from .model import ZooModel, linen_model, normal_input

DEPTHS = (2, 2, 6, 2)
HEADS = (3, 6, 12, 24)
WIDTH = 96
# Subtracted from the scores of positions that were neighbours only by the cyclic shift.
MASKED = -100.0


def to_windows(x: jax.Array, window: int) -> jax.Array:
    """`[batch, height, width, channels]` to `[batch * windows, window ** 2, channels]`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, window * window, channels)


def from_windows(x: jax.Array, window: int, shape: tuple[int, ...]) -> jax.Array:
    batch, height, width, channels = shape
    x = x.reshape(batch, height // window, width // window, window, window, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(shape)


def relative_index(window: int) -> np.ndarray:
    """For each pair of positions in a window, the row of their offset in the table of biases."""
    places = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    offsets = places[:, :, None] - places[:, None, :] + window - 1
    rows: np.ndarray = offsets[0] * (2 * window - 1) + offsets[1]
    return rows


def shift_mask(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """`[windows, window ** 2, window ** 2]`: 0 between positions of one region of the rolled image, else `MASKED`."""
    rows = np.digitize(np.arange(height), [height - window, height - shift])
    columns = np.digitize(np.arange(width), [width - window, width - shift])
    regions = 3 * rows[:, None] + columns[None, :]
    regions = regions.reshape(height // window, window, width // window, window)
    regions = regions.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return np.where(regions[:, :, None] == regions[:, None, :], 0.0, MASKED).astype(np.float32)


class WindowAttention(nn.Module):
    heads: int
    window: int

    @nn.compact
    def __call__(self, x: jax.Array, mask: np.ndarray | None) -> jax.Array:
        batch, length, width = x.shape
        qkv = nn.Dense(3 * width)(x).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.transpose(2, 0, 3, 1, 4)
        scores = (query / math.sqrt(width // self.heads)) @ key.swapaxes(-1, -2)
        table = self.param("bias_table", nn.initializers.normal(0.02), ((2 * self.window - 1) ** 2, self.heads))
        scores = scores + table[relative_index(self.window)].transpose(2, 0, 1)
        if mask is not None:
            scores = scores.reshape(-1, mask.shape[0], self.heads, length, length) + mask[:, None]
            scores = scores.reshape(batch, self.heads, length, length)
        y = (nn.softmax(scores) @ value).swapaxes(1, 2).reshape(batch, length, width)
        return nn.Dense(width)(y)


class Block(nn.Module):
    heads: int
    window: int
    shifted: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        height, width, channels = x.shape[1:]
        # Where one window covers the image there is nothing to shift.
        shift = self.window // 2 if self.shifted and min(height, width) > self.window else 0
        y = nn.LayerNorm(1e-5)(x)
        if shift:
            y = jnp.roll(y, (-shift, -shift), axis=(1, 2))
        mask = shift_mask(height, width, self.window, shift) if shift else None
        y = WindowAttention(self.heads, self.window)(to_windows(y, self.window), mask)
        y = from_windows(y, self.window, x.shape)
        if shift:
            y = jnp.roll(y, (shift, shift), axis=(1, 2))
        x = x + y
        y = nn.gelu(nn.Dense(4 * channels)(nn.LayerNorm(1e-5)(x)), approximate=False)
        return x + nn.Dense(channels)(y)


def merge_patches(x: jax.Array) -> jax.Array:
    """Puts the four pixels of each 2x2 patch side by side in the channels."""
    return jnp.concatenate([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], axis=-1)


class Swin(nn.Module):
    layout: Layout
    window: int = 7
    depths: tuple[int, ...] = DEPTHS
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layout.conv(WIDTH, 4, 4, padding="VALID")(x)
        if self.layout.channels_first:
            x = x.transpose(0, 2, 3, 1)
        x = nn.LayerNorm(1e-5)(x)
        for stage, (depth, heads) in enumerate(zip(self.depths, HEADS, strict=True)):
            if stage > 0:
                x = nn.LayerNorm(1e-5)(merge_patches(x))
                x = nn.Dense(x.shape[-1] // 2, use_bias=False)(x)
            for index in range(depth):
                x = Block(heads, self.window, shifted=index % 2 == 1)(x)
        x = nn.LayerNorm(1e-5)(x).mean(axis=(1, 2))
        return nn.Dense(self.classes)(x)


def build(
    layout: str = "nhwc", batch: int = 1, size: int = 224, window: int = 7, depths: tuple[int, ...] = DEPTHS
) -> ZooModel:
    """`size` is a multiple of `32 * window`."""
    inputs = (normal_input(batch, size, size, 3),)
    return linen_model("swin-t", "transformer", lambda at: Swin(at, window, depths), inputs, layout=layout)
