"""`--accuracy-target`: what int8 harms most stays in float."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from hypothesis import given
from hypothesis import strategies as st
from xlapass.core.errors import UsageError
from xlapass.core.instruments.report import Report
from xlapass.core.manager import PassManager
from xlapass.passes.quantize.accuracy import Target, meet

RNG = np.random.default_rng(0)
GOOD, BAD = (RNG.standard_normal((16, 16)).astype(np.float32) / 4 for _ in range(2))
BAD[0] *= 3000  # of each column, one weight takes all of the range


def model(x):
    with jax.named_scope("bad"):
        y = jnp.tanh(x * (jnp.arange(16) > 0)) @ BAD
    with jax.named_scope("good"):
        return jnp.tanh(y) @ GOOD


X = RNG.standard_normal((20, 16)).astype(np.float32)


def run(options, **more):
    report = Report()
    program = xlapass.trace(model, X).replace(calibration=[(X,), (X[::-1].copy(),)])
    manager = PassManager(f"inline,simplify,fold-constants,quantize{{target=simulated{options}}}", instruments=[report])
    return manager.run(program), report


def quality(program):
    exact = np.asarray(model(X))
    return 10 * np.log10((exact**2).sum() / ((np.asarray(program(X)) - exact) ** 2).sum())


def test_the_worst_product_stays_in_float():
    assert quality(run("")[0]) < 25
    program, report = run(",accuracy-target=sqnr>25")
    assert quality(program) >= 25
    operations = report.records[-1].details["operations"]
    assert operations["good/dot"] == "int8 static" and operations["bad/dot"].startswith("float")
    shown = str(report)
    assert "trade-off for sqnr>25" in shown and "sensitivity" in shown


def test_what_is_good_enough_is_left_alone():
    _, report = run(",accuracy-target=sqnr>-100")
    assert all(text == "int8 static" for text in report.records[-1].details["operations"].values())
    assert len(report.records[-1].details["tables"]["trade-off for sqnr>-100"]) == 1


def test_picture(tmp_path):
    run(f',accuracy-target=sqnr>25,plot="{tmp_path / "tradeoff.png"}"')
    assert (tmp_path / "tradeoff.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "my_metric.py").write_text("def least(exact, found):\n    return -abs(exact[0] - found[0]).max()\n")
    monkeypatch.syspath_prepend(tmp_path)
    program, _ = run(",accuracy-target=my_metric:least>-0.2")
    assert np.abs(np.asarray(program(X)) - model(X)).max() < 0.2


@pytest.mark.parametrize("text", ["cosine", "cosine>high", "nothing>1", "no.module:f>1", "cosine<1"])
def test_targets_that_cannot_be_read(text):
    with pytest.raises(UsageError):
        Target.parse(text)


def test_targets_that_cannot_be_met():
    with pytest.raises(UsageError, match="not met even"):
        run(",accuracy-target=cosine>2")


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 20))
def test_fewest_products_in_float(harms, allowed):
    """Where harms add up and products are alike, bisection finds the fewest."""
    names = [str(k) for k in range(len(harms))]

    def evaluate(floats):
        return -sum(harm for name, harm in zip(names, harms, strict=True) if name not in floats)

    found = meet(Target(evaluate, -allowed, ""), dict.fromkeys(names, 1.0), evaluate)
    least_harmful = sorted(harms)
    fewest = next(k for k in range(len(harms) + 1) if sum(least_harmful[: len(harms) - k]) <= allowed)
    assert len(found.keep) == fewest and evaluate(found.keep) >= -allowed
