"""WaveNet (van den Oord et al., 2016): a stack of dilated causal 1-D convolutions over 8-bit audio."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from .layers import Layout
from .model import ZooModel, linen_model, normal_input

RESIDUAL_CHANNELS = 64
SKIP_CHANNELS = 256
LEVELS = 256


class GatedLayer(nn.Module):
    """Returns the input of the next layer and this layer's share of the output."""

    dilation: int
    layout: Layout

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        filtered = self.layout.causal_conv(RESIDUAL_CHANNELS, 2, dilation=self.dilation)(x)
        gate = self.layout.causal_conv(RESIDUAL_CHANNELS, 2, dilation=self.dilation)(x)
        y = nn.tanh(filtered) * nn.sigmoid(gate)
        return x + self.layout.conv(RESIDUAL_CHANNELS, 1, rank=1)(y), self.layout.conv(SKIP_CHANNELS, 1, rank=1)(y)


class WaveNet(nn.Module):
    """Logits of the 256 levels of the next sample, from samples `[batch, time, 1]` (or `[batch, 1, time]`)."""

    layout: Layout
    cycles: int = 3
    depth: int = 10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layout.causal_conv(RESIDUAL_CHANNELS, 2)(x)
        total: Any = None
        for _ in range(self.cycles):
            for exponent in range(self.depth):
                x, skip = GatedLayer(2**exponent, self.layout)(x)
                total = skip if total is None else total + skip
        x = self.layout.conv(SKIP_CHANNELS, 1, rank=1)(nn.relu(total))
        return self.layout.conv(LEVELS, 1, rank=1)(nn.relu(x))


def build(layout: str = "nhwc", batch: int = 1, length: int = 4096, cycles: int = 3, depth: int = 10) -> ZooModel:
    inputs = (normal_input(batch, length, 1),)
    return linen_model("wavenet", "conv", lambda at: WaveNet(at, cycles, depth), inputs, layout=layout)
