"""ResNet-50 in Flax linen.

xlapass --pipeline=cpu examples/resnet.py
xlapass --pipeline=cpu --entry resnet18 examples/resnet.py
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class ConvNorm(nn.Module):
    """Convolution and BatchNorm; half the window is padded on each side."""

    features: int
    window: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(
            self.features,
            (self.window, self.window),
            strides=(self.stride, self.stride),
            padding=self.window // 2,
            use_bias=False,
        )(x)
        return nn.BatchNorm(use_running_average=True)(x)


class BasicBlock(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        y = nn.relu(ConvNorm(self.features, 3, self.stride)(x))
        y = ConvNorm(self.features, 3)(y)
        shortcut = x if x.shape == y.shape else ConvNorm(self.features, 1, self.stride)(x)
        return nn.relu(shortcut + y)


class Bottleneck(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        y = nn.relu(ConvNorm(self.features, 1)(x))
        y = nn.relu(ConvNorm(self.features, 3, self.stride)(y))
        y = ConvNorm(4 * self.features, 1)(y)
        shortcut = x if x.shape == y.shape else ConvNorm(4 * self.features, 1, self.stride)(x)
        return nn.relu(shortcut + y)


class ResNet(nn.Module):
    block: type[nn.Module]
    stages: tuple[int, ...]
    classes: int = 1000

    @nn.compact
    def __call__(self, images):
        x = nn.relu(ConvNorm(64, 7, 2)(images))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.stages):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                x = self.block(64 * 2**stage, stride)(x)
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))


def random_variables(module, *inputs):
    """Variables with random kernels, drawn by NumPy: compiling `module.init` would take longer than the model."""
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        if leaf.ndim == 1:
            return jnp.ones(leaf.shape) if path[-1].key in ("scale", "var") else jnp.zeros(leaf.shape)
        deviation = math.prod(leaf.shape[:-1]) ** -0.5
        return jnp.asarray(generator.normal(0.0, deviation, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(module.init, jax.random.key(0), *inputs))


images = jax.random.normal(jax.random.key(0), (1, 224, 224, 3))
small, large = ResNet(BasicBlock, (2, 2, 2, 2)), ResNet(Bottleneck, (3, 4, 6, 3))

resnet18 = (small, random_variables(small, images))
model = (large, random_variables(large, images))
example_inputs = (images,)
