"""Whatever goes wrong: no file, and a message that says what happened, where, and what to do."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from jax import lax
from xlapass.backends.tflite import engines
from xlapass.backends.tflite.backend import TfliteBackend
from xlapass.backends.tflite.blame import find_culprit
from xlapass.backends.tflite.choices import other_choices
from xlapass.backends.tflite.edges import with_edges
from xlapass.backends.tflite.process import Worker, WorkerFailure
from xlapass.core.errors import CompileError, MissingDependencyError, UnsupportedError, UsageError
from xlapass.core.instruments.rounding import is_rounding
from xlapass.core.target import Target

X = np.arange(24, dtype=np.float32).reshape(3, 8)
TARGET = Target("tflite", "tflite")


def emitted(fn, *args, **options):
    """Without the passes, so that the converter sees what we want it to see."""
    return TfliteBackend(engine="litert", **options).emit(xlapass.trace(fn, *args), TARGET)


def interpreter(folder, body):
    """A program that stands where an interpreter is expected."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def crashing(x):
    """A composite of which litert-converter 0.5 reads an attribute that is not there."""
    resize = lax.composite(lambda x, **_: jnp.repeat(x, 2, axis=1), "odml.upsample_bilinear2d")
    return resize(jnp.sin(x), align_corners=False, output_shape=np.array([3, 16], np.int32)) + 1


def test_what_cannot_run_is_listed_at_once(compiled):
    def fn(x):
        y = jax.pure_callback(np.sin, x, x)
        return jax.pure_callback(np.cos, x, y)

    with pytest.raises(UnsupportedError) as caught:
        compiled(fn, X)
    text = str(caught.value)
    assert "2 operation(s)" in text
    assert "pure_callback: a file cannot call Python" in text
    assert text.count("test_failures.py:") == 2


def test_a_converter_that_crashes_is_an_error_with_the_culprit(tmp_path):
    with pytest.raises(CompileError, match=r"litert-converter crashed while it converted crashing") as caught:
        emitted(crashing, X)
    assert "'composite', which fails by itself" in str(caught.value)
    assert "test_failures.py" in caught.value.where


def test_wrong_numbers_are_found_before_anything_is_written():
    """Both converters ignore how the contracting dimensions are paired."""

    def odd(a, b):
        return jnp.sin(jnp.einsum("aib,cbi->ac", a, b))

    rng = np.random.default_rng(0)
    args = rng.standard_normal((3, 4, 4)).astype(np.float32), rng.standard_normal((2, 4, 4)).astype(np.float32)
    with pytest.raises(CompileError, match="is not what JAX computes on the example inputs") as caught:
        emitted(odd, *args)
    assert "'dot_general', which fails by itself" in str(caught.value)
    assert "--no-verify" in caught.value.hint
    artifact = emitted(odd, *args, verify=False)
    assert artifact.notes() == ("The file was not run against JAX.",)


def test_nan_that_gets_lost_is_found():
    """LiteRT's REDUCE_MAX passes over NaN, also where the result is infinite without it."""
    line = np.array([np.nan, np.inf, -np.inf, 0, 1, 2.5, -2.5, 1e30], np.float32)
    with pytest.raises(CompileError, match="infinities or NaN stand in other places") as caught:
        emitted(lambda x: x.max(), line)
    assert "reduce_max" in str(caught.value)


def test_a_file_that_does_not_load_is_an_error_with_the_culprit():
    def sorting(x):
        return jax.ops.segment_sum(jnp.sin(x), np.array([0, 0, 1]), 2) * 2

    table = TfliteBackend.legality
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TfliteBackend, "legality", lambda self, target: _Everything())
        with pytest.raises(CompileError, match="LiteRT cannot run what litert-converter made of sorting") as caught:
            emitted(sorting, X)
    assert TfliteBackend.legality is table
    assert "'scatter-add'" in str(caught.value)


def test_what_rounding_explains_is_not_held_against_a_file(compiled):
    """From other inputs than a fixed point, the logistic map gives anything after sixty rounds."""

    def chaotic(x):
        return lax.fori_loop(0, 60, lambda i, c: 3.9 * c * (1 - c), jax.nn.sigmoid(x * 5))

    artifact = compiled(chaotic, np.zeros(8, np.float32))
    assert "on drawn inputs no further than roundings move JAX's own results" in artifact.notes()[0]
    assert "inputs near the examples" in artifact.notes()[0]


def test_wrong_numbers_are_found_beside_chaotic_ones():
    def fn(a, b):
        wrong = jnp.einsum("aib,cbi->ac", a, b)
        return wrong, lax.fori_loop(0, 60, lambda i, c: 3.9 * c * (1 - c), jax.nn.sigmoid(a))

    rng = np.random.default_rng(0)
    args = rng.standard_normal((3, 4, 4)).astype(np.float32), rng.standard_normal((2, 4, 4)).astype(np.float32)
    with pytest.raises(CompileError, match=r"'output.0' is not what JAX computes on the example inputs"):
        emitted(fn, *args)


def test_a_file_is_run_through_all_branches(compiled):
    """The examples take one; what the others compute is compared, too."""

    def fn(i, p, n, x):
        y = lax.switch(i, [jnp.sin, jnp.cos, jnp.tanh, jnp.abs], x)
        return lax.cond(p, jnp.exp, jnp.negative, y) * n

    note = compiled(fn, np.int32(2), True, np.int32(3), X).notes()[0]
    assert all(f"choice {value}" in note for value in range(4))
    program = xlapass.trace(lambda i, x: lax.switch(i, [jnp.sin, jnp.cos, jnp.tanh], x[i]), np.int32(1), X)
    assert other_choices(program, program.examples) == []  # it is an index as well


def test_rounding_explains_no_more_than_it_causes():
    want, moved = np.array([1.0, 2.0, np.nan, 4.0]), np.array([1.1, np.nan, np.nan, 4.0])
    for have, explained in (
        ([0.9, 2.0, np.nan, 4.1], True),
        ([1.0, 2.0, 3.0, np.inf], True),  # two places stray, one does where JAX's results are moved
        ([np.inf, np.nan, 3.0, 4.0], False),
        ([1.0, 2.0, np.nan, 4.3], False),
        ([1.0, 2.0, np.nan, np.nan], True),
    ):
        assert is_rounding(want, np.array(have), moved) == explained
    assert not is_rounding(want, want[::-1], want)


class _Everything:
    def require(self, program, backend):
        """Lets everything through."""


def test_a_converter_that_hangs_is_ended(tmp_path):
    python = interpreter(tmp_path, "exec sleep 600")
    start = time.monotonic()
    with pytest.raises(CompileError, match="took too long to convert") as caught:
        emitted(lambda x: x + 1, X, python=python, timeout=1)
    assert time.monotonic() - start < 60
    assert "timeout" in caught.value.hint


def test_a_converter_that_dies_early_is_an_error(tmp_path):
    for body, message in (("kill -SEGV $$", "SIGSEGV"), ("echo no module >&2; exit 3", "status 3\n    no module")):
        with pytest.raises(CompileError) as caught:
            emitted(lambda x: x + 1, X, python=interpreter(tmp_path, body))
        assert message in str(caught.value)
    with pytest.raises(UsageError, match="cannot run the interpreter"):
        emitted(lambda x: x + 1, X, python=str(tmp_path / "nowhere"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited with setrlimit")
def test_a_converter_that_runs_out_of_memory_is_an_error():
    weights = np.ones((2000, 2000), np.float32)
    with pytest.raises(CompileError, match="ran out of memory") as caught:
        emitted(lambda x: x @ weights, np.ones((1, 2000), np.float32), memory=150 << 20)
    assert "memory" in caught.value.hint


def test_no_file_is_left(tmp_path, compiled):
    with pytest.raises(xlapass.XlapassError):
        compiled(lambda x: jax.pure_callback(np.sin, x, x), X).save(tmp_path / "model.tflite")
    artifact = compiled(jnp.sin, X)
    with pytest.raises(UsageError):
        artifact.save(tmp_path / "nowhere" / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_missing_engines_say_what_to_install(monkeypatch):
    absent = {name: dataclasses.replace(engine, module="no_such_module") for name, engine in engines.ENGINES.items()}
    monkeypatch.setattr(engines, "ENGINES", absent)
    monkeypatch.setattr(engines, "LITERT", absent["litert"])
    for name, extra in (("auto", "tflite"), ("litert", "tflite"), ("tensorflow", "tensorflow")):
        with pytest.raises(MissingDependencyError) as caught:
            engines.choose(name, "")
        assert caught.value.hint == f"pip install xlapass[{extra}]"


def test_an_interpreter_may_be_named_from_here(tmp_path, monkeypatch):
    interpreter(tmp_path, "exit 7")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CompileError, match="status 7"):
        emitted(lambda x: x + 1, X, python="./python")


def test_a_worker_starts_anew_after_a_failure():
    with Worker() as worker:
        for _ in range(2):
            with pytest.raises(WorkerFailure, match="ModuleNotFoundError"):
                worker.call({"job": "no_such_job"}, lambda folder: None, lambda folder, reply: None)
        (home,) = [Path(worker._home.name)]
        assert home.exists()
    assert not home.exists()


def test_blame_is_found_inside_of_loops():
    def fn(x):
        return lax.fori_loop(0, 3, lambda i, c: jnp.tan(jnp.sin(c)), x * 2)

    program = xlapass.trace(fn, X)
    culprit = find_culprit(program, lambda part: "tan" in str(part.jaxpr).replace("tanh", ""))
    assert culprit.operation == "tan"
    assert "test_failures.py" in culprit.where
    assert find_culprit(program, lambda part: False) is None


def test_names_are_checked():
    with pytest.raises(UsageError, match="2 input names for 1 inputs"):
        emitted(lambda x: x + 1, X, input_names=("a", "b"))
    with pytest.raises(UsageError, match="one name"):
        emitted(lambda x: (x + 1, x), X, output_names=("a", "a"))


def test_types_that_no_file_has_are_refused():
    program = xlapass.trace(lambda x: x * 2, np.ones(3, jnp.bfloat16))
    with pytest.raises(UnsupportedError, match=r"mul reads the input 'x', which is bfloat16"):
        with_edges(program)


def test_a_closed_worker_has_ended():
    with Worker() as worker:
        with pytest.raises(WorkerFailure):
            worker.call({"job": "no_such_job"}, lambda folder: None, lambda folder, reply: None)
        pid = worker._process.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
