"""Convolutions, norms and pools in both layouts, under the same parameter names.

`nhwc` is what Flax itself writes (`nn.Conv`, `nn.BatchNorm`); `nchw` is what people write in JAX who come from
channels-first code: `conv_general_dilated` with its dimension numbers, `BatchNorm(axis=1)`, pools over the last axes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Padding = str | int

# A Flax module, as the models use it.
Layer = Callable[[jax.Array], jax.Array]


class _ChannelsFirstConv(nn.Module):
    """Convolution of `[batch, channels, *spatial]` with a kernel `[out, in / groups, *window]`."""

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str | Sequence[tuple[int, int]]
    kernel_dilation: tuple[int, ...] = (1,)
    feature_group_count: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.features, x.shape[1] // self.feature_group_count, *self.kernel_size)
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=1, out_axis=0), shape)
        y = lax.conv_general_dilated(
            x,
            kernel,
            self.strides,
            self.padding,
            rhs_dilation=self.kernel_dilation,
            dimension_numbers=_channels_first_numbers(x.ndim),
            feature_group_count=self.feature_group_count,
        )
        return _add_bias(self, y) if self.use_bias else y


class _ChannelsFirstConvTranspose(nn.Module):
    """Transposed convolution of `[batch, channels, *spatial]` with a kernel `[out, in, *window]`."""

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.features, x.shape[1], *self.kernel_size)
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=1, out_axis=0), shape)
        numbers = _channels_first_numbers(x.ndim)
        y = lax.conv_transpose(x, kernel, self.strides, self.padding, dimension_numbers=numbers)
        return _add_bias(self, y) if self.use_bias else y


# Flax numbers unnamed submodules by their class name, and one parameter tree has to fit both layouts.
_ChannelsFirstConv.__name__ = nn.Conv.__name__
_ChannelsFirstConvTranspose.__name__ = nn.ConvTranspose.__name__


def _channels_first_numbers(rank: int) -> tuple[str, str, str]:
    spatial = "DHW"[5 - rank :]
    return "NC" + spatial, "OI" + spatial, "NC" + spatial


def _add_bias(module: nn.Module, y: jax.Array) -> jax.Array:
    bias = module.param("bias", nn.initializers.zeros, (y.shape[1],))
    return y + bias.reshape((1, -1) + (1,) * (y.ndim - 2))


@dataclasses.dataclass(frozen=True)
class Layout:
    """The place of the channels: `nhwc` (last) or `nchw` (axis 1), for any number of spatial axes."""

    name: str = "nhwc"

    def __post_init__(self) -> None:
        if self.name not in ("nhwc", "nchw"):
            raise ValueError(f"layout must be 'nhwc' or 'nchw', not {self.name!r}")

    @property
    def channels_first(self) -> bool:
        return self.name == "nchw"

    @property
    def channel_axis(self) -> int:
        return 1 if self.channels_first else -1

    def spatial_axes(self, x: jax.Array) -> tuple[int, ...]:
        return tuple(range(2, x.ndim)) if self.channels_first else tuple(range(1, x.ndim - 1))

    def from_channels_last(self, x: Any) -> Any:
        return jnp.moveaxis(x, -1, 1) if self.channels_first else x

    def conv(
        self,
        features: int,
        window: int,
        stride: int = 1,
        *,
        padding: Padding | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        rank: int = 2,
    ) -> Layer:
        """A convolution; `padding` is `SAME`, `VALID`, a number for both sides, or None for `window // 2`."""
        if padding is None:
            padding = window // 2 * dilation
        kind = _ChannelsFirstConv if self.channels_first else nn.Conv
        return kind(
            features,
            (window,) * rank,
            strides=(stride,) * rank,
            padding=padding if isinstance(padding, str) else ((padding, padding),) * rank,
            kernel_dilation=(dilation,) * rank,
            feature_group_count=groups,
            use_bias=bias,
        )

    def causal_conv(self, features: int, window: int, *, dilation: int = 1) -> Layer:
        """A 1-D convolution whose output at time t sees inputs up to t."""
        kind = _ChannelsFirstConv if self.channels_first else nn.Conv
        padding = ((dilation * (window - 1), 0),)
        return kind(features, (window,), strides=(1,), padding=padding, kernel_dilation=(dilation,))

    def conv_transpose(self, features: int, window: int, stride: int, *, bias: bool = True) -> Layer:
        """A transposed convolution that multiplies the spatial sizes by `stride`."""
        kind = _ChannelsFirstConvTranspose if self.channels_first else nn.ConvTranspose
        return kind(features, (window, window), strides=(stride, stride), padding="SAME", use_bias=bias)

    def batch_norm(self, *, train: bool = False, epsilon: float = 1e-5) -> Layer:
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=epsilon, axis=self.channel_axis)

    def layer_norm(self, *, epsilon: float = 1e-6) -> Layer:
        """Layer normalisation over the channels."""
        return nn.LayerNorm(epsilon, reduction_axes=self.channel_axis, feature_axes=self.channel_axis)

    def max_pool(self, x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
        if self.channels_first:
            pads = ((0, 0), (0, 0), (padding, padding), (padding, padding))
            y = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, window, window), (1, 1, stride, stride), pads)
        else:
            y = nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)
        return jnp.asarray(y)

    def avg_pool(self, x: jax.Array, window: int, stride: int) -> jax.Array:
        if self.channels_first:
            sums = lax.reduce_window(x, 0.0, lax.add, (1, 1, window, window), (1, 1, stride, stride), "VALID")
            y = sums / (window * window)
        else:
            y = nn.avg_pool(x, (window, window), (stride, stride))
        return jnp.asarray(y)

    def spatial_mean(self, x: jax.Array, *, keepdims: bool = False) -> jax.Array:
        return x.mean(axis=self.spatial_axes(x), keepdims=keepdims)

    def concatenate(self, arrays: Sequence[jax.Array]) -> jax.Array:
        return jnp.concatenate(arrays, axis=self.channel_axis)

    def to_sequence(self, x: jax.Array) -> jax.Array:
        """Flattens an image to `[batch, positions, channels]`."""
        if self.channels_first:
            return x.reshape(*x.shape[:2], -1).swapaxes(1, 2)
        return x.reshape(x.shape[0], -1, x.shape[-1])
