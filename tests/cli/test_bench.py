"""``xlapass bench``: the arithmetic, and what is shown; speed itself is for the benchmarks."""

import json

import pytest
from xlapass.cli.benchmarking import Measurement

FLAGS = ("--pipeline=inline,dead-code", "--seconds=0.1")


def test_the_ratio_is_of_neighbours():
    measured = Measurement((2.0, 30.0, 4.0), (1.0, 10.0, 1.0), 0.1, 0.2)
    assert measured.ratio == (2.5, 3.0, 3.5)


def test_a_table_and_a_verdict(command, model):
    result = command("bench", *FLAGS, model)
    assert result.status == 0 and "jax.jit" in result.out and "inline,dead-code" in result.out
    assert "x as fast as jax.jit (quartiles " in result.out


def test_json(command, model, tmp_path):
    data = json.loads(command("bench", *FLAGS, "--report=json", model).out)
    assert data["pipeline"] == "inline,dead-code" and data["pairs"] >= 5
    low, middle, high = data["ratio"]
    assert 0 < low <= middle <= high
    command("bench", *FLAGS, "--report=json:out.json", model)
    assert json.loads((tmp_path / "out.json").read_text())["program"] == "model"


def test_a_device_that_is_not_here(command, model):
    result = command("bench", *FLAGS, "--device=gpu", model)
    assert result.status == 2 and "cannot be measured here: this machine has no cuda device" in result.err


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "soon"])
def test_bad_times(command, model, seconds):
    assert command("bench", f"--seconds={seconds}", model).status == 2


def test_donated_programs_are_measured(command, write):
    write(
        "donates.py",
        """
        import jax.numpy as jnp
        import xlapass

        model = xlapass.trace(lambda x: x + 1, jnp.ones(3), donate_argnums=0)
        """,
    )
    assert command("bench", *FLAGS, "donates.py").status == 0
