"""U-Net (Ronneberger et al., 2015), padded and with BatchNorm as it is commonly implemented."""

from __future__ import annotations

import flax.linen as nn
import jax

from .layers import Layout
from .model import ZooModel, linen_model, normal_input

WIDTHS = (64, 128, 256, 512, 1024)


class DoubleConv(nn.Module):
    features: int
    layout: Layout

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(2):
            x = self.layout.conv(self.features, 3, bias=False)(x)
            x = nn.relu(self.layout.batch_norm()(x))
        return x


class UNet(nn.Module):
    """Logits per pixel; the sides of the image are multiples of 16."""

    layout: Layout
    widths: tuple[int, ...] = WIDTHS
    classes: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        skips = []
        for width in self.widths[:-1]:
            x = DoubleConv(width, self.layout)(x)
            skips.append(x)
            x = self.layout.max_pool(x, 2, 2)
        x = DoubleConv(self.widths[-1], self.layout)(x)
        for width, skip in zip(self.widths[-2::-1], reversed(skips), strict=True):
            x = self.layout.conv_transpose(width, 2, 2)(x)
            x = DoubleConv(width, self.layout)(self.layout.concatenate([skip, x]))
        return self.layout.conv(self.classes, 1)(x)


def build(layout: str = "nhwc", batch: int = 1, size: int = 256, widths: tuple[int, ...] = WIDTHS) -> ZooModel:
    inputs = (normal_input(batch, size, size, 3),)
    return linen_model("unet", "conv", lambda at: UNet(at, widths), inputs, layout=layout)
