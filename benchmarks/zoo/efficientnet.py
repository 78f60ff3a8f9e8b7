"""EfficientNet-B0 (Tan and Le, 2019)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from .layers import Layout
from .model import ZooModel, linen_model, normal_input

# Expansion, output channels, repeats, stride of the first repeat, window.
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
EPSILON = 1e-3


class MBConv(nn.Module):
    """Expand, depthwise, squeeze-and-excitation, project, with SiLU and "SAME" padding."""

    expansion: int
    features: int
    stride: int
    window: int
    layout: Layout

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[self.layout.channel_axis]
        inner = self.expansion * channels
        y = x
        if self.expansion != 1:
            y = self.layout.conv(inner, 1, bias=False)(y)
            y = nn.silu(self.layout.batch_norm(epsilon=EPSILON)(y))
        y = self.layout.conv(inner, self.window, self.stride, padding="SAME", groups=inner, bias=False)(y)
        y = nn.silu(self.layout.batch_norm(epsilon=EPSILON)(y))
        squeezed = nn.silu(self.layout.conv(channels // 4, 1)(self.layout.spatial_mean(y, keepdims=True)))
        y = y * nn.sigmoid(self.layout.conv(inner, 1)(squeezed))
        y = self.layout.conv(self.features, 1, bias=False)(y)
        y = self.layout.batch_norm(epsilon=EPSILON)(y)
        return x + y if x.shape == y.shape else y


class EfficientNetB0(nn.Module):
    layout: Layout
    stages: tuple[Any, ...] = STAGES
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layout.conv(32, 3, 2, padding="SAME", bias=False)(x)
        x = nn.silu(self.layout.batch_norm(epsilon=EPSILON)(x))
        for expansion, features, repeats, stride, window in self.stages:
            for index in range(repeats):
                x = MBConv(expansion, features, stride if index == 0 else 1, window, self.layout)(x)
        x = self.layout.conv(1280, 1, bias=False)(x)
        x = nn.silu(self.layout.batch_norm(epsilon=EPSILON)(x))
        return nn.Dense(self.classes)(self.layout.spatial_mean(x))


def build(layout: str = "nhwc", batch: int = 1, size: int = 224, stages: tuple[Any, ...] = STAGES) -> ZooModel:
    inputs = (normal_input(batch, size, size, 3),)
    return linen_model("efficientnet-b0", "conv", lambda at: EfficientNetB0(at, stages), inputs, layout=layout)
