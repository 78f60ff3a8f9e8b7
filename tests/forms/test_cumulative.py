"""Forms of cumulative operations against the primitives."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from form_checks import assert_forms_agree, signature_for, small_integers
from hypothesis import given
from hypothesis import strategies as st
from jax.extend.core import primitives
from xlapass.core.forms import FormTable
from xlapass.passes.forms.cumulative import FORMS

TABLE = FormTable(FORMS)
CUMULATIVE = {
    name: getattr(primitives, f"{name}_p") for name in ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
}


@pytest.mark.parametrize("name", CUMULATIVE)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.data(), st.booleans())
def test_every_form_equals_the_primitive(name: str, shape: list[int], data: Any, reverse: bool) -> None:
    floats = [jnp.float32, jnp.bfloat16]
    dtype = data.draw(st.sampled_from(floats if name == "cumlogsumexp" else [*floats, jnp.int32, jnp.int8]))
    operand = small_integers(1, shape, dtype)
    if name == "cumprod":
        operand = jnp.sign(operand)
    params = {"axis": data.draw(st.integers(0, len(shape) - 1)), "reverse": reverse}
    tolerance = 0.0 if name != "cumlogsumexp" else 2e-2 if dtype == jnp.bfloat16 else 1e-6
    forms = assert_forms_agree(TABLE, CUMULATIVE[name], (operand,), params, tolerance=tolerance)
    loops_only = {"row-after-row"}
    assert {form.name for form in forms} == (loops_only if name in ("cummax", "cummin") else loops_only | {"prefix"})


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_extremes_of_special_values_are_exact(name: str) -> None:
    values = np.random.default_rng(0).choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 1.0, 2.0], (40, 9))
    operand = jnp.asarray(values, jnp.float32)
    assert_forms_agree(TABLE, CUMULATIVE[name], (operand,), {"axis": 0, "reverse": False})


def test_long_sums_round_like_the_primitive() -> None:
    operand = jnp.asarray(np.random.default_rng(0).standard_normal((4000, 3)), jnp.float32)
    forms = assert_forms_agree(TABLE, primitives.cumsum_p, (operand,), {"axis": 0, "reverse": False}, tolerance=1e-5)
    assert {form.name for form in forms} == {"row-after-row", "prefix"}


def test_very_long_sums_are_not_added_one_by_one() -> None:
    params = {"axis": 0, "reverse": False}
    declined = TABLE.candidates(signature_for(primitives.cumsum_p, (jnp.zeros(50_000),), params))[1]
    assert declined == {"row-after-row": "it adds up 50000 floats, more than 4096"}
    assert TABLE.candidates(signature_for(primitives.cumsum_p, (jnp.zeros(50_000, int),), params))[1] == {}
