"""Measures the pipeline `cpu-bf16` against `cpu`: an encoder of six layers, and the model zoo.

    python benchmarks/mixed_precision.py
    python benchmarks/mixed_precision.py --models encoder,bert-base --seconds 20

For each model: the median time in float32, the median of the ratios of neighbouring runs (above 1 is faster) with its
quartiles, the same of the CPU time of the process, which other work on the machine disturbs less, how far the outputs
are from those of float32, and how many products went into bfloat16. Where none did, both pipelines give the same
program, and there is nothing to measure. Writes a table and JSON into the folder `--out`.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import xlapass
import zoo
from contenders import function_and_arguments
from measure import Run, geometric_mean, quartiles
from rich.console import Console
from rich.table import Table
from zoo.model import ZooModel, draw_params, normal_input
from zoo.vit import EncoderBlock

PIPELINES = ("cpu", "cpu-bf16")
LEAST_GAIN = 1.3
"""Of the encoder."""

MOST_LOSS = 0.95
"""So far may the CPU time stray from 1 by chance, on a busy machine."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One model: seconds in float32; ratios of float32 to bfloat16 as lower quartile, median, upper quartile.

    None where both pipelines give the same program.
    """

    model: str
    seconds: float | None
    gain: tuple[float, float, float] | None
    cpu_gain: tuple[float, float, float] | None
    decibels: float | None
    products: int
    of: int


class Encoder(nn.Module):
    """A transformer encoder without embedding: `[batch, length, width]` to the same."""

    depth: int = 6
    heads: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.depth):
            x = EncoderBlock(self.heads)(x)
        return nn.LayerNorm()(x)


def encoder(batch: int = 1, length: int = 128, width: int = 512) -> ZooModel:
    """Six layers of 512 channels, 8 heads and an inner width of 2048."""
    inputs = (normal_input(batch, length, width),)
    return ZooModel("encoder", "transformer", Encoder().apply, draw_params(Encoder(), inputs), inputs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 0 when the encoder gains enough and no model loses, else 1."""
    options = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    every = ["encoder", *zoo.names()]
    names = every if options.models == "all" else options.models.split(",")
    rows = []
    for name in names:
        rows.append(measure(encoder() if name == "encoder" else zoo.load(name), options.seconds))
        console.print(f"{name}: {_times(rows[-1].gain)}", highlight=False)
        jax.clear_caches()
        gc.collect()
    write(rows, options.out, console)
    gains = {row.model: row.cpu_gain[1] for row in rows if row.cpu_gain is not None}
    return 1 if min(gains.values(), default=1.0) < MOST_LOSS or gains.get("encoder", LEAST_GAIN) < LEAST_GAIN else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--models", default="all", help=f"with commas: encoder, {', '.join(zoo.names())}")
    made.add_argument("--seconds", type=float, default=10.0, help="time to measure each model, after building it")
    made.add_argument("--out", type=Path, default=Path("build/mixed_precision"), help="folder for the table and JSON")
    return made


def measure(model: ZooModel, seconds: float) -> Row:
    """Runs the results of both pipelines in alternation, unless they are the same program."""
    function, arguments = function_and_arguments(model)
    program = xlapass.trace(function, *arguments)
    wide, _ = _optimized(program, "cpu")
    small, details = _optimized(program, "cpu-bf16")
    products = details.get("small", {}).get("dot_general", 0)
    total = products + sum(details.get("kept", {}).get("dot_general", {}).values())
    if wide.fingerprint == small.fingerprint:
        return Row(model.name, None, None, None, None, products, total)
    runs = [_compiled(function, arguments, pipeline) for pipeline in PIPELINES]
    expected, found = ([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(run())] for run in runs)
    wall, cpu = _alternate(runs, seconds)
    return Row(
        model.name,
        float(np.median(wall[0])),
        quartiles(wall[0] / wall[1]),
        quartiles(cpu[0] / cpu[1]),
        min(_decibels(a, b) for a, b in zip(expected, found, strict=True)),
        products,
        total,
    )


def _optimized(program: xlapass.Program, pipeline: str) -> tuple[xlapass.Program, dict[str, Any]]:
    """The program after a pipeline, and what mixed precision had to say."""
    report = xlapass.Report()
    chosen = xlapass.plan(pipeline)
    manager = xlapass.PassManager(chosen.pipeline, target=chosen.target, instruments=[report], pipeline_name=pipeline)
    after = manager.run(program)
    return after, next((dict(r.details) for r in report.records if r.pass_ == "mixed-precision"), {})


def _compiled(function: Any, arguments: Sequence[Any], pipeline: str) -> Run:
    compiled = xlapass.jit(function, pipeline=pipeline, numerics="lossy")
    return lambda: jax.block_until_ready(compiled(*arguments))


def _alternate(runs: Sequence[Run], seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Wall and CPU times, `[runs, rounds]`; the order changes from round to round."""
    for run in runs:
        run()
    samples: list[list[tuple[float, float]]] = []
    deadline = time.perf_counter() + seconds
    while len(samples) < 9 or time.perf_counter() < deadline:
        order = range(len(runs)) if len(samples) % 2 else reversed(range(len(runs)))
        one = {index: _timed(runs[index]) for index in order}
        samples.append([one[index] for index in range(len(runs))])
    times = np.array(samples)
    return times[:, :, 0].T, times[:, :, 1].T


def _timed(run: Run) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _decibels(expected: np.ndarray, found: np.ndarray) -> float:
    """Signal over noise."""
    noise = float(np.sum((expected - found) ** 2))
    signal = float(np.sum(expected**2))
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))


def _times(gain: tuple[float, float, float] | None) -> str:
    return "same program" if gain is None else f"{gain[1]:.2f}x"


def write(rows: Sequence[Row], folder: Path, console: Console) -> None:
    """Shows the table and writes the files."""
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(title="cpu-bf16 against cpu", title_justify="left")
    table.add_column("model")
    for heading in ("float32 ms", "gain", "quartiles", "gain in CPU time", "dB", "products in bfloat16"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model,
            "" if row.seconds is None else f"{1e3 * row.seconds:.1f}",
            _times(row.gain),
            "" if row.gain is None else f"{row.gain[0]:.2f}-{row.gain[2]:.2f}",
            _times(row.cpu_gain),
            "" if row.decibels is None else f"{row.decibels:.0f}",
            f"{row.products} of {row.of}",
        )
    with (folder / "mixed_precision.txt").open("w") as file:
        for output in (console, Console(file=file, width=120)):
            output.print(table)
            gains = [1.0 if row.gain is None else row.gain[1] for row in rows]
            output.print(f"geometric mean: {geometric_mean(gains):.2f}x", highlight=False)
    content = json.dumps([dataclasses.asdict(row) for row in rows], indent=1)
    (folder / "mixed_precision.json").write_text(content + "\n")


if __name__ == "__main__":
    sys.exit(main())
