"""Forms of pooling against the primitives, over their whole parameter space."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from form_checks import assert_forms_agree, equation_of, signature_for, small_integers
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import primitives
from xlapass.core.forms import FormTable
from xlapass.passes.forms.pooling import FORMS

TABLE = FormTable(FORMS)
POOLS = {
    "max": (lax.max, -jnp.inf, primitives.reduce_window_max_p),
    "min": (lax.min, jnp.inf, primitives.reduce_window_min_p),
    "sum": (lax.add, 0.0, primitives.reduce_window_sum_p),
    "product": (lax.mul, 1.0, primitives.reduce_window_p),
    "scaled product": (lax.mul, 2.0, primitives.reduce_window_p),
}


def agree(operand: Any, pool: str, options: dict[str, Any], tolerance: float = 0.0) -> set[str]:
    """Checks one pool; returns the names of the forms that applied."""
    reducer, init, primitive = POOLS[pool]
    if jnp.issubdtype(operand.dtype, jnp.integer):
        limits = jnp.iinfo(operand.dtype)
        init = {-jnp.inf: limits.min, jnp.inf: limits.max}.get(init, int(init) if np.isfinite(init) else init)
    init = np.asarray(init, operand.dtype)
    params = equation_of(lambda x: lax.reduce_window(x, init, reducer, **options), operand, primitive=primitive.name)
    operands = (operand, jnp.asarray(init)) if primitive is primitives.reduce_window_p else (operand,)
    return {form.name for form in assert_forms_agree(TABLE, primitive, operands, params, tolerance=tolerance)}


@st.composite
def pools(draw: Any) -> tuple[tuple[int, ...], dict[str, Any]]:
    """A shape and the options of ``lax.reduce_window``."""
    rank = draw(st.integers(1, 4))
    per_dim = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * rank))  # noqa: E731
    shape = per_dim(0 if draw(st.integers(0, 9)) == 0 else 1, 8)
    window = draw(st.sampled_from([None, (11, *[1] * (rank - 1))])) or per_dim(1, 4)
    padding = [
        (max(low, -(size // 2)), max(high, -(size // 2)))
        for low, high, size in zip(per_dim(-1, 3), per_dim(-1, 3), shape, strict=True)
    ]
    return shape, {
        "window_dimensions": window,
        "window_strides": draw(st.sampled_from([(1,) * rank, None])) or per_dim(1, 3),
        "padding": padding,
        "base_dilation": draw(st.sampled_from([(1,) * rank, None])) or per_dim(1, 3),
        "window_dilation": draw(st.sampled_from([(1,) * rank, None])) or per_dim(1, 3),
    }


@pytest.mark.parametrize("pool", POOLS)
@given(pools(), st.sampled_from([jnp.float32, jnp.float32, jnp.bfloat16, jnp.int32, jnp.int8]))
def test_slices_equal_the_primitive(pool: str, case: tuple[tuple[int, ...], dict[str, Any]], dtype: Any) -> None:
    shape, options = case
    if "product" in pool:
        dtype = jnp.int32 if jnp.issubdtype(dtype, jnp.integer) else jnp.float32
        operand = jnp.sign(small_integers(3, shape, dtype))
    else:
        operand = small_integers(3, shape, dtype)
    agree(operand, pool, options)


@pytest.mark.parametrize("pool", ["max", "min"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_extremes_of_special_values_are_exact(pool: str, dtype: Any) -> None:
    values = np.random.default_rng(0).choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], (1, 12, 12, 8))
    operand = jnp.asarray(values, dtype)
    options = {"window_dimensions": (1, 3, 3, 1), "window_strides": (1, 2, 1, 1), "padding": "SAME"}
    assert agree(operand, pool, options) == {"slices"}


def test_long_sums_round_like_the_primitive() -> None:
    operand = jnp.asarray(np.random.default_rng(0).standard_normal((2, 40, 3)), jnp.float32)
    options = {"window_dimensions": (1, 31, 1), "window_strides": (1, 1, 1), "padding": "SAME"}
    assert agree(operand, "sum", options, tolerance=1e-5) == {"slices"}


@pytest.mark.parametrize(
    ("reason", "window", "padding"),
    [
        ("its windows do not overlap", (2, 2), "SAME"),
        ("its window is longer than 64", (99, 1), "SAME"),
    ],
)
def test_slices_say_why_they_decline(reason: str, window: tuple[int, int], padding: str) -> None:
    operand = jnp.zeros((100, 100))
    params = equation_of(
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, (2, 2), padding),
        operand,
        primitive="reduce_window_max",
    )
    signature = signature_for(primitives.reduce_window_max_p, (operand,), params)
    assert TABLE.candidates(signature)[1] == {"slices": reason}


def test_a_reducer_of_several_operations_is_left_alone() -> None:
    operand = jnp.ones((8,))
    params = equation_of(
        lambda x: lax.reduce_window(x, 0.0, lambda a, b: a + 2 * b, (3,), (1,), "SAME"),
        operand,
        primitive="reduce_window",
    )
    signature = signature_for(primitives.reduce_window_p, (operand, jnp.zeros(())), params)
    assert TABLE.candidates(signature)[1] == {"slices": "its reducer is not a single associative operation"}
