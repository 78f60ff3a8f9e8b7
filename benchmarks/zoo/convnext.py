"""ConvNeXt-T (Liu et al., 2022)."""

from __future__ import annotations

import flax.linen as nn
import jax

from .layers import Layout
from .model import ZooModel, linen_model, normal_input

DEPTHS = (3, 3, 9, 3)
WIDTHS = (96, 192, 384, 768)


class Block(nn.Module):
    """Depthwise 7x7, then a channels-last MLP: in `nchw` between two transposes, as the original has it."""

    layout: Layout

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[self.layout.channel_axis]
        y = self.layout.conv(width, 7, groups=width)(x)
        if self.layout.channels_first:
            y = y.transpose(0, 2, 3, 1)
        y = nn.LayerNorm(1e-6)(y)
        y = nn.gelu(nn.Dense(4 * width)(y), approximate=False)
        y = nn.Dense(width)(y) * self.param("layer_scale", nn.initializers.constant(1e-6), (width,))
        if self.layout.channels_first:
            y = y.transpose(0, 3, 1, 2)
        return x + y


class ConvNeXt(nn.Module):
    layout: Layout
    depths: tuple[int, ...] = DEPTHS
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for stage, (depth, width) in enumerate(zip(self.depths, WIDTHS, strict=True)):
            if stage == 0:
                x = self.layout.conv(width, 4, 4, padding="VALID")(x)
                x = self.layout.layer_norm()(x)
            else:
                x = self.layout.layer_norm()(x)
                x = self.layout.conv(width, 2, 2, padding="VALID")(x)
            for _ in range(depth):
                x = Block(self.layout)(x)
        x = nn.LayerNorm(1e-6)(self.layout.spatial_mean(x))
        return nn.Dense(self.classes)(x)


def build(layout: str = "nhwc", batch: int = 1, size: int = 224, depths: tuple[int, ...] = DEPTHS) -> ZooModel:
    inputs = (normal_input(batch, size, size, 3),)
    return linen_model("convnext-t", "conv", lambda at: ConvNeXt(at, depths), inputs, layout=layout)
