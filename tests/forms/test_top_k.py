"""The form of `top_k`: bit for bit, ties, zeros and NaNs included."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from form_checks import assert_forms_agree, equation_of, signature_for
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import primitives
from xlapass.core.forms import FormTable
from xlapass.passes.forms.top_k import FORMS

TABLE = FormTable(FORMS)


def params_of(operand: Any, k: int, axis: int) -> Any:
    return equation_of(lambda x: lax.top_k(x, k, axis=axis), operand, primitive="top_k")


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.data(), st.sampled_from([jnp.float32, jnp.int32]))
def test_values_and_indices_equal_the_primitive(shape: list[int], data: Any, dtype: Any) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    k = data.draw(st.integers(1, min(8, shape[axis])))
    values = [0, 1, 2, -1, np.iinfo(np.int32).min, np.iinfo(np.int32).max]
    if dtype == jnp.float32:
        values = [0.0, -0.0, 1.0, 1.0, 2.0, -np.inf, np.inf, np.nan]
    operand = jnp.asarray(np.random.default_rng(data.draw(st.integers(0, 99))).choice(values, shape)).astype(dtype)
    forms = assert_forms_agree(TABLE, primitives.top_k_p, (operand,), params_of(operand, k, axis))
    assert [form.name for form in forms] == ["largest-again"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_many_rows(dtype: Any, axis: int) -> None:
    shape = [32, 32, 32]
    operand = jnp.asarray(np.random.default_rng(0).integers(-9, 9, shape)).astype(dtype)
    forms = assert_forms_agree(TABLE, primitives.top_k_p, (operand,), params_of(operand, 3, axis))
    assert [form.name for form in forms] == ["largest-again", "largest-of-columns"]


def test_long_rows_are_left_alone() -> None:
    rows = jnp.zeros((8, 50257))
    declined = TABLE.candidates(signature_for(primitives.top_k_p, (rows,), params_of(rows, 40, 1)))[1]
    assert declined == dict.fromkeys(("largest-again", "largest-of-columns"), "40 of 50257 are too many")
