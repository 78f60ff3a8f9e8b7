"""What runtimes and XLA's integers compute, number by number, against exact references."""

from fractions import Fraction

import jax
import numpy as np
import pytest
import xlapass
from hypothesis import given
from hypothesis import strategies as st
from xlapass.passes.quantize.arithmetic import Parameters
from xlapass.passes.quantize.composites import QUANTIZE, dequantize, quantize
from xlapass.passes.quantize.integer import _product
from xlapass.passes.quantize.statistics import Statistics

STEP = 0.25
"""A power of two: numbers divided by it are exact, and halves are halves."""

SIZE = 32
TFLITE = "inline,fake-quantize,lower-composites{keep=quant.*},legalize-tflite"


def integer(quotient, zero_point, low=-128, high=127):
    """An exact quotient as an integer; Python rounds halves of fractions to even."""
    return min(max(round(Fraction(quotient)) + zero_point, low), high)


NUMBERS = st.one_of(
    st.integers(-2200, 2200).map(lambda eighths: eighths / 8),  # halves of a step among them
    st.floats(-70, 70, width=32),
    st.sampled_from([np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0]),
)


def rounded_on(runtime, zero_point):
    """A file that rounds ``SIZE`` numbers to 8 bits and back, loaded."""
    p = Parameters(np.float32(STEP), np.int32(zero_point), "uint8" if runtime == "onnx" else "int8")
    pipeline = "onnx" if runtime == "onnx" else TFLITE
    x = np.linspace(-9, 9, SIZE, dtype=np.float32)
    artifact = xlapass.compile(lambda x: dequantize(quantize(x, p), p), x, pipeline=pipeline, backend=runtime)
    return p, artifact.executable()


@pytest.fixture(scope="module", params=[("onnx", 0), ("onnx", 255), ("onnx", 7), ("tflite", -128), ("tflite", 9)])
def runtime(request):
    return rounded_on(*request.param)


@given(st.lists(NUMBERS, min_size=1, max_size=SIZE))
def test_runtimes_round_to_even_and_saturate(runtime, numbers):
    """Halves go to the even number, what is beyond the ends to the ends, whatever the zero point."""
    p, run = runtime
    x = np.resize(np.array(numbers, np.float32), SIZE)
    low, high = p.limits
    zero = int(p.zero_point)
    want = []
    for number in x.tolist():
        if np.isinf(number):
            found = high if number > 0 else low
        else:
            found = integer(Fraction(number) / Fraction(STEP), zero, low, high)
        want.append((found - zero) * STEP)
    assert np.asarray(run(x)).tolist() == want


multiplied = jax.jit(_product)
requantized = jax.jit(QUANTIZE, static_argnames=("dtype", "axis", "group", "narrow"))
BYTES = st.integers(-128, 127)


@given(st.lists(BYTES, min_size=6, max_size=6), st.lists(BYTES, min_size=9, max_size=9), st.data())
def test_products_of_integers_and_requantization_are_exact(rows, matrix, data):
    """int8 times int8 adds up in int32 exactly; then come one float32 product, one more, and rounding to even."""
    zero, result_zero = data.draw(BYTES), data.draw(BYTES)
    scales = [data.draw(st.sampled_from([2.0**-9, 0.007, 0.5, 1.0])) for _ in range(4)]
    rows, matrix = np.reshape(rows, (2, 3)).astype(np.int8), np.reshape(matrix, (3, 3)).astype(np.int8)
    scale, step = np.array(scales[:3], np.float32), np.float32(scales[3])
    known = (matrix.astype(np.int64).sum(0) * zero).astype(np.int32)
    floats = multiplied(rows, matrix, known, scale)
    p = Parameters(step, np.int32(result_zero))
    found = np.asarray(requantized(floats, p.scale, p.zero_point, **p.attributes()))
    for r in range(2):
        for c in range(3):
            exact = sum((int(rows[r, k]) - zero) * int(matrix[k, c]) for k in range(3))
            product = np.float32(exact) * scale[c]
            assert float(floats[r, c]) == float(product)
            quotient = np.float32(product) * (np.float32(1) / step)
            assert int(found[r, c]) == integer(float(quotient), result_zero)


@given(st.lists(st.floats(width=32), max_size=20), st.integers(0, 3))
def test_nothing_but_finite_numbers_is_taken_into_account(numbers, batches):
    seen, array = Statistics(), np.array(numbers, np.float32)
    for _ in range(batches):
        seen.update(np.ones(3, np.float32))
    before = seen.data()
    if np.isfinite(array).all():
        seen.update(array)
        assert seen.count == 3 * batches + array.size
        return
    with pytest.raises(ValueError, match="NaN" if np.isnan(array).any() else "infinite"):
        seen.update(array)
    assert seen.data() == before
