"""Quantizer arithmetic against exact references in Python's integers and fractions."""

import dataclasses
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xlapass.passes.quantize.arithmetic import (
    SMALLEST_SCALE,
    Parameters,
    asymmetric,
    dequantize_array,
    limits,
    quantize_array,
    rounded,
    symmetric,
)
from xlapass.passes.quantize.composites import QUANTIZE, dequantize, quantize

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
DTYPES = st.sampled_from(["int8", "uint8", "int4", "uint4"])


def nearest(number: Fraction, rounding: str = "even") -> int:
    """The nearest integer, exactly."""
    below = math.floor(number)
    gap = number - below
    if gap != Fraction(1, 2):
        return below + (gap > Fraction(1, 2))
    if rounding == "even":
        return below + below % 2
    return below + (number > 0)


def clip(number, low, high):
    return min(max(number, low), high)


def reference(x, scale, zero_point, dtype, narrow=False):
    """What the composite computes: one float32 product with the float32 reciprocal, and then integers."""
    product = np.float32(x) * np.float32(1 / np.float64(scale))
    low, high = limits(dtype, narrow)
    if np.isinf(product):
        return high if product > 0 else low
    return clip(nearest(Fraction(float(product))) + int(zero_point), low, high)


@st.composite
def ranges(draw):
    ends = sorted([draw(FLOATS), draw(FLOATS)])
    return ends[0], ends[1]


@given(ranges(), DTYPES)
def test_zero_is_exact_and_the_range_is_covered(ends, dtype):
    low, high = ends
    p = asymmetric(low, high, dtype)
    smallest, largest = p.limits
    scale, zero = float(p.scale), int(p.zero_point)
    assert smallest <= zero <= largest
    assert scale >= SMALLEST_SCALE
    values = dequantize_array(np.array([zero, smallest, largest], np.int32), p)
    assert values[0] == 0
    if max(high, 0) > min(low, 0):
        assert values[1] <= min(low, 0) + scale * 0.51
        assert values[2] >= max(high, 0) - scale * 0.51


compiled = jax.jit(QUANTIZE, static_argnames=("dtype", "axis", "group", "narrow"))


@given(st.lists(FLOATS, max_size=40), ranges(), DTYPES)
def test_quantize_equals_the_reference(numbers, ends, dtype):
    with np.errstate(over="ignore"):
        p = asymmetric(*ends, dtype)
        x = np.array(numbers, np.float32)
        x = np.where(np.abs(x) < SMALLEST_SCALE, 0, x)  # XLA flushes subnormal numbers
        padded = np.resize(np.append(x, np.float32(0)), 41)  # one shape, so that it compiles once
        found = compiled(padded, p.scale, p.zero_point, **p.attributes())[: x.size].astype(int).tolist()
        assert found == [reference(v, p.scale, p.zero_point, dtype) for v in x.tolist()]


@given(st.lists(FLOATS, max_size=40), st.floats(2.0**-60, 2.0**60, width=32), st.sampled_from(["even", "away"]))
def test_weights_are_rounded_exactly(numbers, scale, rounding):
    x = np.array(numbers, np.float32)
    p = Parameters(np.float32(scale), np.int32(0), narrow=True)
    want = [clip(nearest(Fraction(v) / Fraction(float(p.scale)), rounding), -127, 127) for v in x.tolist()]
    # The quotient is rounded once, to double precision, before it is rounded to an integer.
    inexact = [Fraction(float(v) / float(p.scale)) != Fraction(v) / Fraction(float(p.scale)) for v in x.tolist()]
    found = quantize_array(x, p, rounding).tolist()
    assert all(a == b or (rough and abs(a - b) == 1) for a, b, rough in zip(found, want, inexact, strict=True))


@given(st.integers(-1000, 1000), st.sampled_from(["even", "away"]))
def test_halves(twice, rounding):
    assert rounded(np.array(twice / 2), rounding) == nearest(Fraction(twice, 2), rounding)


@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255), ("int4", -8, 7)])
def test_saturation_and_zero_points_at_the_ends(dtype, low, high):
    for ends, zero in (((0.0, 10.0), low), ((-10.0, 0.0), high)):
        p = asymmetric(*ends, dtype)
        assert int(p.zero_point) == zero
        x = np.array([-1e30, -np.inf, -1e3, 0.0, 1e3, np.inf, 1e30], np.float32)
        assert np.asarray(quantize(x, p)).astype(int).tolist() == [low, low, low, zero, high, high, high]


@pytest.mark.parametrize("value", [0.0, -0.0, 3.5, -2.25, 1e-45, 1e-38, 3e38])
def test_constant_tensors(value):
    x = np.full((2, 3), value, np.float32)
    for p in (asymmetric(x.min(), x.max()), symmetric(x.min(), x.max()), asymmetric(x.min(), x.max(), "uint8")):
        back = dequantize(quantize(x, p), p)
        np.testing.assert_allclose(back, x, atol=max(float(p.scale) / 2, 1e-38), rtol=1e-6)
        assert np.isfinite(back).all()


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3), (1,), (4, 3), ()])
@pytest.mark.parametrize("dtype", ["int8", "uint4"])
def test_empty_and_small_arrays(shape, dtype):
    x = np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape)
    p = asymmetric(-1, 1, dtype)
    q = quantize(x, p)
    assert q.shape == x.shape and q.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(dequantize(q, p), x, atol=float(p.scale) * 0.501)
    ties = np.abs(np.asarray(q).astype(int) - quantize_array(x, p).astype(int))
    assert ties.max(initial=0) <= 1


def test_subnormal_scales_are_raised():
    for p in (asymmetric(-1e-44, 1e-44), symmetric(-1e-44, 1e-44)):
        assert float(p.scale) == SMALLEST_SCALE
        assert np.isfinite(dequantize(quantize(np.float32([1e-44, 1.0]), p), p)).all()


@pytest.mark.parametrize(("rows", "columns", "group"), [(1, 1, 1), (9, 2, 4), (8, 3, 4), (5, 1, 5), (3, 2, 4)])
def test_groups(rows, columns, group):
    x = np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32)
    count = -(-rows // group)
    padded = np.zeros((count * group, columns), np.float32)
    padded[:rows] = x
    parts = padded.reshape(count, group, columns)
    p = dataclasses.replace(symmetric(parts.min(1), parts.max(1), "int4"), axis=0, group=group)
    q = quantize_array(x, p)
    np.testing.assert_array_equal(dequantize(jnp.asarray(q), p), dequantize_array(q, p))
    for r in range(rows):
        for c in range(columns):
            scale = p.scale[r // group, c]
            assert int(q[r, c]) == clip(nearest(Fraction(float(x[r, c]) / float(scale))), -7, 7)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_channels(axis):
    x = np.random.default_rng(axis).standard_normal((3, 4, 5)).astype(np.float32)
    others = tuple(k for k in range(3) if k != axis)
    p = symmetric(x.min(others), x.max(others)).moved(axis)
    np.testing.assert_array_equal(quantize(x, p), quantize_array(x, p))
    assert (np.abs(np.asarray(quantize(x, p)).astype(int)).max(others) == 127).all()


@pytest.mark.parametrize("ends", [(math.nan, 1.0), (0.0, math.inf), (2.0, 1.0)])
def test_ranges_that_are_none(ends):
    with pytest.raises(ValueError, match="range"):
        asymmetric(*ends)
    with pytest.raises(ValueError, match="range"):
        symmetric(*ends)
