"""Indices into axes whose size the file learns when it runs, and random numbers of such shapes."""

import jax
import numpy as np
import pytest
import xlapass

X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
KEY = np.array([3, 7], np.uint32)

INDICES = {
    "filled": lambda x, i: x[i],
    "not from the end": lambda x, i: x.at[i].get(mode="fill", fill_value=7, wrap_negative_indices=False),
    "clipped": lambda x, i: x.at[i].get(mode="clip"),
}
RANDOM = {
    "uniform": lambda x, key: jax.random.uniform(key, x.shape),
    "normal, of several axes": lambda x, key: jax.random.normal(key, (2, x.shape[0], 2 * x.shape[0])),
    "bytes": lambda x, key: jax.random.bits(key, x.shape, np.uint8),
    "keys": lambda x, key: jax.vmap(lambda k, r: r + jax.random.normal(k, r.shape))(
        jax.random.split(key, x.shape[0]), x
    ),
    "rows": lambda x, key: jax.random.choice(key, x, (4,)),
    "categories": jax.vmap(lambda r, key: jax.random.categorical(key, r), in_axes=(0, None)),
}


def check(function, second):
    run = xlapass.compile(function, X, second, pipeline="onnx", dynamic=("b, ...", None)).executable()
    for x in (X, X[:1]):
        np.testing.assert_allclose(run(x, second), jax.jit(function)(x, second), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_indices(name, dtype):
    check(INDICES[name], np.array([0, 3, 9, 255], np.uint8).view(np.int8).astype(np.int32).astype(dtype))


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers(name):
    check(RANDOM[name], KEY)
