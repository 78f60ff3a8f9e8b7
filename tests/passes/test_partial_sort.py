"""`partial-sort`: the first or last few of a sort, bit for bit."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from support import operations
from xlapass.core.manager import PassManager
from xlapass.core.program import Program
from xlapass.core.tracing import trace

DTYPES = ["float32", "float16", "bfloat16", "int32", "int8", "uint8", "uint32"]


def values(dtype: str, shape: tuple[int, ...], seed: int) -> Any:
    """Many equal elements, both zeros, infinities and NaNs of both signs, extreme integers."""
    rng = np.random.default_rng(seed)
    if dtype.startswith(("float", "bfloat")):
        pool = np.array([0.0, -0.0, 1.0, -1.0, 2.5, np.inf, -np.inf, np.nan, -np.nan], np.float32)
    else:
        info = np.iinfo(dtype)
        pool = np.array([info.min, info.max, 0, 1, 2, 3], np.int64 if info.min else np.uint64)
    return jnp.asarray(rng.choice(pool, shape)).astype(dtype)


def partially_sorted(fn: Any, *args: Any) -> tuple[Program, Program]:
    program = trace(fn, *args)
    return program, PassManager("inline,partial-sort").run(program)


def assert_same(before: Program, after: Program, *args: Any) -> None:
    for want, have in zip(before.evaluate_flat(args), after.evaluate_flat(args), strict=True):
        is_float = jnp.issubdtype(want.dtype, jnp.floating)
        want, have = (np.asarray(one, np.float64 if is_float else None) for one in (want, have))
        np.testing.assert_array_equal(have, want)
        if is_float:
            numbers = want == want
            np.testing.assert_array_equal(np.signbit(have)[numbers], np.signbit(want)[numbers])


@settings(max_examples=12)
@given(
    st.sampled_from(DTYPES),
    st.integers(0, 1),
    st.sampled_from([1, 3, 8]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9),
)
def test_bit_for_bit(dtype: str, axis: int, count: int, last: bool, payload: bool, seed: int) -> None:
    shape = (70, 3) if axis == 0 else (3, 70)
    key = values(dtype, shape, seed)
    other = jnp.asarray(np.random.default_rng(seed + 1).permutation(210).reshape(shape).astype(np.float32))
    start = 70 - count if last else 0

    def fn(*operands: Any) -> Any:
        results = lax.sort(operands, dimension=axis, num_keys=1)
        return [lax.slice_in_dim(one, start, start + count, axis=axis) for one in results]

    operands = (key, other) if payload else (key,)
    before, after = partially_sorted(fn, *operands)
    assert "sort" in operations(before) and "sort" not in operations(after)
    assert_same(before, after, *operands)


X = jnp.asarray(np.random.default_rng(0).integers(0, 50, (4, 128)).astype(np.float32))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.sort(x, axis=1)[:, -5:],
        lambda x: jnp.sort(x, axis=1)[:, -1],
        lambda x: jnp.sort(x, axis=1)[:, :3],
        lambda x: jnp.argsort(x, axis=1)[:, :3],
        lambda x: jnp.argsort(x, axis=1)[:, -3:],
        lambda x: jnp.argsort(-x, axis=1)[:, :5],
        lambda x: jnp.argsort(x, axis=1, descending=True)[:, :5],
        lambda x: -jnp.sort(-x, axis=1)[:, :5],
        lambda x: jnp.sort(x, axis=1, descending=True)[:, 1:7:3],
        lambda x: jnp.sort(x, axis=1)[::-1, ::-1][1:3, 2:9:3],
        lambda x: (lambda s: (s[:, -2:], s[:, -5:-3].sum()))(jnp.sort(x, axis=1)),
        lambda x: lax.scan(lambda c, _: (jnp.sort(x + c, axis=1)[:, :1].sum(), None), 0.0, None, length=2)[0],
    ],
)
def test_spellings(fn: Any) -> None:
    before, after = partially_sorted(fn, X)
    assert "sort" in operations(before) and "sort" not in operations(after)
    assert "top_k" in operations(after)
    assert_same(before, after, X)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.sort(x, axis=1),
        lambda x: jnp.sort(x, axis=1)[:, :40],
        lambda x: jnp.sort(x, axis=1)[:, 60:64],
        lambda x: (lambda s: (s[:, :1], s[:, -1:]))(jnp.sort(x, axis=1)),
        lambda x: (lambda s: (s[:, :1], s.sum()))(jnp.sort(x, axis=1)),
        lambda x: jnp.sort(x, axis=0)[:1],
        lambda x: jnp.sort(x > 3, axis=1)[:, :1],
        lambda x: jnp.sort(x + 1j, axis=1)[:, :1],
        lambda x: lax.sort((x, -x), dimension=1, num_keys=2)[1][:, :1],
        lambda x: jnp.sort(x[:0], axis=1)[:, :1],
        lambda x: jnp.sort(x, axis=1)[:, :0],
    ],
)
def test_what_stays_a_sort(fn: Any) -> None:
    before, after = partially_sorted(fn, X)
    assert operations(before).count("sort") == operations(after).count("sort") > 0


def test_symbolic_sizes_stay() -> None:
    program = trace(lambda x: jnp.sort(x, axis=1)[:, :1], X, dynamic="b, ...")
    assert "sort" in operations(PassManager("inline,partial-sort").run(program))


def test_the_cpu_pipeline_does_it() -> None:
    import xlapass

    artifact = xlapass.compile(lambda x: jnp.sort(x, axis=1)[:, -5:], X)
    assert "sort" not in operations(artifact.program)
    np.testing.assert_array_equal(artifact.executable()(X), np.sort(X, axis=1)[:, -5:])
