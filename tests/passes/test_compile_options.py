"""`compile-options`: XLA options by measurement, remembered by program; bad ones are warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from xlapass.core.compile_options import CompileOptions
from xlapass.core.driver import plan
from xlapass.core.forms import FormWarning, Measured
from xlapass.core.manager import PassManager
from xlapass.core.pass_ import GraphPass
from xlapass.core.plugins import Entry, hookimpl, load_registry
from xlapass.core.program import Program
from xlapass.core.tracing import trace
from xlapass.core.tuning import Tuning
from xlapass.passes import compile_options as measuring
from xlapass.passes.compile_options import structure_hash

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
NARROW = {"xla_cpu_prefer_vector_width": "128"}


def model(x: Any) -> Any:
    return jnp.tanh(x) * 2


class Plugin:
    """Brings candidates, besides the three that come with the package."""

    def __init__(self, **candidates: CompileOptions) -> None:
        self.candidates = candidates

    @hookimpl
    def xlapass_compile_options(self) -> dict[str, Entry]:
        return {name: Entry(candidate) for name, candidate in self.candidates.items()}


def run(program: Program, file: Path, numerics: Any = "lossy", budget: float = 60, **candidates: Any) -> Program:
    registry = load_registry([Plugin(**candidates)])
    manager = PassManager(f'compile-options{{timings="{file}",budget={budget}}}', registry=registry, numerics=numerics)
    return manager.run(program)


@pytest.fixture
def gains(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What measuring the candidates shows, one after the other."""
    shown: list[float] = []
    monkeypatch.setattr(measuring, "_against", lambda *_: Measured(1.0, shown.pop(0), 9.0))
    return shown


def candidates(file: Path) -> dict[str, Any]:
    (subjects,) = json.loads(file.read_text())["measured"].values()
    (measured,) = subjects.values()
    return measured  # type: ignore[no-any-return]


def test_the_best_is_chosen_and_remembered(tmp_path: Path, gains: list[float]) -> None:
    program, file = trace(model, X), tmp_path / "times.json"
    gains += [1.2, 1.5, 1.1, 1.3]
    after = run(program, file, narrow=CompileOptions(NARROW))
    assert after.compiler_options and after.jaxpr is program.jaxpr and not gains
    best = max(candidates(file).items(), key=lambda item: item[1]["gain"][0])[0]
    assert best == ",".join(f"{k}={v}" for k, v in after.compiler_options.items())
    assert run(program, file, narrow=CompileOptions(NARROW)).compiler_options == after.compiler_options
    np.testing.assert_allclose(xlapass.compile(after, pipeline="").executable()(X), model(X), rtol=1e-6)


def test_no_sure_gain_leaves_the_defaults(tmp_path: Path, gains: list[float]) -> None:
    gains += [0.9, 1.0, 1.02, 1.029]
    program = trace(model, X)
    assert run(program, tmp_path / "times.json", narrow=CompileOptions(NARROW)) is program


def test_without_a_budget_or_a_file_nothing_is_measured(tmp_path: Path, gains: list[float]) -> None:
    program = trace(model, X)
    assert run(program, tmp_path / "times.json", budget=0) is program
    assert PassManager("compile-options").run(program) is program


def test_an_option_that_xla_does_not_know_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "alternating_samples", lambda *_: np.array([[1.0] * 9, [1.1] * 9]))
    program, file = trace(model, X), tmp_path / "times.json"
    bad = CompileOptions({"xla_no_such_option": True})
    with pytest.warns(FormWarning, match="xla_no_such_option=True are not used: XLA raised"):
        assert run(program, file, bad=bad) is program
    assert "XLA raised" in candidates(file)[str(bad)]["problem"]
    assert run(program, file, bad=bad) is program  # and no second warning


def test_options_that_change_results_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "wrong_result", lambda *_: "its result differs by 3")
    program = trace(model, X)
    with pytest.warns(FormWarning, match="differs by 3"):
        assert run(program, tmp_path / "times.json") is program


def test_what_is_not_permitted_is_not_measured(tmp_path: Path, gains: list[float]) -> None:
    gains += [1.0] * 3
    lossy = CompileOptions(NARROW, numerics="lossy")
    elsewhere = CompileOptions({"xla_gpu_autotune_level": "0"}, platform="cuda")
    run(trace(model, X), tmp_path / "times.json", numerics="reassociating", lossy=lossy, elsewhere=elsewhere)
    assert not gains
    assert not {str(lossy), str(elsewhere)} & set(candidates(tmp_path / "times.json"))


def test_an_interruption_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [Measured(1.0, 1.5, 2.0)]

    def interrupted(*_: Any) -> Measured:
        if not shown:
            raise KeyboardInterrupt
        return shown.pop()

    monkeypatch.setattr(measuring, "_against", interrupted)
    with pytest.warns(FormWarning, match="interrupted after 1 of 3"):
        assert run(trace(model, X), tmp_path / "times.json").compiler_options
    assert len(candidates(tmp_path / "times.json")) == 1


@pytest.mark.parametrize(
    "program",
    [
        trace(model, X, dynamic="b, ..."),
        trace(lambda x: jax.debug.print("{}", x) or x, X),
    ],
    ids=["symbolic", "effects"],
)
def test_programs_that_cannot_be_run_again_and_again(tmp_path: Path, program: Program) -> None:
    assert run(program, tmp_path / "times.json") is program
    assert not (tmp_path / "times.json").exists()


def test_programs_go_by_their_equations_and_not_by_their_weights() -> None:
    hashes = {structure_hash(trace(lambda x, w=w: x * jnp.asarray(w), X)) for w in (X, X + 1)}
    assert len(hashes) == 1
    assert structure_hash(trace(lambda x: x + jnp.asarray(X), X)) not in hashes
    assert structure_hash(trace(lambda x: x * jnp.asarray(X), X[:1])) not in hashes


class Tuned(GraphPass):
    """Says with what it is to be tuned."""

    name = "tuned-pass"

    def apply(self, graph: Any, context: Any) -> bool:
        return False

    def tuned(self, tuning: Tuning) -> Any:
        seen.append(tuning)
        return self


seen: list[Tuning] = []


def test_any_pass_may_take_part() -> None:
    plan([Tuned()], tune=Tuning("file.json", 3.0))
    assert seen == [Tuning("file.json", 3.0)]
    plan([Tuned()])
    assert len(seen) == 1
