"""``--tune`` and ``xlapass tune``: what is measured is kept, shown and used."""

import io
import json
import sys
import time
from pathlib import Path

import pytest
from xlapass.core.forms import Measured
from xlapass.passes import compile_options, tune

POOL = """
    import jax
    import jax.numpy as jnp

    def model(x):
        pooled = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
        return jnp.tanh(pooled)

    example_inputs = (jnp.ones((1, 16, 16, 4)),)
"""

FLAGS = ("--pipeline=inline,select-forms,compile-options", "--tune-file=tuned.json")


@pytest.fixture
def pool(write, monkeypatch):
    """A model of one pooling operation, whose measuring takes no time."""
    monkeypatch.setattr(tune, "measure_forms", lambda *_: {"direct": Measured(1.0), "slices": Measured(0.5, 1.9, 2.1)})
    monkeypatch.setattr(compile_options, "_against", lambda *_: Measured(0.5, 1.5))
    write("pool.py", POOL)
    return "pool.py"


def test_tuning_shows_what_was_chosen_and_keeps_it(command, pool, tmp_path):
    result = command("tune", *FLAGS, pool)
    assert result.status == 0 and result.err == ""
    row = next(line for line in result.out.splitlines() if "reduce_window_max" in line)
    assert "pool.py:5 (model)" in row and "slices" in row and "2.00x measured" in row
    text = " ".join(result.out.split())  # long options wrap
    assert "compile options: xla_cpu" in text and "(1.50x measured)" in text
    assert "tuning: 1 operations measured" in result.out
    assert json.loads((tmp_path / "tuned.json").read_text())["format"] == "xlapass timings 2"
    assert "0 operations measured in 0.0 s, 1 known before" in command("tune", *FLAGS, pool).out


def test_a_tuned_model_is_run_and_compared(command, pool):
    result = command("--tune", *FLAGS, pool)
    assert result.status == 0 and "slices" in result.out and "equal to plain JAX bit for bit" in result.out


def test_json_holds_the_choices(command, pool, tmp_path):
    data = json.loads(command("tune", *FLAGS, "--report=json", pool).out)
    forms = [choice for one in data["passes"] for choice in one["details"].get("forms", [])]
    assert [(c["operation"], c["form"], c["gain"], c["measured"]) for c in forms] == [
        ("reduce_window_max", "slices", 2.0, True)
    ]
    assert "pool.py:5" in forms[0]["where"]
    (options,) = [one["details"]["options"] for one in data["passes"] if "options" in one["details"]]
    assert options[0]["gain"] == 1.5 and options[0]["set"].startswith("xla_cpu")
    command("tune", *FLAGS, "--report=json:report.json", pool)
    assert json.loads((tmp_path / "report.json").read_text())["passes"]


def test_without_a_budget_only_the_file_counts(command, pool, tmp_path):
    result = command("--tune-budget=0", *FLAGS, "--no-run", pool)
    assert result.status == 0 and not (tmp_path / "tuned.json").exists()
    command("tune", *FLAGS, pool)
    assert "2.00x measured" in command("--tune-budget=0", *FLAGS, "--no-run", pool).out
    assert "measured" not in command(FLAGS[0], "--no-run", pool).out


@pytest.mark.parametrize("budget", ["soon", "-1", "1d"])
def test_bad_budgets(command, pool, budget):
    result = command(f"--tune-budget={budget}", pool)
    assert result.status == 2 and "a tuning budget cannot be" in result.err


def test_a_foreign_file_is_a_warning(command, pool, tmp_path):
    (tmp_path / "tuned.json").write_text("mine")
    result = command("--tune", *FLAGS, "--no-run", pool)
    assert result.status == 0 and (tmp_path / "tuned.json").read_text() == "mine"
    assert result.err.count("warning: the measured times in tuned.json cannot be used") == 1


def test_an_interruption_is_a_warning_and_the_model_is_compiled(command, pool, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "measure_forms", interrupted)
    result = command("--tune", *FLAGS, pool)
    assert result.status == 0 and "equal to plain JAX bit for bit" in result.out
    assert "warning: tuning was interrupted after 0 of 1 operations" in result.err


def test_the_environment_says_where_the_file_is(command, pool, tmp_path, monkeypatch):
    monkeypatch.setenv("XLAPASS_TUNE_FILE", str(tmp_path / "team" / "tuned.json"))
    command("tune", FLAGS[0], pool)
    assert (tmp_path / "team" / "tuned.json").is_file()


class FakeTerminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal_and_none_in_a_pipe(command, pool, monkeypatch):
    assert command("tune", *FLAGS, pool).err == ""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    stream = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", stream)
    Path("tuned.json").unlink()
    slow = {"direct": Measured(1.0), "slices": Measured(0.5, 1.9, 2.1)}
    monkeypatch.setattr(tune, "measure_forms", lambda *_: time.sleep(0.3) or slow)  # the bar is drawn now and then
    assert command("tune", *FLAGS, pool).status == 0
    assert "tuning ─" in stream.getvalue() and "0/1" in stream.getvalue()
