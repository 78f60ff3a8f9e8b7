"""MobileNetV2 in Flax linen.

    xlapass --pipeline=cpu examples/mobilenet_v2.py

A `model` may be a linen `(module, variables)` pair. The weights here are random; load yours in their place.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# Expansion, output channels, repeats, stride of the first repeat.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class ConvNorm(nn.Module):
    """Convolution and BatchNorm, then ReLU6 unless `linear`."""

    features: int
    window: int = 1
    stride: int = 1
    groups: int = 1
    linear: bool = False

    @nn.compact
    def __call__(self, x):
        window, strides = (self.window, self.window), (self.stride, self.stride)
        x = nn.Conv(self.features, window, strides, feature_group_count=self.groups, use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=True)(x)
        return x if self.linear else nn.relu6(x)


class InvertedResidual(nn.Module):
    expansion: int
    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        inner = self.expansion * x.shape[-1]
        y = ConvNorm(inner)(x) if self.expansion > 1 else x
        y = ConvNorm(inner, 3, self.stride, groups=inner)(y)
        y = ConvNorm(self.features, linear=True)(y)
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    classes: int = 1000

    @nn.compact
    def __call__(self, images):
        x = ConvNorm(32, 3, 2)(images)
        for expansion, features, repeats, stride in STAGES:
            for index in range(repeats):
                x = InvertedResidual(expansion, features, stride if index == 0 else 1)(x)
        x = ConvNorm(1280)(x)
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
module = MobileNetV2()

model = (module, random_variables(module, images))
example_inputs = (images,)
