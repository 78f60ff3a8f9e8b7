"""``xlapass bench MODEL``: jax.jit and a pipeline, run in turns in one process."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich.table import Table

from ..core.driver import run_plan
from ..core.errors import CompileError, UsageError, XlapassError
from ..core.files import write_atomically
from ..core.program import Program
from .comparison import failure_text, reference_device
from .console import Terminal
from .request import read_report, require_not_the_model, require_writable
from .setup import form_warnings_shown, load_plugins, load_program, make_plan, project_settings

SAMPLE_S = 0.002
"""A sample runs the program as often as takes this long: shorter ones measure the clock."""

WARM_UP_RUNS = 3
"""Runs that are not counted: allocators and caches settle in them."""

MIN_PAIRS = 5
"""Pairs of samples that are measured whatever time they take."""

QUARTILES = (25, 50, 75)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Times of both, in pairs taken one after the other.

    Attributes:
      plain: seconds of one run of jax.jit, one for each pair.
      passes: seconds of one run of the pipeline's result, one for each pair.
      plain_compile, passes_compile: seconds until the first result.
    """

    plain: tuple[float, ...]
    passes: tuple[float, ...]
    plain_compile: float
    passes_compile: float

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Quartiles of the ratio of jax.jit's time to the pipeline's: above 1 the pipeline is faster."""
        return _quartiles([a / b for a, b in zip(self.plain, self.passes, strict=True)])

    def data(self) -> dict[str, Any]:
        """As JSON-able data: seconds, with lower quartile, median and upper quartile."""
        return {
            "pairs": len(self.plain),
            "ratio": self.ratio,
            "jax_jit_seconds": _quartiles(self.plain),
            "pipeline_seconds": _quartiles(self.passes),
            "jax_jit_compile_seconds": self.plain_compile,
            "pipeline_compile_seconds": self.passes_compile,
        }


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Measures and shows; returns the exit status."""
    kind, file = read_report(args.report)
    if file:
        require_writable(file)
        require_not_the_model(file, args.model)
    settings = project_settings(args)
    chosen = make_plan(args, settings, load_plugins(args, settings, terminal))
    program = load_program(args, terminal)
    program = program.replace(donated=(False,) * len(program.donated))  # the same arguments are used again and again
    numerics = args.numerics or settings.numerics
    with terminal.progress("compiling"), terminal.user_output(), form_warnings_shown(terminal):
        start = time.perf_counter()
        artifact = run_plan(chosen, program, numerics=numerics, verify="none")
        if obstacle := artifact.obstacle():
            raise UsageError(
                f"{program.name} cannot be measured here: {obstacle}", hint="choose another --pipeline or --device"
            )
        executable = artifact.executable()
        since = time.perf_counter() - start
        with jax.default_device(reference_device(chosen.target.platform)):
            terminal.say_progress(f"measuring for {args.seconds:g} s")
            measured = measure(program, executable, args.seconds, since)
    name = chosen.name or str(chosen.pipeline)
    if kind == "json":
        data = {"program": program.name, "pipeline": name, "target": chosen.target.name, **measured.data()}
        text = json.dumps(data, indent=2) + "\n"
        if file:
            write_atomically(file, text.encode())
        else:
            terminal.write(text)
    else:
        terminal.show(_table(f"{program.name} on {chosen.target.name}", name, measured))
        terminal.show(_verdict(measured))
    return 0


def measure(program: Program, executable: Callable[..., Any], seconds: float, prepared: float = 0.0) -> Measurement:
    """Measures jax.jit of ``program`` and ``executable`` on the program's example inputs, in turns.

    Args:
      program: before any pass, with example inputs.
      executable: takes the same arguments.
      seconds: how long to measure.
      prepared: seconds that the executable has cost already.

    Raises:
      CompileError: one of them cannot be compiled or run.
    """
    assert program.examples is not None
    arguments = jax.device_put(jax.tree_util.tree_unflatten(program.in_tree, program.examples))
    plain = jax.jit(_as_function(program))
    try:
        plain_compile, once = _warm_up(plain, arguments)
        passes_compile, once_passes = _warm_up(executable, arguments)
        repeats = max(1, round(SAMPLE_S / max(once, once_passes, 1e-7)))
        samples: tuple[list[float], list[float]] = ([], [])
        deadline = time.perf_counter() + seconds
        while len(samples[0]) < MIN_PAIRS or time.perf_counter() < deadline:
            order = (0, 1) if len(samples[0]) % 2 == 0 else (1, 0)
            for which in order:
                samples[which].append(_sample((plain, executable)[which], arguments, repeats))
    except XlapassError:
        raise
    except (Exception, SystemExit) as error:  # compilers, and callbacks of the user's, raise what they like
        raise CompileError(f"{program.name} could not be compiled or run: {failure_text(error)}") from error
    return Measurement(tuple(samples[0]), tuple(samples[1]), plain_compile, prepared + passes_compile)


def _as_function(program: Program) -> Callable[..., Any]:
    flat_function = program.flat_function

    def plain(*args: Any) -> Any:
        return jax.tree_util.tree_unflatten(program.out_tree, flat_function(*jax.tree_util.tree_leaves(args)))

    return plain


def _warm_up(function: Callable[..., Any], arguments: Any) -> tuple[float, float]:
    """Seconds to the first result, and of one run afterwards."""
    first = _sample(function, arguments, 1)
    return first, min(_sample(function, arguments, 1) for _ in range(WARM_UP_RUNS))


def _sample(function: Callable[..., Any], arguments: Any, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        result = function(*arguments)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / repeats


def _quartiles(values: Any) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, QUARTILES)
    return float(low), float(middle), float(high)


def _table(title: str, pipeline: str, measured: Measurement) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("median ms", "quartiles", "first result s"):
        table.add_column(heading, justify="right")
    rows = (
        ("jax.jit", measured.plain, measured.plain_compile),
        (pipeline, measured.passes, measured.passes_compile),
    )
    for name, times, compile_seconds in rows:
        low, middle, high = (1e3 * t for t in _quartiles(times))
        table.add_row(name, f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{compile_seconds:.2f}")
    return table


def _verdict(measured: Measurement) -> str:
    low, middle, high = measured.ratio
    return f"{middle:.2f}x as fast as jax.jit (quartiles {low:.2f} to {high:.2f}, {len(measured.plain)} pairs)"
