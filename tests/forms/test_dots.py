"""Forms of matrix products against the primitive."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from form_checks import assert_forms_agree, signature_for, small_integers
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import primitives
from xlapass.core.forms import FormTable
from xlapass.passes.forms.dots import FORMS

TABLE = FormTable(FORMS)
DOT = primitives.dot_general_p


def params_for(dimensions: Any, preferred: Any = None, precision: Any = None) -> dict[str, Any]:
    return {
        "dimension_numbers": dimensions,
        "precision": precision,
        "preferred_element_type": None if preferred is None else np.dtype(preferred),
        "out_sharding": None,
    }


@given(st.data())
def test_every_form_equals_the_primitive(data: Any) -> None:
    draw = data.draw
    batch = draw(st.sampled_from([[], [3], [16], [4, 5]]))
    depth = draw(st.lists(st.integers(0, 4), min_size=1, max_size=2))
    left_free, right_free = (draw(st.lists(st.integers(1, 5), max_size=2)) for _ in range(2))
    sides = []
    for free in (left_free, right_free):
        kinds = [("batch", i) for i in range(len(batch))] + [("depth", i) for i in range(len(depth))]
        kinds += [("free", i) for i in range(len(free))]
        order = draw(st.permutations(kinds))
        sizes = {"batch": batch, "depth": depth, "free": free}
        place = {kind: order.index(kind) for kind in kinds}
        sides.append(
            (
                [sizes[kind][i] for kind, i in order],
                tuple(place["depth", i] for i in range(len(depth))),
                tuple(place["batch", i] for i in range(len(batch))),
            )
        )
    (left, left_depth, left_batch), (right, right_depth, right_batch) = sides
    dtype = draw(st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16, jnp.int32]))
    preferred = draw(st.sampled_from([None, jnp.int32 if dtype == jnp.int32 else jnp.float32]))
    params = params_for(((left_depth, right_depth), (left_batch, right_batch)), preferred)
    operands = small_integers(1, left, dtype), small_integers(2, right, dtype)
    assert_forms_agree(TABLE, DOT, operands, params, constants=(1,))


@pytest.mark.parametrize(
    ("form", "lhs", "rhs", "dimensions", "dtype"),
    [
        ("widened", (3, 8), (8, 5), (((1,), (0,)), ((), ())), jnp.bfloat16),
        ("turned", (3, 8), (5, 8), (((1,), (1,)), ((), ())), jnp.float32),
        ("lengthwise", (1, 512), (512, 513), (((1,), (0,)), ((), ())), jnp.float32),
        ("written-out", (20, 4, 3), (20, 3, 4), (((2,), (1,)), ((0,), (0,))), jnp.float32),
    ],
)
def test_a_typical_signature_has_its_form(form: str, lhs: Any, rhs: Any, dimensions: Any, dtype: Any) -> None:
    operands = small_integers(1, lhs, dtype), small_integers(2, rhs, dtype)
    forms = assert_forms_agree(TABLE, DOT, operands, params_for(dimensions), constants=(1,))
    assert form in {f.name for f in forms}


def test_an_algorithm_that_is_asked_for_is_kept() -> None:
    operands = jnp.zeros((20, 4, 3)), jnp.zeros((20, 3, 4))
    params = params_for((((2,), (1,)), ((0,), (0,))), precision=lax.DotAlgorithmPreset.F32_F32_F32)
    declined = TABLE.candidates(signature_for(DOT, operands, params))[1]
    assert declined["written-out"].startswith("its precision")


def test_only_constants_are_turned_and_widened() -> None:
    operands = jnp.zeros((4, 8), jnp.bfloat16), jnp.zeros((5, 8), jnp.bfloat16)
    params = params_for((((1,), (1,)), ((), ())))
    signature = signature_for(DOT, operands, params)
    assert TABLE.candidates(signature)[1]["widened"].startswith("neither operand is a constant")
    assert TABLE.candidates(signature)[1]["turned"].startswith("its second operand is no constant")
    found = TABLE.candidates(signature_for(DOT, operands, params, constants=(1,)))[0]
    assert {form.name for form in found} == {"widened", "turned"}


def test_rows_of_large_constants_only_are_read_lengthwise() -> None:
    params = params_for((((1,), (0,)), ((), ())))
    reasons = {
        ((2, 512), (512, 512)): "it does not have one row",
        ((1, 64), (64, 64)): "a matrix of 4096 elements stays in the cache",
        ((1, 64), (64, 4096)): "its rows are long enough",
    }
    for (lhs, rhs), reason in reasons.items():
        signature = signature_for(DOT, (jnp.zeros(lhs), jnp.zeros(rhs)), params, constants=(1,))
        assert TABLE.candidates(signature)[1]["lengthwise"] == reason


@pytest.mark.parametrize(
    ("lhs", "rhs", "dimensions"),
    [
        ((2, 1, 3, 4), (2, 5, 3, 4), (((3,), (3,)), ((0, 2), (0, 2)))),
        ((2, 3, 1, 5), (2, 5, 3, 4), (((3,), (1,)), ((0, 1), (0, 2)))),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_per_head_have_the_batch_moved_first(lhs: Any, rhs: Any, dimensions: Any, dtype: Any) -> None:
    operands = small_integers(1, lhs, dtype), small_integers(2, rhs, dtype)
    forms = assert_forms_agree(TABLE, DOT, operands, params_for(dimensions), only="batch-first")
    assert forms


@pytest.mark.parametrize(
    ("lhs", "rhs", "dimensions"),
    [
        ((2, 1, 3, 4), (2, 5, 3, 4), (((3,), (3,)), ((0, 2), (0, 2)))),
        ((2, 3, 2, 5), (2, 5, 3, 4), (((3,), (1,)), ((0, 1), (0, 2)))),
        ((2, 5, 3, 4), (2, 3, 2, 5), (((1,), (3,)), ((2, 0), (1, 0)))),
        ((5, 3, 4), (3, 4), (((2,), (1,)), ((1,), (0,)))),
        ((6, 5, 3, 4), (3, 6, 4, 2), (((0, 3), (1, 2)), ((2,), (0,)))),
        ((6, 5, 3, 2), (5, 3, 2), (((1, 3), (0, 2)), ((2,), (1,)))),
        ((7, 6, 5, 2, 3, 4), (2, 6, 3, 7), (((4,), (2,)), ((0, 1, 3), (3, 1, 0)))),
        ((1, 3, 2, 5), (1, 5, 3, 4), (((3,), (1,)), ((0, 1), (0, 2)))),
    ],
)
def test_few_rows_per_head_leave_the_other_operand_alone(lhs: Any, rhs: Any, dimensions: Any) -> None:
    operands = small_integers(1, lhs, jnp.float32), small_integers(2, rhs, jnp.float32)
    assert assert_forms_agree(TABLE, DOT, operands, params_for(dimensions), only="per-head")


def test_a_head_sees_no_infinity_of_another_ones_values() -> None:
    weights, values = jnp.ones((1, 2, 1, 3)), jnp.ones((1, 3, 2, 4)).at[0, 1, 0].set(jnp.inf)
    (form,) = (form for form in FORMS if form.name == "per-head")
    out = form.fn(weights, values, **params_for((((3,), (1,)), ((0, 1), (0, 2)))))
    assert np.isinf(out[0, 0]).all()
    np.testing.assert_array_equal(out[0, 1], 3.0)


def test_a_query_of_one_row_leaves_its_keys_where_they_are() -> None:
    params = params_for((((3,), (3,)), ((0, 2), (0, 2))))
    short = signature_for(DOT, (jnp.zeros((1, 1, 12, 64)), jnp.zeros((1, 1024, 12, 64))), params)
    assert TABLE.choose(short).form == "per-head"
    long = signature_for(DOT, (jnp.zeros((1, 32, 12, 64)), jnp.zeros((1, 1024, 12, 64))), params)
    assert TABLE.candidates(long)[1]["per-head"] == "it has more than 64 rows of all heads"
