"""Types of inputs and outputs that no file has, and programs with few of either."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
BF16, F8, I4 = jnp.asarray(X, jnp.bfloat16), jnp.asarray(X, jnp.float8_e4m3fn), jnp.asarray([1, -2, 7], jnp.int4)

CASES = {
    "no inputs": (lambda: jnp.arange(3.0), ()),
    "no outputs": (lambda x: (), (X,)),
    "no elements": (lambda x, y: (x[:0] * 2, y.sum(), jnp.concatenate([x, y])), (X, np.zeros((0, 4), np.float32))),
    "Python numbers": (lambda x, s, i: (x * s, jnp.asarray(i) + 1), (X, 2.0, 3)),
    "passed on": (lambda x, y, z, b: (y, x, b, z), (X, X + 1, X + 1j * X, BF16)),
    "narrow": (lambda x, y, i: (x * 2, y + 1, i, i.astype(jnp.int32) + 1), (BF16, F8, I4)),
    "constants": (lambda x: (x, jnp.ones(3, jnp.bfloat16), jnp.ones(2, jnp.complex64)), (X,)),
    "complex": (lambda x, z: (lax.complex(x, 2 * x), jnp.real(z * z), z + 1), (X, X + 1j * X)),
    "keys": (lambda k: (jax.random.uniform(k, (3,)), jax.random.split(k)), (jax.random.key(1),)),
    "integers": (
        lambda *args: [(a // 3, a * 2) for a in args],
        tuple(np.arange(5, dtype=t) for t in (np.int8, np.uint8, np.int16, np.uint16, np.uint32)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_to_jax(name, compiled):
    fn, args = CASES[name]
    have, want = jax.tree.leaves(compiled(fn, *args).executable()(*args)), jax.tree.leaves(jax.jit(fn)(*args))
    assert len(have) == len(want)
    for a, b in zip(have, want, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(
            np.asarray(a).astype(np.complex64), np.asarray(b).astype(np.complex64), rtol=1e-5, atol=1e-6
        )


def test_64_bits(compiled):
    with jax.enable_x64(True):
        x, i = X.astype(np.float64), np.arange(4, dtype=np.int64) << 40
        have = compiled(lambda x, i: (jnp.sin(x) @ x.T, i * 2 + 1), x, i).executable()(x, i)
        assert [a.dtype for a in have] == [np.float64, np.int64]
        np.testing.assert_allclose(have[0], np.sin(x) @ x.T, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(have[1], i * 2 + 1)
