"""Networks as people write them with Flax nnx, for comparing exporters: a module and example inputs by name.

The sizes are the published ones (He et al. 2016, Sandler et al. 2018, Dosovitskiy et al. 2021, Radford et al. 2019,
Ronneberger et al. 2015); statistics of batch normalization are drawn, so that folding them has something to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Inputs = tuple[np.ndarray, ...]
Array = jax.Array


def _image(*shape: int) -> Inputs:
    return (np.random.default_rng(0).standard_normal(shape).astype(np.float32),)


class ConvNorm(nnx.Module):
    """Convolution, batch normalization and an activation."""

    def __init__(
        self, inner: int, outer: int, size: int, stride: int = 1, groups: int = 1, act: Any = None, *, rngs: nnx.Rngs
    ):
        window = {"kernel_size": (size, size), "strides": (stride, stride), "padding": [(size // 2, size // 2)] * 2}
        self.conv = nnx.Conv(inner, outer, **window, feature_group_count=groups, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(outer, use_running_average=True, rngs=rngs)
        key = rngs.params()
        self.norm.mean[...] = 0.1 * jax.random.normal(key, (outer,))
        self.norm.var[...] = jax.random.uniform(key, (outer,), minval=0.8, maxval=1.2)
        self.act = act

    def __call__(self, x: Array) -> Array:
        y = self.norm(self.conv(x))
        return y if self.act is None else self.act(y)


class ResidualBlock(nnx.Module):
    """The basic block (two 3x3) or the bottleneck (1x1, 3x3, 1x1)."""

    def __init__(self, inner: int, width: int, stride: int, bottleneck: bool, *, rngs: nnx.Rngs):
        outer = width * 4 if bottleneck else width
        sizes = [(inner, width, 1, 1), (width, width, 3, stride), (width, outer, 1, 1)]
        if not bottleneck:
            sizes = [(inner, width, 3, stride), (width, outer, 3, 1)]
        acts = [nnx.relu] * (len(sizes) - 1) + [None]
        self.convs = nnx.List([ConvNorm(*size, act=act, rngs=rngs) for size, act in zip(sizes, acts, strict=True)])
        self.shortcut = ConvNorm(inner, outer, 1, stride, rngs=rngs) if stride != 1 or inner != outer else None

    def __call__(self, x: Array) -> Array:
        y = x
        for conv in self.convs:
            y = conv(y)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """ResNet of the depths for ImageNet."""

    def __init__(self, depths: Sequence[int], bottleneck: bool, *, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, 64, 7, 2, act=nnx.relu, rngs=rngs)
        blocks, inner = [], 64
        for stage, depth in enumerate(depths):
            for k in range(depth):
                width, stride = 64 << stage, 2 if stage and not k else 1
                blocks.append(ResidualBlock(inner, width, stride, bottleneck, rngs=rngs))
                inner = width * 4 if bottleneck else width
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(inner, 1000, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.max_pool(self.stem(x), window_shape=(3, 3), strides=(2, 2), padding="SAME")
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, axis=(1, 2)))


class InvertedResidual(nnx.Module):
    """Expansion, depthwise convolution, projection."""

    def __init__(self, inner: int, outer: int, stride: int, expansion: int, *, rngs: nnx.Rngs):
        width = inner * expansion
        convs = [] if expansion == 1 else [ConvNorm(inner, width, 1, act=nnx.relu6, rngs=rngs)]
        convs.append(ConvNorm(width, width, 3, stride, width, act=nnx.relu6, rngs=rngs))
        convs.append(ConvNorm(width, outer, 1, rngs=rngs))
        self.convs = nnx.List(convs)
        self.is_residual = stride == 1 and inner == outer

    def __call__(self, x: Array) -> Array:
        y = x
        for conv in self.convs:
            y = conv(y)
        return x + y if self.is_residual else y


class MobileNetV2(nnx.Module):
    """MobileNetV2 of width 1."""

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, *, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, 32, 3, 2, act=nnx.relu6, rngs=rngs)
        blocks, inner = [], 32
        for expansion, outer, depth, stride in self.STAGES:
            for k in range(depth):
                blocks.append(InvertedResidual(inner, outer, stride if not k else 1, expansion, rngs=rngs))
                inner = outer
        self.blocks = nnx.List(blocks)
        self.top = ConvNorm(inner, 1280, 1, act=nnx.relu6, rngs=rngs)
        self.head = nnx.Linear(1280, 1000, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(self.top(x), axis=(1, 2)))


class TransformerBlock(nnx.Module):
    """Attention and a feed-forward network, each normalized before and added after."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, deterministic=True, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class ViT(nnx.Module):
    """Vision transformer, base size with patches of 16."""

    def __init__(self, depth: int = 12, width: int = 768, heads: int = 12, *, rngs: nnx.Rngs):
        self.embed = nnx.Conv(3, width, (16, 16), (16, 16), padding="VALID", rngs=rngs)
        self.token = nnx.Param(jax.random.normal(rngs.params(), (1, 1, width)))
        self.position = nnx.Param(jax.random.normal(rngs.params(), (1, 197, width)))
        self.blocks = nnx.List([TransformerBlock(width, heads, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, 1000, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.embed(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = jnp.concatenate([jnp.tile(self.token[...], (x.shape[0], 1, 1)), x], axis=1) + self.position[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class GPT2(nnx.Module):
    """GPT-2 of 124 million parameters on a whole prompt."""

    def __init__(self, depth: int = 12, width: int = 768, heads: int = 12, words: int = 50257, *, rngs: nnx.Rngs):
        self.words = nnx.Embed(words, width, rngs=rngs)
        self.places = nnx.Embed(1024, width, rngs=rngs)
        self.blocks = nnx.List([TransformerBlock(width, heads, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        length = tokens.shape[1]
        x = self.words(tokens) + self.places(jnp.arange(length))
        mask = jnp.tril(jnp.ones((1, 1, length, length), bool))
        for block in self.blocks:
            x = block(x, mask)
        return self.words.attend(self.norm(x))


class UNet(nnx.Module):
    """U-Net with four levels, upsampling by transposed convolutions."""

    def __init__(self, width: int = 32, levels: int = 4, *, rngs: nnx.Rngs):
        widths = [width << k for k in range(levels + 1)]

        def pair(inner: int, outer: int) -> nnx.List:
            return nnx.List([ConvNorm(n, outer, 3, act=nnx.relu, rngs=rngs) for n in (inner, outer)])

        self.down = nnx.List([pair(n, m) for n, m in zip([3, *widths[:-2]], widths[:-1], strict=True)])
        self.middle = pair(widths[-2], widths[-1])
        self.grow = nnx.List([nnx.ConvTranspose(2 * n, n, (2, 2), (2, 2), rngs=rngs) for n in widths[:-1]])
        self.up = nnx.List([pair(2 * n, n) for n in widths[:-1]])
        self.head = nnx.Conv(width, 2, (1, 1), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        skips = []
        for pair in self.down:
            for conv in pair:
                x = conv(x)
            skips.append(x)
            x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        for conv in self.middle:
            x = conv(x)
        for grow, pair, skip in reversed(list(zip(self.grow, self.up, skips, strict=True))):
            x = jnp.concatenate([skip, grow(x)], axis=-1)
            for conv in pair:
                x = conv(x)
        return self.head(x)


class Recurrence(nnx.Module):
    """A layer of LSTM (Hochreiter and Schmidhuber 1997), as a scan over time."""

    def __init__(self, inner: int, width: int, *, rngs: nnx.Rngs):
        self.width = width
        self.gates = nnx.Linear(inner + width, 4 * width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        kernel, bias = self.gates.kernel[...], self.gates.bias[...]

        def step(carry: tuple[Array, Array], item: Array) -> tuple[tuple[Array, Array], Array]:
            c, h = carry
            i, f, g, o = jnp.split(jnp.concatenate([item, h], axis=-1) @ kernel + bias, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (c, h), h

        zeros = jnp.zeros((x.shape[0], self.width), x.dtype)
        _, hidden = jax.lax.scan(step, (zeros, zeros), jnp.swapaxes(x, 0, 1))
        return jnp.swapaxes(hidden, 0, 1)


class LSTM(nnx.Module):
    """Two layers of LSTM and a classifier of the last state."""

    def __init__(self, width: int = 256, classes: int = 10, *, rngs: nnx.Rngs):
        self.layers = nnx.List([Recurrence(n, width, rngs=rngs) for n in (64, width)])
        self.head = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, -1])


def _tokens() -> Inputs:
    return (np.random.default_rng(0).integers(0, 50257, (1, 128)).astype(np.int32),)


#: Name -> what makes the module, and what makes its inputs.
MODELS: dict[str, tuple[Callable[..., nnx.Module], Callable[[], Inputs]]] = {
    "resnet18": (lambda rngs: ResNet((2, 2, 2, 2), False, rngs=rngs), lambda: _image(1, 224, 224, 3)),
    "resnet50": (lambda rngs: ResNet((3, 4, 6, 3), True, rngs=rngs), lambda: _image(1, 224, 224, 3)),
    "mobilenet-v2": (lambda rngs: MobileNetV2(rngs=rngs), lambda: _image(1, 224, 224, 3)),
    "vit-b16": (lambda rngs: ViT(rngs=rngs), lambda: _image(1, 224, 224, 3)),
    "gpt2-prefill": (lambda rngs: GPT2(rngs=rngs), _tokens),
    "unet": (lambda rngs: UNet(rngs=rngs), lambda: _image(1, 128, 128, 3)),
    "lstm": (lambda rngs: LSTM(rngs=rngs), lambda: _image(1, 64, 64)),
}


def build(name: str) -> tuple[Callable[..., Any], Inputs]:
    """A module in evaluation mode with weights as after training, the same on every call, and its example inputs."""
    make, inputs = MODELS[name]
    module = make(nnx.Rngs(0))
    module.eval()
    state, key = nnx.state(module, nnx.Param), jax.random.key(1)
    # Biases of zero and scales of one, as they are drawn, could be left out; trained ones cannot.
    nnx.update(module, jax.tree.map(lambda v: v + 0.1 * jax.random.normal(key, v.shape) if v.ndim < 2 else v, state))
    return module, inputs()
