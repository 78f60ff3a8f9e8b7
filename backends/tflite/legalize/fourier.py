"""Discrete Fourier transforms on pairs of reals: products with the matrix of roots of unity, along one axis at a time.

An axis of a composite length takes two steps (Cooley and Tukey, 1965): transforms of the columns, a rotation, and
transforms of the rows.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .retype import Site

Array = jax.Array
Pair = tuple[Array, Array | None]

LONGEST_DIRECT = 64
"""Up to this length one product with the whole matrix is quicker than two steps."""


def fourier(site: Site, x: Array) -> Array:
    """FFT, IFFT, RFFT, IRFFT over the last axes, as XLA computes them."""
    kind, lengths = site.params["fft_type"], tuple(site.params["fft_lengths"])
    name = getattr(kind, "name", str(kind)).upper()
    rank = len(site.operands[0].shape)
    axes = list(range(rank - len(lengths), rank))
    if name == "RFFT":
        return _real_to_complex(x, axes, lengths)
    if name == "IRFFT":
        return _complex_to_real(x, axes, lengths)
    value: Pair = (x[..., 0], x[..., 1])
    for axis, length in zip(axes, lengths, strict=True):
        value = _along(value, axis, length, inverse=name == "IFFT")
    return _stacked(value)


def _stacked(value: Pair) -> Array:
    re, im = value
    return jnp.stack([re, jnp.zeros_like(re) if im is None else im], axis=-1)


def _real_to_complex(x: Array, axes: list[int], lengths: tuple[int, ...]) -> Array:
    value = _along((x, None), axes[-1], lengths[-1], inverse=False, kept=lengths[-1] // 2 + 1)
    for axis, length in zip(axes[:-1], lengths[:-1], strict=True):
        value = _along(value, axis, length, inverse=False)
    return _stacked(value)


def _complex_to_real(x: Array, axes: list[int], lengths: tuple[int, ...]) -> Array:
    value: Pair = (x[..., 0], x[..., 1])
    for axis, length in zip(axes[:-1], lengths[:-1], strict=True):
        value = _along(value, axis, length, inverse=True)
    re, im = value
    assert im is not None
    length = lengths[-1]
    k, n = np.arange(length // 2 + 1)[:, None], np.arange(length)[None, :]
    weight = np.where((k == 0) | (2 * k == length), 1.0, 2.0) / length
    angle = 2 * np.pi * ((k * n) % length) / length
    return _times(re, weight * np.cos(angle)) - _times(im, weight * np.sin(angle))


def _along(value: Pair, axis: int, length: int, *, inverse: bool, kept: int | None = None) -> Pair:
    """The transform along one axis, of which ``kept`` results are wanted."""
    rank = value[0].ndim
    moved: Pair = (_last(value[0], axis), None if value[1] is None else _last(value[1], axis))
    if length == 0:
        return value
    re, im = _transformed(moved, length, -1.0 if not inverse else 1.0)
    if kept is not None and kept != length:
        re, im = re[..., :kept], None if im is None else im[..., :kept]
    if inverse:
        re, im = re / length, None if im is None else im / length
    back = [*range(axis), rank - 1, *range(axis, rank - 1)]
    return lax.transpose(re, back), None if im is None else lax.transpose(im, back)


def _last(x: Array, axis: int) -> Array:
    return lax.transpose(x, [*(k for k in range(x.ndim) if k != axis), axis])


def _transformed(value: Pair, length: int, sign: float) -> Pair:
    """Transforms the last axis."""
    first = _factor(length)
    if length <= LONGEST_DIRECT or first in (1, length):
        return _direct(value, length, sign)
    second = length // first
    batch = value[0].shape[:-1]

    def columns(x: Array | None) -> Any:
        return None if x is None else jnp.swapaxes(x.reshape(*batch, first, second), -1, -2)

    re, im = _transformed((columns(value[0]), columns(value[1])), first, sign)  # [..., second, first]
    angle = sign * 2 * np.pi * (np.arange(second)[:, None] * np.arange(first)[None, :]) / length
    turned = _rotated(re, im, angle)
    re, im = _transformed((jnp.swapaxes(turned[0], -1, -2), jnp.swapaxes(turned[1], -1, -2)), second, sign)
    assert im is not None
    joined = (jnp.swapaxes(re, -1, -2).reshape(*batch, length), jnp.swapaxes(im, -1, -2).reshape(*batch, length))
    return joined


def _factor(length: int) -> int:
    """The divisor nearest to the square root."""
    return max((d for d in range(1, int(length**0.5) + 1) if length % d == 0), default=1)


def _rotated(re: Array, im: Array | None, angle: np.ndarray[Any, Any]) -> tuple[Array, Array]:
    cos, sin = jnp.asarray(np.cos(angle).astype(np.float32)), jnp.asarray(np.sin(angle).astype(np.float32))
    if im is None:
        return re * cos, re * sin
    return re * cos - im * sin, re * sin + im * cos


def _direct(value: Pair, length: int, sign: float) -> Pair:
    n = np.arange(length)
    angle = sign * 2 * np.pi * ((n[:, None] * n[None, :]) % length) / length
    re, im = value
    cos, sin = np.cos(angle), np.sin(angle)
    if im is None:
        return _times(re, cos), _times(re, sin)
    return _times(re, cos) - _times(im, sin), _times(re, sin) + _times(im, cos)


def _times(x: Array, matrix: np.ndarray[Any, Any]) -> Array:
    return lax.dot_general(
        x, jnp.asarray(matrix.astype(np.float32)), (((x.ndim - 1,), (0,)), ((), ())), precision=lax.Precision.HIGHEST
    )
