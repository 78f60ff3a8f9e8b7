"""`tune`: measured choices, kept in a file; interruptions, budgets, bad forms."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from xlapass.core.errors import UsageError, XlapassError
from xlapass.core.forms import Form, FormTable, FormWarning, Measured, Signature
from xlapass.core.graph import Graph
from xlapass.core.manager import PassManager
from xlapass.core.plugins import Entry, hookimpl, load_registry
from xlapass.core.program import Program
from xlapass.core.timings import Timings
from xlapass.core.tracing import trace
from xlapass.core.tuning import CACHE, Tuning, seconds_of, timings_path
from xlapass.passes import tune as tuning
from xlapass.passes.forms import pooling
from xlapass.passes.forms.measure import compared, example_inputs, single_operation, sure_range
from xlapass.passes.forms.neighbours import ALONE, Neighbours, subject
from xlapass.passes.tune import TuningResult, distinct_operations, time_forms, tune

IMAGE = jnp.asarray(np.random.default_rng(0).standard_normal((1, 64, 64, 16)), jnp.float32)
TABLE = FormTable(pooling.FORMS)
FASTER = {"direct": Measured(1.0), "slices": Measured(0.5, 1.9, 2.1)}


def pool(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def two_operations(x: Any) -> Any:
    return lax.argmax(pool(pool(x)), 3, jnp.int32)


def pooling_key() -> str:
    return Signature.of_node(Graph(trace(pool, IMAGE).jaxpr).nodes()[0]).key


def tuned(fn: Any, file: Path, **options: Any) -> TuningResult:
    return tune(Graph(trace(fn, IMAGE).jaxpr), TABLE, Timings.read(file), file, **options)


def test_times_are_kept_and_used(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "times.json"
    manager = PassManager(f'tune{{timings="{file}"}}')
    program = trace(pool, IMAGE)
    assert manager.run(program) is program
    times = Timings.read(file).of(pooling_key())
    assert times is not None
    assert set(times) == {"direct", "slices"}
    after = PassManager(f'select-forms{{timings="{file}"}}').run(program)
    assert bool(after.history) == (times["slices"].at_most >= 1)  # which is what the costs pick


def test_what_is_known_is_not_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    first = tuned(two_operations, file)
    assert (first.signatures, first.measured, first.known) == (1, 1, 0)
    text = file.read_text()
    second = tuned(two_operations, file)
    assert (second.signatures, second.measured, second.known) == (1, 0, 1)
    assert file.read_text() == text


def test_nothing_is_begun_after_the_budget(tmp_path: Path) -> None:
    assert tuned(pool, tmp_path / "times.json", budget=-1.0).measured == 0


def test_an_interruption_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(pending: Any, table: Any) -> dict[str, Measured]:
        if pending.signature.primitive == "argmax":
            raise KeyboardInterrupt
        return FASTER

    monkeypatch.setattr(tuning, "measure_forms", interrupted)
    registry, file = load_registry(), tmp_path / "times.json"
    program = trace(two_operations, IMAGE)
    with pytest.warns(FormWarning, match="interrupted after 1 of 2"):
        PassManager(f'tune{{timings="{file}"}}', registry=registry).run(program)
    assert Timings.read(file).of(pooling_key()) == FASTER


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "measure_forms", lambda *_: FASTER)
    seen: list[tuple[int, int]] = []
    tuned(pool, tmp_path / "times.json", progress=lambda done, total, text: seen.append((done, total)))
    assert seen == [(0, 1), (1, 1)]


class Plugin:
    """Brings one form of `sin`."""

    def __init__(self, fn: Any, numerics: Any = "reassociating") -> None:
        self.form = Form("other", "sin", fn, lambda s: None, lambda s: 0.0, numerics)

    @hookimpl
    def xlapass_forms(self) -> dict[str, Entry]:
        return {"trigonometry": Entry([self.form])}


def raises(*args: Any, **params: Any) -> Any:
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    "form, problem",
    [
        (raises, "does not fit"),
        (lambda x, accuracy: jnp.cos(x), "differs by"),
        (lambda x, accuracy: jnp.sin(x) + jnp.nan, "differs by inf"),
    ],
)
@pytest.mark.parametrize("numerics", ["exact", "reassociating"])
def test_a_form_that_is_wrong_or_raises_is_a_warning_and_never_used(
    tmp_path: Path, form: Any, problem: str, numerics: str
) -> None:
    file, registry = tmp_path / "times.json", load_registry([Plugin(form, numerics)])
    pipeline = f'select-forms{{timings="{file}",budget=60}}'
    with pytest.warns(FormWarning, match="sin/other"):
        after = PassManager(pipeline, registry=registry).run(trace(jnp.sin, IMAGE))
    assert not after.history
    (subjects,) = json.loads(file.read_text())["measured"].values()
    (candidates,) = subjects.values()
    assert set(candidates) == {"direct", "other"} and problem in candidates["other"]["problem"]
    assert not PassManager(pipeline, registry=registry).run(trace(jnp.sin, IMAGE)).history  # and no second warning


def test_what_is_rounded_otherwise_is_no_wrong_result(tmp_path: Path) -> None:
    plugin = Plugin(lambda x, accuracy: jnp.cos(x - jnp.float32(np.pi / 2)))
    file = tmp_path / "times.json"
    PassManager(f'tune{{timings="{file}"}}', registry=load_registry([plugin])).run(trace(jnp.sin, IMAGE))
    assert "problem" not in file.read_text()


def test_a_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    file.write_text("mine")
    with pytest.warns(FormWarning, match="cannot be used"):
        assert tuned(pool, file).measured == 0
    with pytest.raises(XlapassError, match="cannot be used"):
        Timings().write(file)
    assert file.read_text() == "mine"


def test_a_file_that_cannot_be_written_still_tunes_this_program(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tuning, "measure_forms", lambda *_: FASTER)
    monkeypatch.setattr(Timings, "write", _refuse)
    with pytest.warns(FormWarning, match="not kept: no room"):
        after = PassManager(f'select-forms{{timings="{tmp_path}/times.json",budget=60}}').run(trace(pool, IMAGE))
    assert after.history


def _refuse(self: Timings, path: Any) -> None:
    raise UsageError("no room")


def test_a_folder_that_cannot_be_made_is_an_error_of_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        Timings().write(tmp_path / "file" / "folder" / "times.json")


def test_only_a_sure_gain_over_the_default_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "times.json"
    for (low, high), default, used in [
        ((0.9, 1.1), "direct", False),
        ((1.1, 2.1), "direct", True),
        ((0.9, 1.1), "slices", True),
        ((0.5, 0.9), "slices", False),
    ]:
        timings = Timings()
        timings.record(pooling_key(), "direct", Measured(1.0))
        timings.record(pooling_key(), "slices", Measured(0.5 if used else 2.0, low, high))
        timings.write(file)
        costs = {"direct": 1.0, "slices": 0.5 if default == "slices" else 2.0}
        monkeypatch.setattr(tuning.FormTable, "direct_cost", lambda *_: 1.0)
        monkeypatch.setattr("xlapass.core.forms._cost", lambda form, signature, costs=costs: costs[form.name])
        after = PassManager(f'select-forms{{timings="{file}"}}').run(trace(pool, IMAGE))
        assert bool(after.history) is used


def test_a_gain_is_sure_when_chance_does_not_explain_it() -> None:
    rng = np.random.default_rng(0)
    assert sure_range(np.full(5, 2.0)) == (2.0, 2.0)
    low, high = np.array([sure_range(np.exp(rng.normal(0.0, 0.3, 20))) for _ in range(500)]).T
    assert np.mean(low > 1.0) < 0.05 and np.mean(high < 1.0) < 0.05
    low, high = np.array([sure_range(np.exp(rng.normal(0.3, 0.3, 20))) for _ in range(200)]).T
    assert np.mean(low > 1.0) > 0.8 and np.mean(high > np.exp(0.3)) > 0.9
    samples = np.array([np.full(9, 3.0), np.full(9, 1.5), np.full(9, 6.0)])
    assert compared(samples, copies=3) == [Measured(1.0, 1.0, 1.0), Measured(0.5, 2.0, 2.0), Measured(2.0, 0.5, 0.5)]


def test_every_form_of_one_operation_is_timed() -> None:
    node = Graph(trace(pool, IMAGE).jaxpr).nodes()[0]
    times = time_forms(Signature.of_node(node), node.primitive, TABLE.forms_of("reduce_window_max"), TABLE)
    assert set(times) == {"direct", "slices"}
    assert all(seconds > 0 for seconds in times.values())


def test_constants_are_closed_over_when_an_operation_is_timed() -> None:
    kernel = np.ones((1, 1, 16, 4), np.float32)
    program = trace(
        lambda x: lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")), IMAGE
    )
    node = Graph(program.jaxpr).nodes()[0]
    alone = single_operation(Signature.of_node(node), node.primitive)
    assert [const.shape for const in alone.consts] == [(1, 1, 16, 4)]
    assert [var.aval.shape for var in alone.jaxpr.invars] == [IMAGE.shape]


def transposed_pools(x: Any) -> Any:
    first = pool(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return first + pool(x.reshape(1, 64, 16, 64).transpose(0, 1, 3, 2)).sum()


def neighbours_of_pools(program: Program) -> list[Neighbours]:
    return [Neighbours.of_node(n) for n in Graph(program.jaxpr).nodes() if n.name == "reduce_window_max"]


def test_an_operation_is_measured_between_its_transposes() -> None:
    program = trace(lambda x: pool(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), IMAGE.reshape(1, 16, 64, 64))
    (around,) = neighbours_of_pools(program)
    assert str(around) == "after transpose[0,2,3,1] before transpose[0,3,1,2]"
    (one,) = distinct_operations(Graph(program.jaxpr), TABLE, "lossy")
    assert one.subject == f"{pooling_key()} {around}"
    body = single_operation(one.signature, one.primitive, around)
    assert [var.aval.shape for var in body.jaxpr.invars] == [(1, 16, 64, 64)]
    assert [array.shape for array in example_inputs(one.signature, around)] == [(1, 16, 64, 64)]
    assert [eqn.primitive.name for eqn in body.jaxpr.eqns] == ["transpose", "reduce_window_max", "transpose"]
    assert subject(one.signature, ALONE) == pooling_key()


def test_times_between_other_neighbours_serve_where_there_are_none(tmp_path: Path) -> None:
    file, program = tmp_path / "times.json", trace(transposed_pools, IMAGE.reshape(1, 16, 64, 64))
    first, second = neighbours_of_pools(program)
    assert str(second) == "after transpose[0,1,3,2]"
    timings = Timings()
    for name, measured in FASTER.items():
        timings.record(pooling_key(), name, measured)
    timings.record(f"{pooling_key()} {first}", "slices", Measured(problem="it is wrong here"))
    timings.write(file)
    after = PassManager(f'select-forms{{timings="{file}"}}').run(program)
    assert neighbours_of_pools(after) == [first]


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("60", 60),
        ("60s", 60),
        (1.5, 1.5),
        (0, 0),
        ("1.5m", 90),
        ("2min", 120),
        ("1h", 3600),
        ("500ms", 0.5),
        (" 5 s ", 5),
    ],
)
def test_budgets(text: Any, seconds: float) -> None:
    assert seconds_of(text) == seconds
    assert Tuning.of(text).budget == seconds


@pytest.mark.parametrize("text", ["", "fast", "-1", -1, "1d", float("inf"), float("nan"), True, None, "1e3"])
def test_bad_budgets(text: Any) -> None:
    with pytest.raises(UsageError, match="budget cannot be"):
        seconds_of(text)


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLAPASS_TUNE_FILE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert timings_path(CACHE) == tmp_path / "xlapass" / "timings.json"
    monkeypatch.setenv("XLAPASS_TUNE_FILE", str(tmp_path / "team.json"))
    assert timings_path(CACHE) == tmp_path / "team.json"
    assert timings_path("mine.json") == Path("mine.json")


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "times.json"

    def write(index: int) -> None:
        for part in range(5):
            timings = Timings("here")
            timings.record(f"operation {index} {part}", "direct", Measured(1.0))
            timings.write(file)

    threads = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Timings.read(file, "here")) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["times.json"]
