"""DenseNet-121 (Huang et al., 2016)."""

from __future__ import annotations

import flax.linen as nn
import jax

from .layers import Layout
from .model import ZooModel, linen_model, normal_input

BLOCKS = (6, 12, 24, 16)
GROWTH = 32


class DenseLayer(nn.Module):
    """Adds `GROWTH` channels to its input, by a 1x1 bottleneck and a 3x3 convolution."""

    layout: Layout

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.layout.conv(4 * GROWTH, 1, bias=False)(nn.relu(self.layout.batch_norm()(x)))
        y = self.layout.conv(GROWTH, 3, bias=False)(nn.relu(self.layout.batch_norm()(y)))
        return self.layout.concatenate([x, y])


class DenseNet121(nn.Module):
    layout: Layout
    blocks: tuple[int, ...] = BLOCKS
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layout.conv(2 * GROWTH, 7, 2, bias=False)(x)
        x = self.layout.max_pool(nn.relu(self.layout.batch_norm()(x)), 3, 2, 1)
        for index, layers in enumerate(self.blocks):
            if index > 0:
                halved = x.shape[self.layout.channel_axis] // 2
                x = self.layout.conv(halved, 1, bias=False)(nn.relu(self.layout.batch_norm()(x)))
                x = self.layout.avg_pool(x, 2, 2)
            for _ in range(layers):
                x = DenseLayer(self.layout)(x)
        x = nn.relu(self.layout.batch_norm()(x))
        return nn.Dense(self.classes)(self.layout.spatial_mean(x))


def build(layout: str = "nhwc", batch: int = 1, size: int = 224, blocks: tuple[int, ...] = BLOCKS) -> ZooModel:
    inputs = (normal_input(batch, size, size, 3),)
    return linen_model("densenet121", "conv", lambda at: DenseNet121(at, blocks), inputs, layout=layout)
