"""Primitives with drawn parameters, against JAX."""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

MANY = hypothesis.settings(
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate],  # shrinking takes minutes
    max_examples=200 if os.environ.get("XLAPASS_SWEEP") == "1" else 4,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
TYPES = (np.float32, np.int32, np.int8, np.uint32, np.bool_, np.complex64, np.float16)


def _array(shape: tuple[int, ...], dtype: Any, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal(shape) * 4
    if dtype == np.bool_:
        return numbers > 0
    if np.dtype(dtype).kind == "c":
        return (numbers + 1j * rng.standard_normal(shape)).astype(dtype)
    return np.abs(numbers).astype(dtype) if np.dtype(dtype).kind == "u" else numbers.astype(dtype)


arrays = st.builds(
    _array,
    st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    st.sampled_from(TYPES),
    st.integers(0, 99),
)


@MANY
@hypothesis.given(arrays, st.data())
def test_moves(agrees, x, data):
    low_high = [
        (data.draw(st.integers(-1, 2)), data.draw(st.integers(-1, 2)), data.draw(st.integers(0, 2))) for _ in x.shape
    ]
    edges = [
        (a, b, c) if n + a + b + (n - 1) * c > 0 else (0, 0, 0) for (a, b, c), n in zip(low_high, x.shape, strict=True)
    ]
    order = data.draw(st.permutations(range(x.ndim)))
    flipped = data.draw(st.lists(st.sampled_from(range(x.ndim)), unique=True))
    starts = [data.draw(st.integers(0, n - 1)) for n in x.shape]
    strides = [data.draw(st.integers(1, 3)) for _ in x.shape]

    def moves(x: Any) -> Any:
        filler = jnp.zeros((), x.dtype)
        return (
            lax.pad(x, filler, edges),
            x.transpose(order),
            lax.rev(x, flipped),
            lax.slice(x, starts, x.shape, strides),
        )

    agrees(moves, x)


@MANY
@hypothesis.given(arrays, st.data())
def test_indices(agrees, x, data):
    axis = data.draw(st.integers(0, x.ndim - 1))
    shape = data.draw(st.lists(st.integers(1, 3), max_size=2).map(tuple))
    places = np.asarray(data.draw(st.lists(st.integers(-6, 6), min_size=9, max_size=9)), np.int32)[
        : int(np.prod(shape))
    ]
    places = places.reshape(shape)
    mode = data.draw(st.sampled_from(["clip", "fill"]))
    operation = data.draw(st.sampled_from(["set", "add", "multiply", "min", "max"]))
    operation = "set" if x.dtype == np.bool_ else "add" if x.dtype.kind == "c" else operation

    def indices(x: Any, i: Any) -> Any:
        moved = jnp.moveaxis(x, axis, 0)
        taken = jnp.take(x, i, axis=axis, mode=mode)
        distinct = jnp.unique(i % x.shape[axis], size=1) if operation == "set" else i
        value = moved[:1].reshape(moved.shape[1:])
        return taken, getattr(moved.at[distinct], operation)(value, mode="drop")

    agrees(indices, x, places)


@MANY
@hypothesis.given(st.data())
def test_convolutions(agrees, data):
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    rank = draw(1, 3)
    groups = draw(1, 2)
    features, kernel = 2 * groups, [draw(1, 3) for _ in range(rank)]
    image = [draw(4, 7) for _ in range(rank)]
    letters = "DHW"[3 - rank :]
    spec = data.draw(st.sampled_from([(f"N{letters}C", f"{letters}IO"), (f"NC{letters}", f"OI{letters}")]))
    x_sizes = {"N": 2, "C": features, **dict(zip(letters, image, strict=True))}
    w_sizes = {"I": 2, "O": 2 * groups, **dict(zip(letters, kernel, strict=True))}
    x = _array(tuple(x_sizes[c] for c in spec[0]), np.float32, 0)
    w = _array(tuple(w_sizes[c] for c in spec[1]), np.float32, 1)
    options = {
        "window_strides": [draw(1, 2) for _ in range(rank)],
        "padding": [(draw(-1, 3), draw(0, 3)) for _ in range(rank)],
        "lhs_dilation": [draw(1, 2) for _ in range(rank)],
        "rhs_dilation": [draw(1, 2) for _ in range(rank)],
    }

    def convolve(x: Any, w: Any) -> Any:
        numbers = (spec[0], spec[1], spec[0])
        return lax.conv_general_dilated(x, w, dimension_numbers=numbers, feature_group_count=groups, **options)

    hypothesis.assume(all(jax.eval_shape(convolve, x, w).shape))
    agrees(convolve, x, w)


@MANY
@hypothesis.given(st.data())
def test_products(agrees, data):
    sizes = [data.draw(st.integers(1, 3)) for _ in range(5)]
    left = data.draw(st.permutations("bchmk"))
    right = data.draw(st.permutations("bchnk"))
    names = dict(zip("bchmkn", [*sizes, 4], strict=False))
    x = _array(tuple(names[c] for c in left), np.float32, 0)
    y = _array(tuple(names[c] for c in right), np.float32, 1)
    kept = data.draw(st.lists(st.sampled_from("bchmkn"), unique=True, min_size=1))
    agrees(lambda x, y: jnp.einsum(f"{''.join(left)},{''.join(right)}->{''.join(kept)}", x, y), x, y)


@MANY
@hypothesis.given(arrays, st.data())
def test_windows(agrees, x, data):
    hypothesis.assume(x.dtype.kind in "fiu" and x.dtype != np.float16)
    window = [data.draw(st.integers(1, 2)) for _ in x.shape]
    strides = [data.draw(st.integers(1, 2)) for _ in x.shape]
    padding = data.draw(st.sampled_from(["SAME", "VALID"]))
    hypothesis.assume(padding == "SAME" or all(w <= n for w, n in zip(window, x.shape, strict=True)))
    function, start = data.draw(st.sampled_from([(lax.add, 0), (lax.max, "low"), (lax.min, "high"), (lax.mul, 1)]))
    ends = jnp.finfo(x.dtype) if x.dtype.kind == "f" else np.iinfo(x.dtype)
    extreme = {"low": -np.inf if x.dtype.kind == "f" else ends.min, "high": np.inf if x.dtype.kind == "f" else ends.max}
    first = np.asarray(extreme.get(start, start), x.dtype)
    axis = data.draw(st.integers(0, x.ndim - 1))
    agrees(
        lambda x: (
            lax.reduce_window(x, first, function, window, strides, padding),
            jnp.cumsum(x, axis),
            lax.cummin(x, axis),
        ),
        x,
    )
