"""Passes: what they change, and what they leave alone."""

import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from xlapass.testing import assert_equal_results, assert_idempotent, assert_unchanged
from xlapass_example.passes import CountWeights, RoundWeights, rounded

W = np.array([1.0, 1.001, -np.pi, np.inf, np.nan, 3e38, 1e-40], np.float32)
X = jnp.ones(7)


def model(x):
    return x * W


def test_rounding_keeps_the_leading_bits():
    kept = rounded(W, 7)
    assert kept.view(np.uint32)[0] == W.view(np.uint32)[0]
    assert not np.any(kept[:3].view(np.uint32) & 0xFFFF)
    np.testing.assert_allclose(kept[:4], W[:4], rtol=2.0**-8)
    assert np.isnan(kept[4])


def test_all_bits_is_no_change():
    assert_unchanged(RoundWeights(mantissa_bits=23), model, X)


def test_weights_are_rounded_once():
    program = assert_idempotent(RoundWeights(), model, X)
    assert rounded(np.asarray(program.consts[0]), 7).tobytes() == np.asarray(program.consts[0]).tobytes()


def test_results_stay_near():
    weights = np.linspace(-1, 1, 7, dtype=np.float32)
    assert_equal_results("round-weights{mantissa-bits=5}", lambda x: x * weights, X)


def test_integers_stay():
    assert_unchanged(RoundWeights(mantissa_bits=1), lambda x: x + np.arange(7), X)


@pytest.mark.parametrize("text", ["round-weights{mantissa-bits=24}", "round-weights{mantisa-bits=3}"])
def test_wrong_options(text):
    with pytest.raises(xlapass.UsageError, match="mantissa-bits"):
        xlapass.PassManager(text)


def test_the_count_is_in_the_report():
    report = xlapass.Report()
    program = xlapass.trace(model, X)
    xlapass.PassManager([CountWeights()], instruments=[report]).run(program)
    assert report.records[0].details == {"weights": {"float32": 7}}
    assert not report.records[0].changed
