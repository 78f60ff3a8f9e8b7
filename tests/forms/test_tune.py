"""`tune`: measured choices, kept in a file; interruptions, budgets, bad forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from xlapass.core.errors import XlapassError
from xlapass.core.forms import Form, FormTable, FormWarning, Signature
from xlapass.core.graph import Graph
from xlapass.core.manager import PassManager
from xlapass.core.plugins import Entry, hookimpl, load_registry
from xlapass.core.timings import Timings
from xlapass.core.tracing import trace
from xlapass.passes import tune as tuning
from xlapass.passes.forms import pooling
from xlapass.passes.forms.measure import single_operation
from xlapass.passes.tune import time_forms, tune

IMAGE = jnp.asarray(np.random.default_rng(0).standard_normal((1, 64, 64, 16)), jnp.float32)


def pool(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def two_operations(x: Any) -> Any:
    return lax.argmax(pool(pool(x)), 3, jnp.int32)


def pooling_signature() -> Signature:
    return Signature.of_node(Graph(trace(pool, IMAGE).jaxpr).nodes()[0])


def test_times_are_kept_and_used(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "times.json"
    manager = PassManager(f'tune{{timings="{file}"}}')
    program = trace(pool, IMAGE)
    assert manager.run(program) is program
    times = Timings.read(file).of(pooling_signature())
    assert times is not None
    assert set(times) == {"direct", "slices"}
    after = PassManager(f'select-forms{{timings="{file}"}}').run(program)
    assert bool(after.history) == (times["slices"] * 1.03 < times["direct"])


def test_what_is_known_is_not_measured_again(tmp_path: Path) -> None:
    file, table = str(tmp_path / "times.json"), FormTable(pooling.FORMS)
    graph = Graph(trace(two_operations, IMAGE).jaxpr)
    first = tune(graph, table, file)
    assert (first.signatures, first.measured, first.known) == (1, 1, 0)
    text = Path(file).read_text()
    second = tune(graph, table, file)
    assert (second.signatures, second.measured, second.known) == (1, 0, 1)
    assert Path(file).read_text() == text


def test_nothing_is_begun_after_the_budget(tmp_path: Path) -> None:
    graph = Graph(trace(pool, IMAGE).jaxpr)
    result = tune(graph, FormTable(pooling.FORMS), str(tmp_path / "times.json"), budget=-1.0)
    assert result.measured == 0


def test_an_interruption_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(signature: Signature, *rest: Any) -> dict[str, float]:
        if signature.primitive == "argmax":
            raise KeyboardInterrupt
        return {"direct": 1.0, "slices": 0.5}

    monkeypatch.setattr(tuning, "time_forms", interrupted)
    registry, file = load_registry(), tmp_path / "times.json"
    program = trace(two_operations, IMAGE)
    with pytest.warns(FormWarning, match="interrupted after 1 of 2"):
        PassManager(f'tune{{timings="{file}"}}', registry=registry).run(program)
    assert Timings.read(file).of(pooling_signature()) == {"direct": 1.0, "slices": 0.5}


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "time_forms", lambda *_: {"direct": 1.0, "slices": 0.5})
    seen: list[tuple[int, int]] = []
    graph = Graph(trace(pool, IMAGE).jaxpr)
    tune(
        graph,
        FormTable(pooling.FORMS),
        str(tmp_path / "times.json"),
        progress=lambda done, total, text: seen.append((done, total)),
    )
    assert seen == [(0, 1), (1, 1)]


def raises(*args: Any, **params: Any) -> Any:
    raise RuntimeError("broken")


class Plugin:
    """Brings a broken form of `sin`."""

    @hookimpl
    def xlapass_forms(self) -> dict[str, Entry]:
        return {"trigonometry": Entry([Form("broken", "sin", raises, lambda s: None, lambda s: 0.0)])}


def test_a_broken_form_is_a_warning(tmp_path: Path) -> None:
    file, registry = tmp_path / "times.json", load_registry([Plugin()])
    with pytest.warns(FormWarning, match="sin/broken"):
        PassManager(f'tune{{timings="{file}"}}', registry=registry).run(trace(jnp.sin, IMAGE))
    (times,) = json.loads(file.read_text())["seconds"].values()
    assert [list(forms) for forms in times.values()] == [["direct"]]


def test_a_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    file.write_text("mine")
    with pytest.warns(FormWarning, match="cannot be used"):
        result = tune(Graph(trace(pool, IMAGE).jaxpr), FormTable(pooling.FORMS), str(file))
    assert result.measured == 0
    with pytest.raises(XlapassError, match="cannot be used"):
        Timings().write(file)
    assert file.read_text() == "mine"


def test_every_form_of_one_operation_is_timed() -> None:
    node = Graph(trace(pool, IMAGE).jaxpr).nodes()[0]
    table = FormTable(pooling.FORMS)
    times = time_forms(Signature.of_node(node), node.primitive, table.forms_of("reduce_window_max"), table)
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
