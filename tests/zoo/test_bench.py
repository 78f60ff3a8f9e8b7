"""The benchmark: timing in alternation, comparison of outputs, and a whole run with contenders that misbehave."""

import json

import bench
import contenders
import numpy as np
import pytest
from measure import MINIMUM_ROUNDS, alternate, geometric_mean, largest_error, quartiles


def test_every_run_has_its_turn_in_every_round():
    calls = []
    runs = [lambda: calls.append("a"), lambda: calls.append("b")]
    times = alternate(runs, seconds=0.0)
    assert times.shape == (2, MINIMUM_ROUNDS)
    assert (times > 0).all()
    assert {"a", "b"} == set(calls)


def test_statistics():
    assert quartiles(np.array([5.0, 1.0, 3.0, 2.0, 4.0])) == (2.0, 3.0, 4.0)
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("outputs", "error"),
    [
        ([np.array([1.0, 2.0])], 0.0),
        ([np.array([1.0, 2.1])], 0.05),
        ([np.array([1.0, np.nan])], np.inf),
        ([np.array([[1.0, 2.0]])], np.inf),
        ([], np.inf),
    ],
)
def test_largest_error(outputs, error):
    assert largest_error(outputs, [np.array([1.0, 2.0])]) == pytest.approx(error)


def test_equal_infinities_and_empty_outputs_are_no_error():
    assert largest_error([np.array([np.inf]), np.zeros(0)], [np.array([np.inf]), np.zeros(0)]) == 0.0


class Fake(contenders.Contender):
    about = "for this test"

    def __init__(self, name, variants, reason=None):
        self.name, self._variants, self._reason = name, variants, reason

    def absent(self):
        return self._reason

    def variants(self, model):
        return self._variants(model)


def refuses(model):
    raise NotImplementedError("no lstm here\nat all")


def computes_something_else(model):
    shape = (model.inputs[0].shape[0], 35, 10_000)
    return {"": lambda: [np.ones(shape, np.float32)]}


@pytest.fixture
def small_field(monkeypatch):
    field = [
        contenders.JaxJit(contenders.REFERENCE),
        Fake("refuses", refuses),
        Fake("elsewhere", refuses, "not on this machine"),
        Fake("wrong", computes_something_else),
        contenders.JaxJit(contenders.CONTROL),
    ]
    monkeypatch.setattr(bench, "every_contender", lambda: field)


def test_a_run_writes_table_json_and_picture(small_field, tmp_path, capsys):
    asked = f"refuses,elsewhere,wrong,{contenders.CONTROL}"
    status = bench.main(["--models=lstm", f"--contenders={asked}", "--seconds=0", f"--out={tmp_path}"])
    assert status == 1  # one output is wrong
    assert capsys.readouterr().out.count("elsewhere is absent: not on this machine.") == 1
    assert "refuses on lstm: NotImplementedError: no lstm here\n" in (tmp_path / "bench.txt").read_text()
    assert (tmp_path / "bench.png").stat().st_size > 0
    results = json.loads((tmp_path / "bench.json").read_text())
    found = {m["contender"]: m for m in results["measurements"]}
    assert set(found) == {contenders.REFERENCE, "refuses", "wrong", contenders.CONTROL}
    assert found["refuses"]["ratio"] is None
    assert found["wrong"]["error"] > 0.5
    assert found[contenders.CONTROL]["error"] < 1e-5
    assert found[contenders.CONTROL]["milliseconds"][1] > 0
    assert results["summary"]["all"]["wrong"] is None
    assert results["machine"]["load"] >= 0
    assert results["summary"]["all"][contenders.CONTROL] == pytest.approx(found[contenders.CONTROL]["ratio"][1])


def test_both_layouts_are_compared(small_field, tmp_path):
    arguments = ["--models=conv-autoencoder", f"--contenders={contenders.REFERENCE}", "--layout=both", "--seconds=0"]
    assert bench.main([*arguments, f"--out={tmp_path}"]) == 0
    results = json.loads((tmp_path / "bench.json").read_text())
    assert [m["layout"] for m in results["measurements"]] == ["nhwc", "nchw"]
    low, middle, high = results["layout_ratio"][contenders.REFERENCE]["conv-autoencoder"]
    assert 0 < low <= middle <= high


def test_models_are_chosen_by_name_and_family():
    assert bench.choose_models("lstm,training") == ["lstm", "cnn-training", "transformer-training"]
    assert len(bench.choose_models("all")) == 19
    with pytest.raises(SystemExit, match="no model or family 'vgg'"):
        bench.choose_models("vgg")
    with pytest.raises(SystemExit, match="no contender 'torch'"):
        bench.choose_contenders("torch")


def test_every_contender_takes_part_or_says_why_not():
    chosen, absent = bench.present(contenders.every_contender())
    assert {contenders.REFERENCE, "xlapass.jit"} <= {contender.name for contender in chosen}
    assert all(reason for reason in absent.values())
