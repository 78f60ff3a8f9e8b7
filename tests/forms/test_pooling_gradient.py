"""The form of max pooling's gradient against the primitive: ties, NaNs, padding, overlap, gaps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from form_checks import assert_forms_agree, signature_for, small_integers
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import primitives
from xlapass.core.forms import FormTable
from xlapass.passes.forms.pooling_gradient import FORMS

TABLE = FormTable(FORMS)
DTYPES = st.sampled_from([jnp.float32, jnp.float32, jnp.bfloat16])


@st.composite
def pools(draw: Any) -> tuple[tuple[int, ...], dict[str, Any]]:
    """A shape, and parameters of max or min pooling."""
    rank = draw(st.integers(1, 3))
    per_dim = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * rank))  # noqa: E731
    window = per_dim(1, 4)
    shape = tuple(size + length for size, length in zip(per_dim(0, 5), window, strict=True))
    return shape, {
        "select_prim": draw(st.sampled_from([lax.ge_p, lax.le_p])),
        "window_dimensions": window,
        "window_strides": per_dim(1, 3),
        "padding": tuple(
            (min(low, length - 1), min(high, length - 1))
            for low, high, length in zip(per_dim(0, 3), per_dim(0, 3), window, strict=True)
        ),
    }


def values(seed: int, shape: tuple[int, ...], dtype: Any, special: bool) -> Any:
    """Small integers, many of them equal; with ``special``, some NaN and infinite."""
    plain = small_integers(seed, shape, dtype)
    return jnp.where(plain == 4, jnp.nan, jnp.where(plain == -4, -jnp.inf, plain)).astype(dtype) if special else plain


@given(pools(), st.integers(0, 99), DTYPES, st.booleans())
def test_what_is_sent_back_equals_the_primitive(case: Any, seed: int, dtype: Any, special: bool) -> None:
    shape, params = case
    operand = values(seed, shape, dtype, special)
    windows = [params[key] for key in ("window_dimensions", "window_strides", "padding")]
    source = jax.eval_shape(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, *windows), operand)
    operands = small_integers(5, source.shape, dtype), operand
    names = {form.name for form in assert_forms_agree(TABLE, primitives.select_and_scatter_add_p, operands, params)}
    assert names == ({"send-back"} if np.prod(params["window_strides"]) <= 16 else set())


def test_it_is_the_gradient_of_max_pooling() -> None:
    operand = jax.random.normal(jax.random.key(0), (2, 9, 9, 3))
    pool = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")  # noqa: E731
    cotangent = jax.random.normal(jax.random.key(1), pool(operand).shape)
    (expected,) = jax.vjp(pool, operand)[1](cotangent)
    form = TABLE.find("select_and_scatter_add", "send-back")
    assert form is not None
    actual = form.fn(
        cotangent,
        operand,
        select_prim=lax.ge_p,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 2, 2, 1),
        padding=((0, 0), (1, 1), (1, 1), (0, 0)),
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("reason", "select", "window", "strides"),
    [
        ("it selects by gt", lax.gt_p, (3, 3), (1, 1)),
        ("its window has more than 64 elements", lax.ge_p, (9, 9), (1, 1)),
        ("it has more than 16 phases", lax.ge_p, (5, 5), (5, 5)),
    ],
)
def test_it_says_why_it_declines(reason: str, select: Any, window: Any, strides: Any) -> None:
    operand = jnp.zeros((20, 20))
    windows = lax.reduce_window(operand, -jnp.inf, lax.max, window, strides, "VALID")
    params = {
        "select_prim": select,
        "window_dimensions": window,
        "window_strides": strides,
        "padding": ((0, 0), (0, 0)),
    }
    signature = signature_for(primitives.select_and_scatter_add_p, (windows, operand), params)
    assert TABLE.candidates(signature)[1] == {"send-back": reason}
