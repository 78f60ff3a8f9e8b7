"""A convolutional autoencoder after DCGAN (Radford et al., 2015): strided convolutions down, transposed ones up."""

from __future__ import annotations

import flax.linen as nn
import jax

from .layers import Layout
from .model import ZooModel, linen_model, normal_input

WIDTHS = (64, 128, 256, 512)


class Autoencoder(nn.Module):
    """Reconstructs images in [0, 1]; their sides are multiples of 16."""

    layout: Layout

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in WIDTHS:
            x = self.layout.conv(width, 4, 2, padding=1, bias=False)(x)
            x = nn.leaky_relu(self.layout.batch_norm()(x), 0.2)
        for width in WIDTHS[-2::-1]:
            x = self.layout.conv_transpose(width, 4, 2, bias=False)(x)
            x = nn.relu(self.layout.batch_norm()(x))
        return nn.sigmoid(self.layout.conv_transpose(3, 4, 2)(x))


def build(layout: str = "nhwc", batch: int = 1, size: int = 128) -> ZooModel:
    inputs = (normal_input(batch, size, size, 3),)
    return linen_model("conv-autoencoder", "conv", Autoencoder, inputs, layout=layout)
