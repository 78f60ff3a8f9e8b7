"""Every elementwise primitive and every conversion, at every type, at the edges of the types."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

STEP = 19

INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
FLOATS = (np.float32, np.float16, np.float64)
UNARY = (
    *("abs", "neg", "sign", "bitwise_not", "exp", "exp2", "log", "log1p", "expm1", "tanh", "logistic", "sin", "cos"),
    *("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erf", "erfc", "erf_inv", "lgamma"),
    *("digamma", "sqrt", "rsqrt", "cbrt", "floor", "ceil", "round", "is_finite", "square", "population_count", "clz"),
    *("bessel_i0e", "bessel_i1e"),
)
BINARY = (
    *("add", "sub", "mul", "div", "rem", "pow", "max", "min", "atan2", "nextafter", "bitwise_and", "bitwise_or"),
    *("bitwise_xor", "shift_left", "shift_right_logical", "shift_right_arithmetic"),
    *("eq", "ne", "lt", "le", "gt", "ge"),
)

NO_BITS = frozenset({np.dtype(np.float16), np.dtype(np.float64)})
"""Carried in float32, whose neighbours are others."""


def _values(dtype: Any, turn: int = 0) -> np.ndarray:
    if dtype == np.bool_:
        values = np.array([True, False, True, True, False])
    elif np.issubdtype(dtype, np.floating):
        values = np.array([0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3.7, 10.3, 5, -5, np.inf, -np.inf, 0.2, -0.9, 7])
    else:
        info = np.iinfo(dtype)
        ends = (info.max, info.min, info.max - 1, info.min + 1, info.max // 2, info.min // 2)
        values = np.array([0, 1, 2, 3, 5, 7, 100, 17, 31, 32, *ends], object)
    return np.roll(np.resize(values, 24), 5 * turn).astype(dtype)


def _taken(function: Any, *arrays: np.ndarray) -> bool:
    with jax.enable_x64(True):
        try:
            jax.eval_shape(function, *arrays)
        except TypeError:
            return False
    return True


def _cases() -> dict[str, Any]:
    cases = {}
    for dtype in (*FLOATS, *INTEGERS, np.bool_):
        x, y, name = _values(dtype), _values(dtype, 1), np.dtype(dtype).name
        for primitive in UNARY:
            if _taken(getattr(lax, primitive), x):
                cases[f"{primitive}-{name}"] = (getattr(lax, primitive), x)
        for primitive in BINARY:
            if _taken(getattr(lax, primitive), x, y) and not (primitive == "nextafter" and np.dtype(dtype) in NO_BITS):
                cases[f"{primitive}-{name}"] = (getattr(lax, primitive), x, y)
        for target in (*FLOATS, *INTEGERS, np.bool_):
            convert = functools.partial(lax.convert_element_type, new_dtype=target)
            cases[f"{name}-to-{np.dtype(target).name}"] = (convert, x)
    return cases


CASES = _cases()


def test_elementwise(case, agrees):
    fn, *args = case
    with np.errstate(all="ignore"):
        agrees(fn, *args, x64=True)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int8, np.uint32])
def test_clamping_between_bounds_that_cross(dtype, agrees):
    low, x, high = (_values(dtype, turn) for turn in range(3))
    agrees(lax.clamp, low, x, high)
    agrees(lambda x: lax.clamp(dtype(5), x, dtype(3)), x)
    agrees(lambda low, x: jnp.clip(x, low, 7), low[0], x)


def test_rounding_to_bfloat16(agrees):
    x = np.array([1.00390625, -1.01171875, 3e38, 1e-30, 0, np.inf, np.nan], np.float32)
    agrees(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), x)


def test_bits_of_other_widths(agrees):
    words = np.array([0x3C00_BC00, 0x7F01_0102, -5], np.int32)
    agrees(lambda x: lax.bitcast_convert_type(x, jnp.uint8), words)
    agrees(lambda x: lax.bitcast_convert_type(x, jnp.float16).astype(jnp.float32), words[:1])
    agrees(lambda x: lax.bitcast_convert_type(x, jnp.int16), np.array([1.5, -2.25, 6e-8, 65504], np.float16))


def test_special_functions(agrees):
    a, x = np.array([0, 0.3, 1, 2, 5, -1], np.float32), np.array([0, 0.2, 1.5, np.inf, 0.9, 1], np.float32)
    agrees(lambda a, x: (lax.igamma(a, x), lax.igammac(a, x)), a, x)
    agrees(lambda a, x: lax.betainc(a, a + 1, x / 3), a[1:], x[1:])
    agrees(lambda x: (lax.zeta(x + 1.5, x + 0.1), lax.polygamma(jnp.ones(()), x)), x[1:3])
    agrees(jax.grad(lambda a, x: lax.igamma(a, x).sum()), a[1:3], x[1:3])
