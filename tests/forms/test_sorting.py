"""The form of `sort`: the same numbers in the same order."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from form_checks import assert_forms_agree, equation_of, signature_for
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import primitives
from xlapass.core.forms import FormTable
from xlapass.passes.forms.sorting import FORMS

TABLE = FormTable(FORMS)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1.5, -3e38, np.inf, -np.inf, np.nan, -np.nan]


def params_of(*operands: Any, dimension: int = 0) -> Any:
    return equation_of(lambda *x: lax.sort(x, dimension=dimension), *operands, primitive="sort")


@settings(max_examples=15)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=3),
    st.data(),
    st.sampled_from([jnp.float32, jnp.float16, jnp.bfloat16]),
)
def test_values_equal_the_primitive(shape: list[int], data: Any, dtype: Any) -> None:
    dimension = data.draw(st.integers(0, len(shape) - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    with np.errstate(over="ignore"):
        operand = jnp.asarray(rng.choice(np.array(SPECIAL, np.float32), shape)).astype(dtype)
    forms = assert_forms_agree(TABLE, primitives.sort_p, (operand,), params_of(operand, dimension=dimension))
    assert [form.name for form in forms] == ([] if 0 in shape else ["integer-keys"])


def test_many_different_numbers() -> None:
    operand = jnp.asarray(np.random.default_rng(0).standard_normal((3, 1000)), jnp.float32)
    assert_forms_agree(TABLE, primitives.sort_p, (operand,), params_of(operand, dimension=1))


def test_what_stays_as_it_is() -> None:
    operand = jnp.zeros((4, 4))
    for operands, reason in [
        ((operand, operand), "it carries other arrays along"),
        ((operand.astype(int),), "it has elements of type int32"),
    ]:
        signature = signature_for(primitives.sort_p, operands, params_of(*operands))
        assert TABLE.candidates(signature)[1] == {"integer-keys": reason}
