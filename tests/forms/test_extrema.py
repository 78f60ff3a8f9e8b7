"""Forms of `argmax` and `argmin`: bit for bit, ties and NaNs included."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from form_checks import assert_forms_agree, signature_for
from hypothesis import given
from hypothesis import strategies as st
from jax.extend.core import primitives
from xlapass.core.forms import FormTable
from xlapass.passes.forms.extrema import FORMS

TABLE = FormTable(FORMS)
PRIMITIVES = {"argmax": primitives.argmax_p, "argmin": primitives.argmin_p}


@pytest.mark.parametrize("name", PRIMITIVES)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.sampled_from([1, 2, 31, 40]),
    st.data(),
    st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16, jnp.int32, jnp.uint8]),
    st.sampled_from([jnp.int32, jnp.uint8, jnp.int16]),
)
def test_indices_equal_the_primitive(
    name: str, outer: list[int], length: int, data: Any, dtype: Any, index_dtype: Any
) -> None:
    axis = data.draw(st.integers(0, len(outer)))
    shape = (*outer[:axis], length, *outer[axis:])
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = [0.0, 1.0, 2.0]
    if jnp.issubdtype(dtype, jnp.floating):
        values += [-0.0, -1.0, np.inf, -np.inf, *[np.nan] * data.draw(st.integers(0, 2))]
    operand = jnp.asarray(rng.choice(values, shape)).astype(dtype)
    params = {"axes": (axis,), "index_dtype": np.dtype(index_dtype)}
    names = {form.name for form in assert_forms_agree(TABLE, PRIMITIVES[name], (operand,), params)}
    assert names == ({"extreme-then-index", "slice-after-slice"} if length <= 32 else {"extreme-then-index"})


def test_indices_that_do_not_fit_their_type_are_left_alone() -> None:
    params = {"axes": (0,), "index_dtype": np.dtype(np.int8)}
    declined = TABLE.candidates(signature_for(primitives.argmax_p, (jnp.zeros(200),), params))[1]
    assert declined["extreme-then-index"] == "an axis of 200 has indices that do not fit their type"


def test_a_long_row_costs_less() -> None:
    params = {"axes": (1,), "index_dtype": np.dtype(np.int32)}
    choice = TABLE.choose(signature_for(primitives.argmax_p, (jnp.zeros((8, 50257)),), params))
    assert choice.form == "extreme-then-index"
    assert choice.gain > 2
