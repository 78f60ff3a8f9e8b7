"""Observers, calibration files and the forms in which calibration data may come."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from hypothesis import given
from hypothesis import strategies as st
from xlapass.core.errors import UsageError
from xlapass.core.graph import Graph
from xlapass.core.manager import PassManager
from xlapass.passes.quantize.calibration import Calibration
from xlapass.passes.quantize.composites import QUANTIZE, is_composite
from xlapass.passes.quantize.data import flat_batches
from xlapass.passes.quantize.observers import OBSERVERS, range_of
from xlapass.passes.quantize.placement import place
from xlapass.passes.quantize.statistics import BINS, Statistics
from xlapass.passes.quantize.tables import ONNX

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((3, 3, 2, 4)).astype(np.float32)
DENSE = RNG.standard_normal((4, 3)).astype(np.float32)


def model(x):
    numbers = ("NHWC", "HWIO", "NHWC")
    with jax.named_scope("stem"):
        y = jax.nn.relu(jax.lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=numbers))
    return y.mean((1, 2)) @ DENSE


X = RNG.standard_normal((2, 6, 6, 2)).astype(np.float32)
BATCHES = [(RNG.standard_normal(X.shape).astype(np.float32),) for _ in range(5)]


def quantized(data, options="", **more):
    program = xlapass.trace(model, X, **more).replace(calibration=data)
    return PassManager(f"inline,simplify,fold-constants,quantize{{target=simulated{options}}}").run(program)


# -- observers ---------------------------------------------------------------------------------------------------------


def seen(*arrays):
    statistics = Statistics()
    for array in arrays:
        statistics.update(np.asarray(array, np.float32))
    return statistics


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=30), min_size=1, max_size=6))
def test_histograms_lose_no_number(lists):
    statistics = seen(*lists)
    everything = np.array([number for numbers in lists for number in numbers], np.float32)
    assert statistics.count == everything.size
    if everything.size:
        histogram = statistics.histogram
        assert histogram.counts.sum() == everything.size and histogram.counts.shape == (BINS,)
        assert (statistics.low, statistics.high) == (everything.min(), everything.max())
        slack = histogram.width + 1e-6 * np.abs(everything).max()
        assert histogram.low - slack <= everything.min()
        assert everything.max() <= histogram.low + BINS * histogram.width + slack


@pytest.mark.parametrize("method", sorted(OBSERVERS))
def test_observers_stay_within_what_was_seen(method):
    for array in (
        RNG.standard_normal(5000),
        RNG.exponential(size=5000),
        -RNG.exponential(size=5000),
        np.ones(7),
        [3.0],
    ):
        statistics = seen(array)
        low, high = range_of(statistics, method)
        assert statistics.low - 1e-6 <= low or low == 0
        assert high <= statistics.high + 1e-6 or high == 0
        assert low <= high
    assert range_of(Statistics(), method) == (0.0, 0.0)


def test_observers_differ_on_outliers():
    array = np.append(RNG.standard_normal(100_000), 100.0)
    ranges = {method: range_of(seen(array), method)[1] for method in OBSERVERS}
    assert ranges["min-max"] == 100
    assert ranges["percentile"] < 6
    assert ranges["mse"] < 95 and ranges["entropy"] < 90


def test_mean_square_error_is_no_larger_than_with_min_max():
    array = RNG.standard_t(3, 20_000).astype(np.float32)

    def error(ends):
        steps = (ends[1] - ends[0]) / 255
        rounded = np.round(np.clip(array, *ends) / steps) * steps
        return ((rounded - array) ** 2).mean()

    statistics = seen(array)
    assert error(range_of(statistics, "mse")) < error(range_of(statistics, "min-max"))


def test_moving_average_follows_the_batches():
    low, high = range_of(seen([0.0, 1.0], [0.0, 2.0]), "moving-average")
    assert (low, high) == (0.0, pytest.approx(1.1))


def test_channels():
    statistics = Statistics()
    arrays = [RNG.standard_normal((4, 3, 5)).astype(np.float32) for _ in range(3)]
    for array in arrays:
        statistics.update(array, 1)
    whole = np.concatenate(arrays).transpose(1, 0, 2).reshape(3, -1)
    np.testing.assert_array_equal(statistics.channel_low, whole.min(1))
    np.testing.assert_array_equal(statistics.channel_high, whole.max(1))
    np.testing.assert_allclose(statistics.channel_mean, whole.mean(1), atol=1e-6)


# -- files -------------------------------------------------------------------------------------------------------------


def test_file_round_trip(tmp_path):
    path = tmp_path / "ranges.json"
    quantized(BATCHES, f',calibration="{path}"')
    calibration = Calibration.load(path)
    assert sorted(calibration.values) == ["dot", "mean", "stem/conv", "stem/conv:input"]
    assert calibration.batches == 5 and calibration.complete
    before = path.read_bytes()
    calibration.save(path)
    assert path.read_bytes() == before
    again = quantized(None, f',calibration="{path}"')
    np.testing.assert_array_equal(again(X), quantized(BATCHES)(X))


def test_file_serves_another_backend(tmp_path):
    path = tmp_path / "ranges.json"
    quantized(BATCHES, f',calibration="{path}"')
    for pipeline in ("onnx-int8", "mobile"):
        artifact = xlapass.compile(model, X, pipeline=pipeline, calibration_data=str(path))
        np.testing.assert_allclose(artifact.executable()(X), quantized(BATCHES)(X), atol=0.05)


def test_file_can_be_edited(tmp_path):
    path = tmp_path / "ranges.json"
    quantized(BATCHES, f',calibration="{path}"')
    data = json.loads(path.read_text())
    data["values"]["stem/conv:input"]["range"] = [-0.5, 0.5]
    path.write_text(json.dumps(data))
    changed = quantized(None, f',calibration="{path}"')
    scales = [float(n.inputs[1].const) for n in Graph(changed.jaxpr).nodes() if is_composite(n, QUANTIZE)]
    assert scales[0] == pytest.approx(1 / 255)


def test_interrupted_calibration_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("xlapass.passes.quantize.calibration.SAVED_EVERY", 1)
    path = tmp_path / "ranges.json"
    used = []

    def batches(stop):
        for number, batch in enumerate(BATCHES):
            if number == stop:
                raise KeyboardInterrupt
            used.append(number)
            yield batch

    with pytest.raises(KeyboardInterrupt):
        quantized(lambda: batches(3), f',calibration="{path}"')
    assert Calibration.load(path).batches == 3 and not Calibration.load(path).complete
    result = quantized(lambda: batches(None), f',calibration="{path}"')
    np.testing.assert_array_equal(result(X), quantized(BATCHES)(X))
    assert Calibration.load(path).batches == 5 and Calibration.load(path).complete


HEAD = '{"format": "xlapass calibration", "version": 1'
ENTRY = HEAD + ', "batches": 1, "complete": true, "values": {"conv": %s}}'
SEEN = '{"range": null, "low": 0, "high": 1, "moving": [0, 1], "batches": 1, "count": 2, "zeros": 0}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a calibration file"),
        ('{"format": "xlapass calibration"}', "not a calibration"),
        (HEAD + "}", "'batches' is missing"),
        (HEAD + ', "batches": "many", "complete": true, "values": {}}', "no whole calibration file.*many"),
        (HEAD + ', "batches": 1, "complete": true}', "'values' is missing"),
        (HEAD + ', "batches": 1, "complete": true, "values": 3}', "no whole calibration file"),
        (ENTRY % '{"range": [5, 1]}', r"'conv' cannot be read: the range \[5, 1\]"),
        (ENTRY % '{"range": [1]}', "'conv' cannot be read"),
        (ENTRY % '{"range": [NaN, 1]}', "'conv' cannot be read"),
        (ENTRY % '{"range": null, "low": 1}', "'conv' cannot be read: 'batches' is missing"),
        (ENTRY % SEEN.replace('"low": 0', '"low": NaN'), "'conv' cannot be read: from nan"),
        (ENTRY % SEEN, "'conv' cannot be read: 'histogram' is missing"),
        (ENTRY % "7", "'conv' cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "ranges.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        Calibration.load(tmp_path / "ranges.json")


def test_names_survive_another_trace_and_layout():
    names = []
    for text in ("inline,simplify,fold-constants", "inline,simplify,layout{to=nchw},simplify,fold-constants"):
        program = PassManager(text).run(xlapass.trace(lambda x: model(x), X))
        names.append([tap.name for tap in place(Graph(program.jaxpr), ONNX, "static").taps()])
    assert names[0] == names[1] == ["stem/conv:input", "stem/conv", "mean"]


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_by_name(number):
    broken = X.copy()
    broken[0, 0, 0, 0] = number
    with pytest.raises(UsageError, match=r"'stem/conv:input'.* is (NaN|infinite) on batch 2"):
        quantized([(X,), (broken,)])


def test_without_data_the_error_says_how():
    with pytest.raises(UsageError, match="typical inputs") as caught:
        quantized(None)
    assert "calibration_data" in caught.value.hint and "--calibrate" in caught.value.hint


def test_empty_data():
    with pytest.raises(UsageError, match="are empty"):
        quantized([])


def two(x, y):
    return x["a"] @ DENSE + y


def batches_of(source, program):
    found, total = flat_batches(source, program)
    found = list(found)
    assert total is None or total == len(found)
    return [[np.asarray(array) for array in flat] for flat in found]


def test_forms_of_data(tmp_path):
    many = RNG.standard_normal((3, *X.shape)).astype(np.float32)
    program = xlapass.trace(model, X)
    want = [[array] for array in many]
    np.save(tmp_path / "stacked.npy", many)
    np.save(tmp_path / "rows.npy", many.reshape(-1, *X.shape[1:]))
    np.savez(tmp_path / "named.npz", x=many)
    (tmp_path / "folder").mkdir()
    for number, array in enumerate(many):
        np.save(tmp_path / "folder" / f"{number}.npy", array)
    sources = [
        [(array,) for array in many],
        list(many),
        [{"x": array} for array in many],
        ((array,) for array in many),
        lambda: iter(many),
        str(tmp_path / "stacked.npy"),
        tmp_path / "rows.npy",
        tmp_path / "named.npz",
        tmp_path / "folder",
    ]
    for source in sources:
        np.testing.assert_array_equal(batches_of(source, program), want)


def test_several_inputs(tmp_path):
    program = xlapass.trace(two, {"a": jnp.ones((2, 4))}, jnp.ones(3))
    a, y = RNG.standard_normal((5, 2, 4)).astype(np.float32), RNG.standard_normal((5, 3)).astype(np.float32)
    np.savez(tmp_path / "both.npz", **{"x.a": a, "y": y})
    found = batches_of(tmp_path / "both.npz", program)
    assert len(found) == 5
    np.testing.assert_array_equal(found[2][0], a[2])
    np.testing.assert_array_equal(found[2][1], y[2])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "not a int"),
        (X, "not a ndarray"),
        ({"x": X}, "not a dict"),
        ([(X, X)], "batch 1 .*structure"),
        ([X[:1]], "batch 1 .*shape"),
        ("nowhere.npz", "cannot read"),
        ("data.txt", "not of a kind"),
    ],
)
def test_data_that_do_not_fit(source, message):
    with pytest.raises(UsageError, match=message):
        batches_of(source, xlapass.trace(model, X))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2, 5, 6, 2), np.float32), r"batch 1 of .*data\.npz.*shape"),
        (np.zeros((3, *X.shape), np.int32), r"batch 1 of .*data\.npz.*dtype"),
        (np.full((3, *X.shape), "x"), r"batch 1 of .*data\.npz.*dtype"),
        (np.zeros((0, *X.shape), np.float32), "fewer samples"),
        (np.zeros(4, np.float32), "has the shape"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, array, message):
    np.savez(tmp_path / "data.npz", x=array)
    with pytest.raises(UsageError, match=message):
        quantized(tmp_path / "data.npz")


@pytest.mark.parametrize("name", ["data.npz", "data.npy"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no more", b"\x93NUMPY\x01\x00", b"hello"])
def test_broken_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        quantized(tmp_path / name)


def test_an_array_under_the_name_of_several(tmp_path):
    np.save(tmp_path / "data.npy", np.zeros((3, *X.shape), np.float32))
    (tmp_path / "data.npy").rename(tmp_path / "data.npz")
    with pytest.raises(UsageError, match="it is one array"):
        quantized(tmp_path / "data.npz")


def test_products_to_keep_must_be_there():
    with pytest.raises(UsageError, match="no product 'stem/cov'") as caught:
        quantized(BATCHES, ",keep=stem/cov")
    assert "'stem/conv'" in caught.value.hint


@pytest.mark.parametrize("options", ["", ",bias-correction=true", ",accuracy-target=sqnr>10", ",observer=entropy"])
def test_generators_serve_every_option(options):
    """What looks at the data more than once keeps what it has to."""
    results = [quantized(data, options)(X) for data in (iter(BATCHES), lambda: iter(BATCHES), BATCHES)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
