"""Gathers and scatters: every mode, every reduction, indices that do not exist."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

RNG = np.random.default_rng(0)
STEP = 3

TABLE = np.abs(RNG.standard_normal((10, 4))).astype(np.float32) + 0.5
CUBE = RNG.standard_normal((4, 5, 6)).astype(np.float32)
WILD = np.array([1, -1, 30, 5, -11, 1], np.int32)
"""Negative, too large, too small, and twice the same."""

UPDATES = np.abs(RNG.standard_normal((6, 4))).astype(np.float32) + 0.5


def _reading(mode):
    return lambda t, i: (t.at[i].get(mode=mode), t.at[:, i].get(mode=mode), t.at[i, i].get(mode=mode))


def _writing(operation, mode):
    return lambda t, i, u: (getattr(t.at[i], operation)(u, mode=mode), getattr(t.T.at[:, i], operation)(u.T, mode=mode))


CASES = {
    **{f"get-{mode}": (_reading(mode), TABLE, WILD) for mode in ("clip", "fill", "drop")},
    **{
        f"{operation}-{mode}": (_writing(operation, mode), TABLE, WILD, UPDATES)
        for operation in ("add", "multiply", "min", "max", "set", "divide", "power")
        for mode in ("clip", "drop")
    },
    "take-wrap": (lambda t, i: jnp.take(t, i, axis=1, mode="wrap"), TABLE, WILD),
    "take-along-axis": (lambda t, i: jnp.take_along_axis(t, i, axis=0), TABLE, WILD[None, :4]),
    "apply": (lambda t, i: t.at[i].apply(jnp.sin), TABLE, WILD),
    "advanced": (lambda t, i: (t[i], t[:, i, ::2], t[i, :, i], t[i][:, None, i]), CUBE, np.array([0, 3, -1], np.int32)),
    "batched": (jax.vmap(lambda t, i: t[i]), CUBE, WILD[:4, None]),
    "batched-slices": (jax.vmap(lambda t, i: lax.dynamic_slice(t, (i, 0), (2, 3))), CUBE, WILD[:4]),
    "batched-updates": (jax.vmap(lambda t, i, u: t.at[i].add(u)), CUBE[:, :, 0], WILD[:4, None], CUBE[:, :1, 1]),
    "dynamic": (lambda t, i: (t[i], lax.dynamic_slice(t, (i, i), (2, 2))), TABLE, np.int32(30)),
    "dynamic-update": (lambda t, u, i: lax.dynamic_update_slice(t, u, (i, i)), TABLE, UPDATES[:2, :3], np.int32(-9)),
    "segments": (lambda d, s: jax.ops.segment_sum(d, s, 4), UPDATES, np.array([0, 0, 1, 3, 3, 9], np.int32)),
    "segment-max": (lambda d, s: jax.ops.segment_max(d, s, 4), UPDATES, np.array([0, 0, 1, 3, 3, 2], np.int32)),
    "integers": (lambda t, i: (t.at[i].max(7), t.at[i].add(t[0])), np.arange(40, dtype=np.int8).reshape(10, 4), WILD),
    "bincount": (lambda i: jnp.bincount(i, length=8), np.abs(WILD)),
    "nonzero": (lambda x: jnp.nonzero(x > 1, size=8, fill_value=-1), TABLE),
}


def test_indexing(case, agrees):
    fn, *args = case
    agrees(fn, *args)


def test_many_updates_take_a_loop(agrees, monkeypatch):
    from xlapass.backends.tflite.legalize import scattering

    monkeypatch.setattr(scattering, "MOST_SELECTED", 0)
    agrees(_writing("add", "drop"), TABLE, WILD, UPDATES)


def test_an_index_that_is_in_bounds_is_read_as_it_is():
    from .conftest import legal

    program = legal(lambda t, x: t[jnp.argmax(x)], (TABLE, UPDATES[0, :4]))
    assert "FILL" not in str(program.jaxpr)


@pytest.mark.parametrize("size", [0, 1])
def test_small_index_arrays(size, agrees):
    agrees(lambda t, i: (t[i], t.at[i].add(1.0)), TABLE, WILD[:size])
