"""Transposed convolutions by phases: the same numbers, whatever strides, sizes and paddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from support import operations, run
from xlapass.backends.tflite.backend import TfliteBackend
from xlapass.backends.tflite.report import operation_counts
from xlapass.core.manager import PassManager
from xlapass.core.tracing import trace

RNG = np.random.default_rng(0)
NUMBERS = ("NHWC", "HWIO", "NHWC")
IMAGE = RNG.standard_normal((2, 8, 9, 3)).astype(np.float32)
BIAS = RNG.standard_normal(5).astype(np.float32)


def kernel(height, width, channels=3, features=5):
    return RNG.standard_normal((height, width, channels, features)).astype(np.float32)


def transposed(weights, stride=2, padding="SAME", **options):
    return lambda x: lax.conv_transpose(x, weights, (stride, stride), padding, dimension_numbers=NUMBERS, **options)


def spread(weights, **options):
    """Any convolution of an image with zeros between its pixels."""
    options = {"window_strides": (1, 1), "padding": ((2, 2), (2, 2)), "lhs_dilation": (2, 2), **options}
    return lambda x: lax.conv_general_dilated(x, weights, dimension_numbers=NUMBERS, **options)


def test_bias_and_relu_come_along(compiled):
    conv = transposed(kernel(4, 4))
    counts = operation_counts(compiled(lambda x: jax.nn.relu(conv(x) + BIAS), IMAGE).model)
    assert dict(counts) == {"PAD": 1, "CONV_2D": 1, "SLICE": 4, "CONCATENATION": 1, "DEPTH_TO_SPACE": 1}
    found = operations(run("split-transposed", lambda x: lax.max(conv(x) + BIAS, 0.0), IMAGE))
    assert found.index("max") < found.index("slice") < found.index("composite")


def test_windows_that_do_not_overlap_need_no_slices(compiled):
    counts = operation_counts(compiled(lambda x: transposed(kernel(2, 2))(x) + BIAS, IMAGE).model)
    assert dict(counts) == {"CONV_2D": 1, "DEPTH_TO_SPACE": 1}


def test_what_else_reads_the_result_gets_it(compiled):
    conv = transposed(kernel(2, 2))

    def fn(x):
        y = conv(x)
        z = y + BIAS
        return y, jnp.maximum(z, 0), z, jnp.maximum(conv(x + 1), 0.5), conv(x - 1) * 2 + y

    run("split-transposed", fn, IMAGE)
    counts = operation_counts(compiled(fn, IMAGE).model)
    assert counts["DEPTH_TO_SPACE"] == 3 and counts["TRANSPOSE_CONV"] == 0


def test_with_any_batch(compiled):
    conv = transposed(kernel(4, 4))
    program = trace(lambda x: jax.nn.relu(conv(x) + BIAS), IMAGE, dynamic="batch, ...")
    artifact = compiled(program)
    assert operation_counts(artifact.model)["DEPTH_TO_SPACE"] == 1
    for size in (1, 3):
        x = RNG.standard_normal((size, 8, 9, 3)).astype(np.float32)
        np.testing.assert_allclose(artifact.executable()(x), jax.nn.relu(conv(x) + BIAS), rtol=1e-4, atol=1e-4)


def test_on_tensorflow(tensorflow):
    conv = transposed(kernel(4, 4))
    artifact = xlapass.compile(
        lambda x: jax.nn.relu(conv(x) + BIAS), IMAGE, pipeline="tflite", backend=TfliteBackend(**tensorflow)
    )
    assert operation_counts(artifact.model)["DEPTH_TO_SPACE"] == 1


@pytest.mark.parametrize(
    "fn",
    [
        transposed(kernel(3, 3)),
        transposed(kernel(5, 5), 5),
        transposed(kernel(2, 2), rhs_dilation=(2, 2)),
        spread(kernel(2, 2), window_strides=(2, 2)),
        spread(kernel(2, 2), lhs_dilation=(2, 1), padding=((1, 1), (1, 0))),
        spread(kernel(2, 2, 1, 3), feature_group_count=3),
        lambda x: transposed(kernel(4, 4))(x[:, :2, :2]),
        lambda x: transposed(x[:, :4, :4, :].transpose(1, 2, 3, 0))(x),
        lambda x: transposed(kernel(2, 2).astype(np.float16))(x.astype(np.float16)),
    ],
    ids=["remainder", "stride", "dilated", "strided", "uneven", "groups", "tiny", "computed", "half"],
)
def test_left_alone(fn):
    program = trace(fn, IMAGE)
    assert PassManager("split-transposed").run(program) is program


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_padding(data):
    stride = data.draw(st.integers(2, 4))
    sides = [stride * data.draw(st.integers(1, 3)) for _ in range(2)]
    padding = []
    for side, pixels in zip(sides, IMAGE.shape[1:3], strict=True):
        low = data.draw(st.integers(-1, side))
        spare = ((pixels - 1) * stride + 1 + low - side + 1) % stride
        padding.append((low, stride * data.draw(st.integers(0, 1)) + (-spare) % stride))
    fn = spread(kernel(*sides), lhs_dilation=(stride, stride), padding=tuple(padding))
    bias = data.draw(st.booleans())
    found = operations(run("split-transposed", lambda x: fn(x) + BIAS if bias else fn(x), IMAGE))
    assert "composite" in found
