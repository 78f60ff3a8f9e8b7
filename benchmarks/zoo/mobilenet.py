"""MobileNetV2 (Sandler et al., 2018) and MobileNetV3-Large (Howard et al., 2019)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from .layers import Layout
from .model import ZooModel, linen_model, normal_input

# Expansion, output channels, repeats, stride of the first repeat.
V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

# Window, expanded channels, output channels, squeeze-and-excitation, hard-swish, stride.
V3_LARGE_BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


class InvertedResidual(nn.Module):
    """Expand, depthwise 3x3, project; "SAME" padding, which is one-sided at stride 2."""

    expansion: int
    features: int
    stride: int
    layout: Layout

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.expansion * x.shape[self.layout.channel_axis]
        y = x
        if self.expansion != 1:
            y = self.layout.conv(inner, 1, bias=False)(y)
            y = nn.relu6(self.layout.batch_norm()(y))
        y = self.layout.conv(inner, 3, self.stride, padding="SAME", groups=inner, bias=False)(y)
        y = nn.relu6(self.layout.batch_norm()(y))
        y = self.layout.conv(self.features, 1, bias=False)(y)
        y = self.layout.batch_norm()(y)
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    layout: Layout
    stages: tuple[Any, ...] = V2_STAGES
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layout.conv(32, 3, 2, padding="SAME", bias=False)(x)
        x = nn.relu6(self.layout.batch_norm()(x))
        for expansion, features, repeats, stride in self.stages:
            for index in range(repeats):
                x = InvertedResidual(expansion, features, stride if index == 0 else 1, self.layout)(x)
        x = self.layout.conv(1280, 1, bias=False)(x)
        x = nn.relu6(self.layout.batch_norm()(x))
        return nn.Dense(self.classes)(self.layout.spatial_mean(x))


class SqueezeExcitation(nn.Module):
    """Channel attention with a hard sigmoid (Hu et al., 2017, as MobileNetV3 has it)."""

    squeezed: int
    layout: Layout

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.layout.spatial_mean(x, keepdims=True)
        y = nn.relu(self.layout.conv(self.squeezed, 1)(y))
        y = nn.hard_sigmoid(self.layout.conv(x.shape[self.layout.channel_axis], 1)(y))
        return x * y


class V3Block(nn.Module):
    window: int
    expanded: int
    features: int
    excite: bool
    hard_swish: bool
    stride: int
    layout: Layout

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        activation = nn.hard_swish if self.hard_swish else nn.relu
        y = x
        if self.expanded != x.shape[self.layout.channel_axis]:
            y = self.layout.conv(self.expanded, 1, bias=False)(y)
            y = activation(self.layout.batch_norm(epsilon=1e-3)(y))
        y = self.layout.conv(self.expanded, self.window, self.stride, groups=self.expanded, bias=False)(y)
        y = activation(self.layout.batch_norm(epsilon=1e-3)(y))
        if self.excite:
            y = SqueezeExcitation(divisible_by_8(self.expanded / 4), self.layout)(y)
        y = self.layout.conv(self.features, 1, bias=False)(y)
        y = self.layout.batch_norm(epsilon=1e-3)(y)
        return x + y if x.shape == y.shape else y


class MobileNetV3Large(nn.Module):
    layout: Layout
    blocks: tuple[Any, ...] = V3_LARGE_BLOCKS
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layout.conv(16, 3, 2, bias=False)(x)
        x = nn.hard_swish(self.layout.batch_norm(epsilon=1e-3)(x))
        for window, expanded, features, excite, hard_swish, stride in self.blocks:
            x = V3Block(window, expanded, features, excite, hard_swish, stride, self.layout)(x)
        x = self.layout.conv(960, 1, bias=False)(x)
        x = nn.hard_swish(self.layout.batch_norm(epsilon=1e-3)(x))
        x = nn.hard_swish(nn.Dense(1280)(self.layout.spatial_mean(x)))
        return nn.Dense(self.classes)(x)


def divisible_by_8(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, never more than 10 % below it (both papers' rounding)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def build_v2(layout: str = "nhwc", batch: int = 1, size: int = 224, stages: tuple[Any, ...] = V2_STAGES) -> ZooModel:
    inputs = (normal_input(batch, size, size, 3),)
    return linen_model("mobilenet-v2", "conv", lambda at: MobileNetV2(at, stages), inputs, layout=layout)


def build_v3(
    layout: str = "nhwc", batch: int = 1, size: int = 224, blocks: tuple[Any, ...] = V3_LARGE_BLOCKS
) -> ZooModel:
    inputs = (normal_input(batch, size, size, 3),)
    return linen_model("mobilenet-v3", "conv", lambda at: MobileNetV3Large(at, blocks), inputs, layout=layout)
