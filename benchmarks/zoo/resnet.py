"""ResNet-18 and ResNet-50 (He et al., 2015), stride in the 3x3 convolution of a bottleneck (version 1.5)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from .layers import Layout
from .model import ZooModel, linen_model, normal_input

# Blocks in each stage.
STAGES_18 = (2, 2, 2, 2)
STAGES_50 = (3, 4, 6, 3)


class BasicBlock(nn.Module):
    features: int
    stride: int
    layout: Layout
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.layout.conv(self.features, 3, self.stride, bias=False)(x)
        y = nn.relu(self.layout.batch_norm(train=self.train)(y))
        y = self.layout.conv(self.features, 3, bias=False)(y)
        y = self.layout.batch_norm(train=self.train)(y)
        if self.stride != 1:
            x = self.layout.conv(self.features, 1, self.stride, bias=False)(x)
            x = self.layout.batch_norm(train=self.train)(x)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    features: int
    stride: int
    layout: Layout
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.layout.conv(self.features, 1, bias=False)(x)
        y = nn.relu(self.layout.batch_norm(train=self.train)(y))
        y = self.layout.conv(self.features, 3, self.stride, bias=False)(y)
        y = nn.relu(self.layout.batch_norm(train=self.train)(y))
        y = self.layout.conv(4 * self.features, 1, bias=False)(y)
        y = self.layout.batch_norm(train=self.train)(y)
        if x.shape != y.shape:
            x = self.layout.conv(4 * self.features, 1, self.stride, bias=False)(x)
            x = self.layout.batch_norm(train=self.train)(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    block: type[nn.Module]
    stages: tuple[int, ...]
    layout: Layout
    classes: int = 1000
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layout.conv(64, 7, 2, bias=False)(x)
        x = nn.relu(self.layout.batch_norm(train=self.train)(x))
        x = self.layout.max_pool(x, 3, 2, 1)
        for stage, blocks in enumerate(self.stages):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                x = self.block(64 * 2**stage, stride, self.layout, self.train)(x)
        return nn.Dense(self.classes)(self.layout.spatial_mean(x))


def build_resnet18(
    layout: str = "nhwc", batch: int = 1, size: int = 224, stages: tuple[int, ...] = STAGES_18
) -> ZooModel:
    return _build("resnet18", BasicBlock, stages, layout, batch, size)


def build_resnet50(
    layout: str = "nhwc", batch: int = 1, size: int = 224, stages: tuple[int, ...] = STAGES_50
) -> ZooModel:
    return _build("resnet50", Bottleneck, stages, layout, batch, size)


def _build(name: str, block: Any, stages: tuple[int, ...], layout: str, batch: int, size: int) -> ZooModel:
    inputs = (normal_input(batch, size, size, 3),)
    return linen_model(name, "conv", lambda at: ResNet(block, stages, at), inputs, layout=layout)
