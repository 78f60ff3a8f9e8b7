"""Forms of convolution against the primitive, over its whole parameter space."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from form_checks import assert_forms_agree, equation_of, signature_for, small_integers
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import primitives
from xlapass.core.forms import FormTable
from xlapass.passes.forms.convolution import FORMS

TABLE = FormTable(FORMS)
CONVOLUTION = primitives.conv_general_dilated_p


def agree(lhs: Any, rhs: Any, **options: Any) -> set[str]:
    """Checks one convolution; returns the names of the forms that applied."""
    params = equation_of(
        lambda a, b: lax.conv_general_dilated(a, b, **options), lhs, rhs, primitive="conv_general_dilated"
    )
    return {form.name for form in assert_forms_agree(TABLE, CONVOLUTION, (lhs, rhs), params)}


KINDS = ("plain", "grouped", "depthwise", "batch-grouped")


@st.composite
def convolutions(draw: Any, rank: int, kind: str) -> tuple[Any, Any, dict[str, Any]]:
    """Operands and options of a convolution, small enough to be quick."""
    per_dim = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * rank))  # noqa: E731
    batch, groups, batch_groups, group_features = draw(st.integers(0, 3)), 1, 1, draw(st.integers(1, 3))
    if kind == "grouped":
        groups = draw(st.integers(2, 4))
    elif kind == "depthwise":
        groups, group_features = draw(st.integers(2, 9)), 1
    elif kind == "batch-grouped":
        batch_groups = draw(st.integers(2, 3))
        batch *= batch_groups
    out_features = groups * batch_groups * draw(st.integers(1, 3))
    image = per_dim(1, {1: 12, 2: 7, 3: 4}[rank])
    kernel = draw(st.sampled_from([(1,) * rank, (3,) * rank, None])) or per_dim(1, 4)
    dtype = draw(st.sampled_from([jnp.float32, jnp.float32, jnp.bfloat16, jnp.float16, jnp.int32]))
    lhs_spec, rhs_spec, out_spec = draw(st.sampled_from([CANONICAL[rank], IMAGE_GRADIENT[rank], None])) or (
        tuple(draw(st.permutations(range(rank + 2)))) for _ in range(3)
    )
    options = {
        "window_strides": draw(st.sampled_from([(1,) * rank, None])) or per_dim(1, 3),
        "padding": [  # JAX refuses to crop more than there is
            (max(low, -(size // 2)), max(high, -(size // 2)))
            for low, high, size in zip(per_dim(-2, 3), per_dim(-2, 3), image, strict=True)
        ],
        "lhs_dilation": draw(st.sampled_from([(1,) * rank, None])) or per_dim(1, 3),
        "rhs_dilation": draw(st.sampled_from([(1,) * rank, None])) or per_dim(1, 3),
        "dimension_numbers": lax.ConvDimensionNumbers(lhs_spec, rhs_spec, out_spec),
        "feature_group_count": groups,
        "batch_group_count": batch_groups,
        "precision": draw(st.sampled_from([None, lax.Precision.HIGHEST])),
        "preferred_element_type": jnp.float32 if dtype == jnp.bfloat16 and draw(st.booleans()) else None,
    }
    lhs_shape = ordered((batch, group_features * groups, *image), lhs_spec)
    rhs_shape = ordered((out_features, group_features, *kernel), rhs_spec)
    return small_integers(1, lhs_shape, dtype), small_integers(2, rhs_shape, dtype), options


CANONICAL = {
    rank: ((0, rank + 1, *range(1, rank + 1)), (rank + 1, rank, *range(rank)), (0, rank + 1, *range(1, rank + 1)))
    for rank in (1, 2, 3)
}
IMAGE_GRADIENT = {
    rank: (image, (rank, rank + 1, *range(rank)), result) for rank, (image, _, result) in CANONICAL.items()
}


def ordered(sizes: Any, spec: Any) -> tuple[int, ...]:
    """A shape in which dimension ``spec[i]`` has ``sizes[i]``."""
    shape = [0] * len(sizes)
    for size, dimension in zip(sizes, spec, strict=True):
        shape[dimension] = size
    return tuple(shape)


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_every_form_equals_the_primitive(kind: str, data: Any) -> None:
    rank = data.draw(st.sampled_from([1, 2, 2, 3]), label="rank")
    lhs, rhs, options = data.draw(convolutions(rank, kind), label="convolution")
    agree(lhs, rhs, **options)


NHWC, NCHW, NWC, NDHWC = (
    ("NHWC", "HWIO", "NHWC"),
    ("NCHW", "OIHW", "NCHW"),
    ("NWC", "WIO", "NWC"),
    ("NDHWC", "DHWIO", "NDHWC"),
)
ONE, TWO = (1, 1), (2, 2)
EXAMPLES = {
    "depthwise": (
        "tap-sum", (1, 9, 9, 8), (3, 3, 1, 8),
        {"window_strides": TWO, "padding": "SAME", "dimension_numbers": NHWC, "feature_group_count": 8},
    ),
    "channel multiplier": (
        "tap-sum", (1, 5, 6, 4), (3, 3, 1, 12),
        {"window_strides": ONE, "padding": "SAME", "dimension_numbers": NHWC, "feature_group_count": 4},
    ),
    "depthwise, channels first": (
        "tap-sum", (2, 8, 6, 6), (8, 1, 5, 5),
        {"window_strides": ONE, "padding": [(2, 2), (-1, 3)], "dimension_numbers": NCHW, "feature_group_count": 8},
    ),
    "first layer": ("feature-sum", (1, 9, 9, 3), (3, 3, 3, 16), {"window_strides": TWO, "padding": "SAME",
                                                               "dimension_numbers": NHWC}),
    "pointwise": ("product", (2, 5, 5, 8), (1, 1, 8, 4), {"window_strides": TWO, "padding": "VALID",
                                                        "dimension_numbers": NHWC}),
    "3x3": ("winograd-4", (2, 7, 10, 4), (3, 3, 4, 6), {"window_strides": ONE, "padding": "SAME",
                                                     "dimension_numbers": NHWC}),
    "asymmetric 3x3": ("winograd-4", (1, 6, 6, 4), (3, 3, 4, 6), {
        "window_strides": ONE, "padding": [(-1, 2), (3, 0)], "dimension_numbers": NHWC}),
    "patches": ("patch-product", (1, 7, 7, 4), (3, 2, 4, 6), {"window_strides": TWO, "padding": "SAME",
                                                             "rhs_dilation": TWO, "dimension_numbers": NHWC}),
    "shifts": ("shifted-product", (1, 7, 7, 4), (3, 3, 4, 6), {"window_strides": ONE, "padding": "SAME",
                                                              "rhs_dilation": TWO, "dimension_numbers": NHWC}),
    "causal 1-D": ("one-row", (1, 16, 4), (2, 4, 4), {"window_strides": (1,), "padding": [(4, 0)],
                                                     "rhs_dilation": (4,), "dimension_numbers": NWC}),
    "3-D": ("depth-sum", (1, 5, 4, 4, 4), (3, 3, 3, 4, 5), {"window_strides": (2, 1, 1), "padding": "SAME",
                                                           "dimension_numbers": NDHWC}),
    "3-D of few features": ("depth-folded", (1, 5, 4, 4, 2), (3, 3, 3, 2, 5), {
        "window_strides": (1, 1, 1), "padding": "SAME", "dimension_numbers": NDHWC}),
    "groups": ("block-diagonal", (1, 5, 5, 96), (3, 3, 8, 24), {
        "window_strides": ONE, "padding": "SAME", "dimension_numbers": NHWC, "feature_group_count": 12}),
    "transposed": ("phase-sum", (1, 4, 4, 4), (4, 4, 4, 3), {"window_strides": ONE, "padding": [(2, 2), (2, 2)],
                                                            "lhs_dilation": TWO, "dimension_numbers": NHWC}),
    "transposed, depthwise": ("phase-sum", (1, 4, 4, 4), (3, 3, 1, 4), {
        "window_strides": ONE, "padding": [(2, 1), (1, 2)], "lhs_dilation": (2, 3), "dimension_numbers": NHWC,
        "feature_group_count": 4}),
    "weight gradient": ("position-product", (4, 8, 8, 6), (4, 4, 4, 5), {
        "window_strides": ONE, "padding": [(1, 0), (1, 0)], "rhs_dilation": TWO,
        "dimension_numbers": lax.ConvDimensionNumbers((3, 0, 1, 2), (3, 0, 1, 2), (2, 3, 0, 1))}),
    "weight gradient, depthwise": ("position-product", (4, 8, 8, 6), (4, 8, 8, 6), {
        "window_strides": ONE, "padding": [(1, 1), (1, 1)], "batch_group_count": 6,
        "dimension_numbers": lax.ConvDimensionNumbers((3, 0, 1, 2), (3, 0, 1, 2), (2, 3, 0, 1))}),
    "image gradient": ("kernel-product", (2, 4, 3, 5), (3, 3, 4, 5), {
        "window_strides": ONE, "padding": [(1, 1), (2, 0)],
        "dimension_numbers": lax.ConvDimensionNumbers((0, 3, 1, 2), (2, 3, 0, 1), (0, 3, 1, 2))}),
    "channels first": ("channels-last", (1, 4, 6, 6), (5, 4, 3, 3), {"window_strides": ONE, "padding": "SAME",
                                                                    "dimension_numbers": NCHW}),
}  # fmt: skip


@pytest.mark.parametrize("case", EXAMPLES)
def test_a_typical_signature_has_its_form(case: str) -> None:
    name, lhs_shape, rhs_shape, options = EXAMPLES[case]
    lhs, rhs = small_integers(1, lhs_shape, jnp.float32), small_integers(2, rhs_shape, jnp.float32)
    assert name in agree(lhs, rhs, **options)


def test_winograd_rounds_like_the_primitive() -> None:
    lhs = jax.random.normal(jax.random.key(0), (1, 14, 14, 16))
    rhs = jax.random.normal(jax.random.key(1), (3, 3, 16, 8))
    params = equation_of(
        lambda a, b: lax.conv_general_dilated(a, b, ONE, "SAME", dimension_numbers=NHWC),
        lhs,
        rhs,
        primitive="conv_general_dilated",
    )
    for form, tolerance in (("winograd-2", 2e-6), ("winograd-4", 1e-5)):
        assert assert_forms_agree(TABLE, CONVOLUTION, (lhs, rhs), params, tolerance=tolerance, only=form)


@pytest.mark.parametrize(
    ("form", "reason", "options"),
    [
        ("tap-sum", "each output sees 4 input features, not one", {}),
        ("winograd-4", "it has strides or dilation", {"window_strides": TWO}),
        ("phase-sum", "its image is not dilated", {}),
        ("one-row", "it has 2 spatial dimensions, not one", {}),
        ("product", "its kernel has 9 taps, not one", {}),
        ("channels-last", "its dimensions are in that order already", {}),
    ],
)
def test_a_form_says_why_it_declines(form: str, reason: str, options: dict[str, Any]) -> None:
    lhs, rhs = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 4, 4))
    options = {"window_strides": ONE, "padding": "SAME", "dimension_numbers": NHWC} | options
    params = equation_of(
        lambda a, b: lax.conv_general_dilated(a, b, **options), lhs, rhs, primitive="conv_general_dilated"
    )
    assert TABLE.candidates(signature_for(CONVOLUTION, (lhs, rhs), params))[1][form] == reason


def test_complex_numbers_are_left_alone() -> None:
    lhs, rhs = jnp.zeros((1, 8, 8, 4), jnp.complex64), jnp.zeros((1, 1, 4, 4), jnp.complex64)
    assert agree(lhs, rhs, window_strides=ONE, padding="SAME", dimension_numbers=NHWC) == set()


@pytest.mark.parametrize(("batch", "size"), [(1, 200), (5, 64), (40, 8)])
def test_winograd_of_large_images_is_done_in_pieces(batch: int, size: int) -> None:
    lhs = small_integers(1, (batch, size, 33, 64), jnp.float32)
    rhs = small_integers(2, (3, 3, 64, 64), jnp.float32)
    options = {"window_strides": ONE, "padding": [(1, 2), (0, 1)], "dimension_numbers": NHWC}
    params = equation_of(
        lambda a, b: lax.conv_general_dilated(a, b, **options), lhs, rhs, primitive="conv_general_dilated"
    )
    for form in ("winograd-2", "winograd-4"):
        assert assert_forms_agree(TABLE, CONVOLUTION, (lhs, rhs), params, only=form)
