"""Windows, their gradients, and cumulative operations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

STEP = 5

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 7, 8, 3)).astype(np.float32)
X = RNG.standard_normal((4, 6)).astype(np.float32)
FUNCTIONS = {
    "max": (lax.max, -np.inf),
    "min": (lax.min, np.inf),
    "sum": (lax.add, 0.0),
    "product": (lax.mul, 1.0),
    "log-sum": (jnp.logaddexp, -np.inf),
    "start": (lax.add, 0.5),
}
WINDOWS = {
    "image": (IMAGE, (1, 2, 3, 1), (1, 2, 1, 1), "SAME", None, None),
    "dilated": (IMAGE, (1, 2, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 2), (0, 1), (0, 0)), (1, 2, 1, 1), (1, 1, 2, 1)),
    "row": (X[0], (3,), (2,), "SAME", None, None),
    "volume": (IMAGE[0], (2, 2, 2), (1, 2, 1), "VALID", None, None),
}


def _window(function, start, window, strides, padding, base, dilation):
    return lambda x: lax.reduce_window(
        x, np.float32(start), function, window, strides, padding, base_dilation=base, window_dilation=dilation
    )


def _pool(window, strides, padding, function=lax.max, start=-np.inf):
    return _window(function, start, window, strides, padding, None, None)


SMALL, LARGE = _pool((1, 2, 2, 1), (1, 2, 2, 1), "VALID"), _pool((1, 3, 3, 1), (1, 2, 2, 1), "SAME")
CASES = {
    **{
        f"{name}-{shape}": (_window(*FUNCTIONS[name], *options), x)
        for name in FUNCTIONS
        for shape, (x, *options) in WINDOWS.items()
    },
    "two-arrays": (
        lambda x: lax.reduce_window(
            (x, x > 0), (np.float32(0), np.False_), lambda a, b: (a[0] + b[0], a[1] | b[1]), (2, 3), (1, 2), "SAME"
        ),
        X,
    ),
    "gradient": (jax.grad(lambda x: (SMALL(x) ** 2).sum() + (LARGE(x) ** 2).sum()), IMAGE),
    "gradient-min": (
        jax.grad(lambda x: (_pool((1, 2, 2, 1), (1, 1, 1, 1), "VALID", lax.min, np.inf)(x) ** 2).sum()),
        IMAGE,
    ),
    "derivative": (lambda x: jax.jvp(LARGE, (x,), (x * 2,))[1], IMAGE),
    "cumulative": (
        lambda x: [
            f(x, axis, reverse=r) for f in (lax.cummax, lax.cummin, lax.cumprod) for axis in (0, 1) for r in (0, 1)
        ],
        X,
    ),
    "cumulative-log-sum": (lambda x: (lax.cumlogsumexp(x, 1), lax.cumlogsumexp(x, 0, reverse=True)), X),
    "cumulative-bytes": (lambda x: (lax.cumsum(x, 1), lax.cummax(x, 0)), (X * 90).astype(np.int8)),
    "reduce": (lambda x: lax.reduce(x, np.float32(0), lambda a, b: a + b + a * b, (0,)), X),
    "reduce-two": (
        lambda x: lax.reduce(
            (x, jnp.ones_like(x)), (np.float32(0), np.float32(0)), lambda a, b: (a[0] + b[0], a[1] + b[1]), (1,)
        ),
        X,
    ),
    "reduce-bits": (
        lambda x: (lax.reduce_xor(x, (0,)), lax.reduce_and(x, (1,)), lax.reduce_or(x, (0, 1))),
        (X * 90).astype(np.int32),
    ),
}


def test_windows(case, agrees):
    fn, *args = case
    agrees(fn, *args)
