"""Adaptive rounding: integers for the least error of each product's result on typical inputs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from hypothesis import given
from hypothesis import strategies as st
from xlapass.core.errors import UsageError
from xlapass.core.graph import Graph
from xlapass.core.instruments.report import Report
from xlapass.core.manager import PassManager
from xlapass.passes.quantize.adaptive import descend
from xlapass.passes.quantize.operations import find_operations
from xlapass.passes.quantize.product_forms import form_of, summed_rows
from xlapass.passes.quantize.tables import ONNX, SIMULATED

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def conv(x, w, **options):
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC"), **options}
    return jax.lax.conv_general_dilated(x, w, **options)


W, D, X = drawn(3, 3, 4, 6), drawn(4, 5), drawn(2, 8, 8, 4)
SUMMED, HEADS, FIRST = drawn(4, 3, 5), drawn(4, 2, 3), drawn(5, 4, 3, 2)
PRODUCTS = {
    "dense": (lambda x: x @ D, drawn(7, 4)),
    "weights first": (lambda x: D.T @ x, drawn(4, 6)),
    "two summed axes": (lambda x: jnp.einsum("bij,jik->bk", x, SUMMED), drawn(2, 3, 4)),
    "heads": (lambda x: jnp.einsum("bi,ihd->bhd", x, HEADS), drawn(5, 4)),
    "convolution": (lambda x: conv(x, W), X),
    "strided": (lambda x: conv(x, W, window_strides=(2, 1), padding=((1, 0), (0, 2))), X),
    "negative padding": (lambda x: conv(x, W, padding=((-1, 0), (0, -2))), X),
    "grouped": (lambda x: conv(x, W[:, :, :2], feature_group_count=2), X),
    "depthwise": (lambda x: conv(x, W[:, :, :1, :4], feature_group_count=4), X),
    "dilated": (lambda x: conv(x, W, rhs_dilation=(2, 1)), X),
    "transposed": (lambda x: conv(x, W, lhs_dilation=(2, 3), padding=((1, 1), (2, 0))), X),
    "channels first": (
        lambda x: conv(x, FIRST, dimension_numbers=("NCHW", "OIHW", "NCHW")),
        drawn(2, 4, 6, 6),
    ),
}


@pytest.mark.parametrize("table", [SIMULATED, ONNX], ids=lambda table: table.name)
@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_rows_times_matrices_are_the_product(name, table):
    fn, x = PRODUCTS[name]
    (operation,) = find_operations(Graph(xlapass.trace(fn, x).jaxpr))
    form = form_of(operation, table)
    matrices = form.matrices(form.weights)
    np.testing.assert_array_equal(form.from_matrices(matrices), form.weights)
    rows = summed_rows(operation, x, 10**6, np.random.default_rng(0))
    found, want = rows @ matrices, np.asarray(fn(x))
    np.testing.assert_allclose(np.sort(found.reshape(-1)), np.sort(want.reshape(-1)), atol=1e-4)
    assert summed_rows(operation, x, 3, np.random.default_rng(0)).shape == (
        len(rows),
        min(3, rows.shape[1]),
        rows.shape[2],
    )


@given(st.integers(1, 80), st.integers(1, 4), st.integers(1, 40), st.integers(0, 100))
def test_the_error_never_grows(terms, outputs, places, seed):
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((places, 2)) @ rng.standard_normal((2, terms)) + 0.5).astype(np.float32)
    weights = rng.standard_normal((terms, outputs)).astype(np.float32)
    scale = np.full(weights.shape, 0.3, np.float32)
    nearest = np.clip(np.rint(weights / scale), -7, 7)
    found, (before, after) = descend(weights, nearest, scale, rows.T @ rows, (-7, 7))
    assert after <= before
    assert np.abs(found).max() <= 7 and (found == np.rint(found)).all()

    def damped(integers):
        errors = (integers * scale - weights).astype(np.float64)
        return ((rows @ errors) ** 2).sum() + 0.01 * np.mean((rows.astype(np.float64) ** 2).sum(0)) * (errors**2).sum()

    assert damped(found) <= damped(nearest) * (1 + 1e-4)


def test_no_single_weight_could_do_better():
    """The result is a minimum along every weight; exhaustive search finds the same or nearly so on small ones."""
    gaps = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = (rng.standard_normal((30, 3)) @ rng.standard_normal((3, 6))).astype(np.float32)
        weights = rng.uniform(-3, 3, (6, 1)).astype(np.float32)
        scale = np.ones_like(weights)
        moments = rows.T @ rows
        found, (before, after) = descend(weights, np.rint(weights), scale, moments, (-7, 7))

        def cost(integers, weights=weights, moments=moments):
            errors = integers - weights
            damping = 0.01 * np.mean(np.diag(moments))
            return float((errors.T @ moments @ errors).item() + damping * (errors**2).sum())

        assert after == pytest.approx(cost(found), rel=1e-3, abs=1e-3)
        for k, step in itertools.product(range(6), (-1, 1)):
            moved = found.copy()
            moved[k] += step
            assert cost(moved) >= after - 1e-3
        sides = itertools.product(*[(np.floor(w), np.ceil(w)) for w in weights[:, 0]])
        best = min(cost(np.array(side, np.float32)[:, None]) for side in sides)
        gaps.append((after - best) / max(before - best, 1e-6))
    assert np.mean(gaps) < 0.5  # more than half of what there is to gain


MATRIX = drawn(128, 32)
BASIS = drawn(8, 128)


def correlated(count):
    return (drawn(count, 8) @ BASIS + 0.3 * drawn(count, 128) + 1).astype(np.float32)


def signal_to_noise(options, data, fn=lambda x: jax.nn.relu(x @ MATRIX), x=None, report=None):
    x = correlated(200) if x is None else x
    program = PassManager("inline,simplify,fold-constants").run(xlapass.trace(fn, x)).replace(calibration=data)
    instruments = [] if report is None else [report]
    have = np.asarray(PassManager(f"quantize{{{options}}}", instruments=instruments).run(program)(x), np.float64)
    want = np.asarray(fn(x), np.float64)
    return 10 * np.log10((want**2).sum() / max(((want - have) ** 2).sum(), 1e-30))


@pytest.mark.parametrize("options", ["bits=4", "bits=8", "bits=4,group=128,weights=mse"])
def test_it_helps_on_inputs_that_calibration_has_not_seen(options):
    data = [(correlated(200),) for _ in range(4)]
    found = {r: signal_to_noise(f"scheme=weight-only,{options},rounding={r}", data) for r in ("nearest", "adaptive")}
    assert found["adaptive"] > found["nearest"] + 8


def test_it_helps_convolutions():
    kernel, x = drawn(3, 3, 8, 16), np.repeat(np.repeat(drawn(4, 4, 4, 8), 3, 1), 3, 2)  # smooth, as images are
    data = [(np.repeat(np.repeat(drawn(4, 4, 4, 8), 3, 1), 3, 2),) for _ in range(4)]
    found = {
        r: signal_to_noise(f"scheme=weight-only,rounding={r}", data, lambda x: conv(x, kernel), x)
        for r in ("nearest", "adaptive")
    }
    assert found["adaptive"] > found["nearest"] + 2


def test_the_report_shows_the_gain_and_the_budget_is_kept():
    data, report = [(correlated(200),)], Report()
    signal_to_noise("target=simulated,rounding=adaptive", data, report=report)
    ((_, row),) = [t.items() for t in report.records[-1].details["tables"]["adaptive rounding"]]
    assert float(row[1]) < 0.5
    report = Report()
    options = "rounding=adaptive,rounding-seconds=1e-9"
    fn = lambda x: (x @ MATRIX) @ MATRIX.T  # noqa: E731
    signal_to_noise(f"target=simulated,{options}", data, fn, report=report)
    first, second = report.records[-1].details["tables"]["adaptive rounding"]
    assert "not tried" in second.values() and "not tried" not in first.values()


def test_generators_are_gone_through_once():
    batches = [(correlated(200),) for _ in range(3)]
    for more in ("", ",bias-correction=true", ",accuracy-target=sqnr>10"):
        options = f"target=simulated,rounding=adaptive,rounding-batches=2{more}"
        program = xlapass.trace(lambda x: x @ MATRIX, batches[0][0])
        results = [
            PassManager(f"quantize{{{options}}}").run(program.replace(calibration=data))
            for data in (iter(batches), batches, lambda: iter(batches))
        ]
        for result in results[1:]:
            np.testing.assert_array_equal(result(batches[0][0]), results[0](batches[0][0]))


def test_a_calibration_file_alone_does_not_suffice(tmp_path):
    with pytest.raises(UsageError, match="a calibration file has none"):
        signal_to_noise("target=simulated,rounding=adaptive", str(tmp_path / "ranges.json"))
    with pytest.raises(UsageError, match="there are none"):
        signal_to_noise("scheme=weight-only,rounding=adaptive", None)
    with pytest.raises(UsageError, match="are empty"):
        signal_to_noise("target=simulated,rounding=adaptive", [])


@pytest.mark.parametrize(
    "options", ["rounding-seconds=-1", "rounding-seconds=3", "rounding=adaptive,rounding-batches=0"]
)
def test_options_that_make_no_sense(options):
    with pytest.raises(UsageError):
        PassManager(f"quantize{{{options}}}")


def test_what_is_quantized_needs_no_more_data():
    x = correlated(50)
    text = "quantize{target=simulated,rounding=adaptive}"
    program = xlapass.trace(lambda x: x @ MATRIX, x).replace(calibration=iter([(x,), (x,)]))
    once = PassManager(text).run(program)
    assert once is not program and PassManager(text).run(once) is once
