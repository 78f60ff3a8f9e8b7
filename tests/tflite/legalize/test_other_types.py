"""Complex numbers as pairs, Fourier transforms, random keys, and factorisations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from jax import lax
from xlapass.core.errors import UnsupportedError

STEP = 7

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 6)).astype(np.float32)
Z = (0.7 * X + 0.7j * RNG.standard_normal((4, 6))).astype(np.complex64)
SQUARE = RNG.standard_normal((3, 5, 5)).astype(np.float32)
POSITIVE = np.einsum("bij,bkj->bik", SQUARE, SQUARE) + 4 * np.eye(5, dtype=np.float32)
WORDS = np.array([3, 7], np.uint32)


def _random(fn):
    return lambda words: fn(jax.random.wrap_key_data(words))


def _spectrum(*shape):
    return (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)).astype(np.complex64)


UNARY = ("exp", "log", "sqrt", "rsqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh", "expm1", "log1p", "abs", "sign")
CASES = {
    **{f"complex-{name}": (getattr(lax, name), Z) for name in UNARY},
    "complex-arithmetic": (lambda a, b: (a + b, a - b, a * b, a / b, a**b, a == b, -a, a**3), Z, Z[::-1] + 1),
    "complex-moves": (lambda z: (z.T, z[::-1, 1:3], jnp.pad(z, 1), jnp.where(z.real > 0, z, 1j), jnp.cumsum(z, 1)), Z),
    "complex-indexing": (lambda z, i: (z[i], z.at[i].add(1j)), Z, np.array([0, 7, 2], np.int32)),
    "complex-products": (lambda a, b: (a @ b.T, a.prod(1), a.real @ b.T), Z, Z[::-1]),
    "complex-sorted": (lambda z: (jnp.sort(z, 0), jnp.argsort(z, 1), lax.sort((z.real.round(), z), num_keys=2)), Z),
    "complex-cumulative-product": (lambda z: (jnp.cumprod(z, 1), lax.cumprod(z, 0, reverse=True)), Z),
    **{f"fft-{n}": (lambda z: (jnp.fft.fft(z), jnp.fft.ifft(z)), _spectrum(2, n)) for n in (1, 5, 8, 66, 100, 128)},
    "fft-2d": (lambda z: (jnp.fft.fft2(z), jnp.fft.irfft2(z), jnp.fft.irfft(z, n=7)), _spectrum(2, 3, 5)),
    "rfft": (lambda x: (jnp.fft.rfft(x), jnp.fft.rfft2(x), jnp.fft.rfft(x, n=9)), X),
    "key-known": (lambda x: x + jax.random.normal(jax.random.key(0), x.shape), X),
    "key-given": (_random(lambda k: (jax.random.normal(k, (3, 2)), jax.random.bits(k, (5,), jnp.uint8))), WORDS),
    "key-bound": (_random(lambda k: jax.random.permutation(k, jnp.arange(12).reshape(4, 3), independent=True)), WORDS),
    "key-split": (_random(lambda k: jax.random.uniform(jax.random.fold_in(jax.random.split(k)[1], 5), (2,))), WORDS),
    "key-returned": (jax.random.split, jax.random.key(3)),
    "key-halves": (_random(lambda k: jax.random.uniform(k, (5,), jnp.float16)), WORDS),
    "cholesky": (jnp.linalg.cholesky, POSITIVE),
    "solve": (lambda a: (jnp.linalg.solve(a, a[..., :2]), jnp.linalg.inv(a), jnp.linalg.det(a)), POSITIVE),
    "inverse-gradient": (jax.grad(lambda a: jnp.linalg.inv(a).sum()), POSITIVE[0]),
    "qr": (jnp.linalg.qr, SQUARE[0]),
    "singular-values": (lambda a: jnp.linalg.svd(a, compute_uv=False), SQUARE),
    "eigenvalues": (jnp.linalg.eigvalsh, POSITIVE),
}


def test_other_types(case, agrees):
    fn, *args = case
    agrees(fn, *args, tolerance=5e-3)


def test_wide_types_are_narrowed(agrees):
    with jax.enable_x64(True):
        x = np.linspace(0, 1, 6)
        words = np.array([2**40 + 3, -7, 2**62], np.int64)
    agrees(lambda a: jnp.sin(a) @ jnp.cos(a), x, x64=True)
    agrees(lambda a: (a // 3, a % 5, a & 255, a << 3, a ^ (a >> 7)), words, x64=True)


def test_what_cannot_be_is_refused_by_name_with_its_line():
    with pytest.raises(UnsupportedError, match=r"(?s)random_gamma.*test_other_types\.py"):
        xlapass.compile(lambda k: jax.random.gamma(k, 2.0, (3,)), jax.random.key(0), pipeline="tflite")
