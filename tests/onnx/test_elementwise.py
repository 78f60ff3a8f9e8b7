"""Arithmetic, comparisons, logic and elementary functions against JAX, over types and special values."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax import lax
from onnx_examples import FEW

INTEGERS = [np.int8, np.int16, np.int32, np.uint8, np.uint16, np.uint32]
FLOATS = [np.float32, np.float16, ml_dtypes.bfloat16]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-3, 100.0, np.inf, -np.inf, np.nan]
TOLERANCE = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2, "float64": 1e-12}


def floats(draw, shape, dtype, special=True):
    plain = st.floats(-50, 50, width=32, allow_subnormal=False)
    values = plain | st.sampled_from(SPECIAL) if special else plain
    return draw(hnp.arrays(np.float32, shape, elements=values)).astype(dtype)


def integers(draw, shape, dtype):
    info = np.iinfo(dtype)
    edge = st.sampled_from([info.min, info.max, 0, 1])
    return draw(hnp.arrays(dtype, shape, elements=st.integers(int(info.min), int(info.max)) | edge))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "rem", "max", "min"])
@FEW
@given(data=st.data(), dtype=st.sampled_from(INTEGERS), shape=SHAPES)
def test_integer_arithmetic(agrees, name, data, dtype, shape):
    """Wrapping, division by zero and of the smallest number by -1 included."""
    x, y = (integers(data.draw, shape, dtype) for _ in range(2))
    agrees(getattr(lax, name), x, y)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "max", "min", "rem", "pow", "atan2", "nextafter"])
@FEW
@given(data=st.data(), shape=SHAPES)
def test_float_arithmetic(agrees, name, data, shape):
    x, y = (floats(data.draw, shape, np.float32) for _ in range(2))
    if name == "rem":
        y = np.where(np.isfinite(y) & (y != 0), y, 1).astype(np.float32)
        x = np.where(np.isfinite(x), x, 1).astype(np.float32)
    agrees(getattr(lax, name), x, y, rtol=2e-6)


@pytest.mark.parametrize("name", ["add", "mul", "div", "max"])
@FEW
@given(data=st.data(), dtype=st.sampled_from(FLOATS), shape=SHAPES)
def test_narrow_float_arithmetic(agrees, name, data, dtype, shape):
    x, y = (floats(data.draw, shape, dtype, special=False) for _ in range(2))
    y = np.where(y == 0, np.ones((), dtype), y)
    agrees(getattr(lax, name), x, y, rtol=TOLERANCE[np.dtype(dtype).name], atol=1e-2)


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne"])
@FEW
@given(data=st.data(), dtype=st.sampled_from([*INTEGERS, *FLOATS, np.bool_]), shape=SHAPES)
def test_comparisons(agrees, name, data, dtype, shape):
    if dtype is np.bool_:
        x, y = (data.draw(hnp.arrays(bool, shape)) for _ in range(2))
    elif dtype in INTEGERS:
        x, y = (integers(data.draw, shape, dtype) for _ in range(2))
    else:
        x, y = (floats(data.draw, shape, dtype) for _ in range(2))
    agrees(getattr(lax, name), x, y)


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor"])
@FEW
@given(data=st.data(), dtype=st.sampled_from([*INTEGERS, np.bool_]), shape=SHAPES)
def test_bitwise(agrees, name, data, dtype, shape):
    draw = (
        (lambda: data.draw(hnp.arrays(bool, shape))) if dtype is np.bool_ else lambda: integers(data.draw, shape, dtype)
    )
    x, y = draw(), draw()
    agrees(lambda a, b: (getattr(lax, name)(a, b), lax.bitwise_not(a)), x, y)


@pytest.mark.parametrize("name", ["shift_left", "shift_right_logical", "shift_right_arithmetic"])
@FEW
@given(data=st.data(), dtype=st.sampled_from(INTEGERS), shape=SHAPES)
def test_shifts(agrees, name, data, dtype, shape):
    """Distances of the width and beyond included."""
    bits = np.iinfo(dtype).bits
    y = data.draw(hnp.arrays(dtype, shape, elements=st.integers(0, bits + 3)))
    agrees(getattr(lax, name), integers(data.draw, shape, dtype), y)


@FEW
@given(data=st.data(), dtype=st.sampled_from([*INTEGERS, np.int64, np.uint64]))
def test_integers_over_their_whole_range(agrees, data, dtype):
    """The runtime's own kernels compare words of int64, and add and multiply integers in float64."""
    x, y = (integers(data.draw, (3, 5), dtype) for _ in range(2))

    def fn(a, b):
        return (
            lax.rem(a, b), lax.max(a, b), lax.min(a, b), lax.clamp(b, a, b[::-1]), lax.sign(a),
            *(op(a, axis) for op in (jnp.max, jnp.min) for axis in (0, 1, None)),
            *(op(a, axis, dtype=a.dtype) for op in (jnp.sum, jnp.prod) for axis in (0, 1, None)),
            lax.cummax(a, 1), lax.cumsum(a, 0), jnp.argmax(a, 1), jnp.sort(a, 0), a @ b.T,
        )  # fmt: skip

    with jax.enable_x64(np.dtype(dtype).itemsize == 8):
        agrees(fn, x, y)


UNARY = [
    "exp", "log", "sqrt", "rsqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh", "asin", "acos", "atan", "asinh",
    "acosh", "atanh", "logistic", "erf", "erfc", "erf_inv", "floor", "ceil", "exp2", "log1p", "expm1", "cbrt",
    "square", "abs", "sign", "neg", "is_finite", "lgamma", "digamma", "bessel_i0e", "bessel_i1e", "round",
]  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
@FEW
@given(data=st.data())
def test_unary(agrees, name, data):
    x = floats(data.draw, (6,), np.float32, special=name not in ("lgamma", "digamma", "sinh", "cosh"))
    if name in ("sin", "cos", "tan", "lgamma", "digamma"):
        x = np.where(np.isfinite(x), x, 1).astype(np.float32)
    if name in ("digamma", "lgamma"):
        x = np.abs(x) + np.float32(0.1)
    if name == "erf_inv":
        x = np.clip(x, -1, 1)
    rtol = 2e-4 if name in ("lgamma", "digamma", "exp", "exp2", "sinh", "cosh", "tan", "erf_inv", "expm1") else 1e-5
    if name in ("bessel_i0e", "bessel_i1e"):
        x = np.where(np.isfinite(x), x, 1).astype(np.float32)
    agrees(getattr(jnp.linalg, name, None) or getattr(lax, {"neg": "neg"}.get(name, name)), x, rtol=rtol, atol=2e-6)


@pytest.mark.parametrize(
    "name",
    [
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "asinh",
        "atanh",
        "erf",
        "erfc",
        "erf_inv",
        "log1p",
        "expm1",
        "cbrt",
        "lgamma",
        "digamma",
        "bessel_i0e",
        "bessel_i1e",
        "logistic",
    ],
)
def test_unary_in_double(agrees, name):
    """Functions whose kernels are for float32 only keep the accuracy of float64."""
    with jax.enable_x64(True):
        x = np.linspace(-0.97, 0.99, 41)
        agrees(getattr(lax, name), np.abs(x) + 0.1 if name in ("lgamma", "digamma") else x, rtol=2e-12, atol=1e-13)
        if name in ("atan", "erf", "erfc", "asinh", "bessel_i0e", "bessel_i1e", "cbrt", "sinh", "expm1"):
            agrees(getattr(lax, name), x * 12, rtol=1e-11, atol=1e-13)


@FEW
@given(data=st.data(), dtype=st.sampled_from([np.int32, np.uint8, np.int16]))
def test_bit_counts(agrees, data, dtype):
    x = integers(data.draw, (5,), dtype)
    agrees(lambda a: (lax.population_count(a), lax.clz(a)), x)


@FEW
@given(data=st.data(), power=st.integers(-4, 9))
def test_integer_pow(agrees, data, power):
    x = floats(data.draw, (5,), np.float32, special=False)
    agrees(lambda a: lax.integer_pow(a, power), np.where(np.abs(x) < 0.1, np.float32(0.5), x), rtol=1e-5)


@FEW
@given(data=st.data(), shape=SHAPES, count=st.integers(2, 4))
def test_select_n(agrees, data, shape, count):
    which = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(0, count - 1)))
    cases = [floats(data.draw, shape, np.float32) for _ in range(count)]
    agrees(lambda w, *c: lax.select_n(w, *c), which, *cases)
    agrees(lambda w, a, b: lax.select_n(w > 0, a, b), which, cases[0], cases[1])
    agrees(lambda w, a, b: lax.select_n(w > 0, a > 0, b > 0), which, cases[0], cases[1])


@FEW
@given(data=st.data(), shape=SHAPES, dtype=st.sampled_from([np.float32, np.int32, np.uint32, np.int8]))
def test_clamp(agrees, data, shape, dtype):
    draw = floats if dtype is np.float32 else integers
    low, x, high = (draw(data.draw, shape, dtype) for _ in range(3))
    agrees(lax.clamp, low, x, high)
    agrees(lambda v: lax.clamp(dtype(2), v, dtype(7)), x)


CASTS = [
    np.bool_,
    np.int8,
    np.uint8,
    np.int16,
    np.uint16,
    np.int32,
    np.uint32,
    np.float16,
    ml_dtypes.bfloat16,
    np.float32,
]


@FEW
@given(data=st.data(), old=st.sampled_from(CASTS), new=st.sampled_from([*CASTS, np.complex64]))
def test_convert(agrees, data, old, new):
    """Integers wrap, floats saturate; NaN has no integer."""
    if old is np.bool_:
        x = data.draw(hnp.arrays(bool, (5,)))
    elif np.dtype(old).kind in "iu":
        x = integers(data.draw, (5,), old)
    else:
        x = floats(data.draw, (5,), np.float32) * np.float32(data.draw(st.sampled_from([1.0, 1e3, 1e8])))
        x = np.asarray(jnp.where(jnp.isnan(x), 1, x).astype(old))
    agrees(lambda a: lax.convert_element_type(a, new), x, rtol=0, atol=0)


@FEW
@given(data=st.data(), exponent=st.integers(2, 8), mantissa=st.integers(1, 23))
def test_reduce_precision(agrees, data, exponent, mantissa):
    x = floats(data.draw, (6,), np.float32)
    agrees(lambda a: lax.reduce_precision(a, exponent, mantissa), x, rtol=0, atol=0)


@pytest.mark.parametrize("new", [np.int32, np.uint32, np.uint8, np.uint16, np.float16])
def test_bitcast(agrees, new):
    x = np.array([[1.5, -0.0], [np.inf, 3e-20]], np.float32)
    agrees(lambda a: lax.bitcast_convert_type(a, new), x, rtol=0, atol=0)
    agrees(lambda a: lax.bitcast_convert_type(lax.bitcast_convert_type(a, new), np.float32), x, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["lt_to", "le_to", "eq_to"])
def test_total_order(agrees, name):
    from jax.extend.core import primitives

    values = np.array([-np.inf, -1, -0.0, 0.0, 2, np.inf, np.nan], np.float32)
    x, y = (np.ascontiguousarray(v) for v in np.meshgrid(values, values))
    agrees(lambda a, b: getattr(primitives, f"{name}_p").bind(a, b), x, y)


def test_incomplete_gamma_and_beta(agrees):
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(0.1, 20, 30).astype(np.float32) for _ in range(2))
    x = rng.uniform(0.01, 0.99, 30).astype(np.float32)
    edges = (np.array([0, 1, 2, np.nan, -1], np.float32), np.array([1, 0, np.inf, 1, 1], np.float32))
    agrees(lambda p, q: (lax.igamma(p, q), lax.igammac(p, q)), a, b, rtol=2e-3, atol=1e-5)
    agrees(lambda p, q: (lax.igamma(p, q), lax.igammac(p, q)), *edges)
    agrees(lax.betainc, a, b, x, rtol=2e-3, atol=1e-5)


def test_zeta_and_polygamma(agrees):
    rng = np.random.default_rng(0)
    q, s = rng.uniform(0.2, 20, 30).astype(np.float32), rng.uniform(1.2, 8, 30).astype(np.float32)
    agrees(lax.zeta, s, q, rtol=1e-3)
    agrees(lax.polygamma, np.floor(s / 2), q, rtol=1e-3)


def test_broadcasts_cost_nothing(operators):
    """A bias along the last axis, and a scalar, need no Expand."""
    x, b = np.ones((2, 3, 4), np.float32), np.ones(4, np.float32)
    assert operators(lambda x, b: (x + b) * 2.0, x, b) == ["Add", "Mul"]


@pytest.mark.skipif(not hasattr(lax, "polynomial"), reason="this JAX has no such primitives; 0.12 has")
def test_primitives_of_later_releases(agrees):
    x = np.asarray([0.25, 0.999, 1.0, 3.5], np.float32)
    agrees(lax.log2, x, rtol=1e-6, atol=1e-6)
    agrees(lax.one_minus_square, x, rtol=1e-6, atol=1e-6)
    agrees(lambda x: lax.polynomial(x, (1.0, x[:1], -0.5, 2.0)), x, rtol=1e-6, atol=1e-6)
    agrees(lambda x: lax.polynomial(x, tuple(map(float, range(12)))), x, rtol=1e-5, atol=1e-6)
