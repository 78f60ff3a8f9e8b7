"""Large depthwise windows in bands of rows: the same sums, whatever strides, dilations, paddings and layouts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from support import operations, run
from xlapass.backends.tflite.report import operation_counts
from xlapass.core.manager import PassManager
from xlapass.core.tracing import trace

RNG = np.random.default_rng(0)
LAYOUTS = [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")]


def convolution(window, channels=4, multiplier=1, layout=0, groups=None, **options):
    """A function of the image, and the image's shape for a side of 16."""
    shape = (*window, 1, channels * multiplier) if layout == 0 else (channels * multiplier, 1, *window)
    if groups == 1:
        shape = (*window, channels, channels)
    kernel = RNG.standard_normal(shape).astype(np.float32)
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    settings = {"dimension_numbers": LAYOUTS[layout], "feature_group_count": groups or channels, **options}
    return lambda x: lax.conv_general_dilated(x, kernel, **settings)


def image(channels=4, layout=0, side=16):
    shape = (2, side, side + 1, channels) if layout == 0 else (2, channels, side, side + 1)
    return RNG.standard_normal(shape).astype(np.float32)


def test_seven_by_seven_is_three_bands(compiled):
    fn, x = convolution((7, 7)), image()
    counts = operation_counts(compiled(fn, x).model)
    assert counts["DEPTHWISE_CONV_2D"] == 3
    assert operations(run("split-depthwise", fn, x)).count("conv_general_dilated") == 3


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (convolution((5, 5)), image()),
        (convolution((7, 7), groups=1), image()),
        (convolution((7, 7), channels=1), image(1)),
        (convolution((27, 27)), image()),
        (convolution((7, 7), lhs_dilation=(2, 2), padding=((3, 3), (3, 3))), image()),
    ],
    ids=["small", "dense", "one channel", "huge", "transposed"],
)
def test_left_alone(fn, x):
    program = trace(fn, x)
    assert PassManager("split-depthwise").run(program) is program


@settings(max_examples=8)
@given(
    st.tuples(st.integers(3, 11), st.integers(6, 11)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from(["SAME", "VALID", ((2, 0), (1, 5)), ((-1, 3), (4, -2))]),
    st.integers(1, 2),
    st.integers(0, 1),
)
def test_any_parameters(window, strides, dilation, padding, multiplier, layout):
    fn = convolution(window, 3, multiplier, layout, window_strides=strides, rhs_dilation=dilation, padding=padding)
    run("split-depthwise", fn, image(3, layout, 24))
