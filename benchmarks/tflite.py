"""Measures TFLite files of the model zoo: xlapass's, and those of the plain route by jax2tf and TensorFlow's converter.

    make tensorflow
    python benchmarks/tflite.py --models conv,vit-s16 --seconds 20

All files of a model run in LiteRT with XNNPACK, in turns within this process. The files of the plain route are made by
the interpreter of an environment with TensorFlow, and kept in the folder given by ``--files`` for the next time. Prints
a table: medians, and the ratio of the plain file's time to ours in pairs, above 1 where ours is faster.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xlapass
import zoo
from bench import choose_models
from contenders import flat_inputs
from measure import Run, alternate, geometric_mean, quartiles
from rich.console import Console
from rich.table import Table
from xlapass.backends.tflite.backend import TfliteBackend
from xlapass.backends.tflite.report import operation_counts

HERE = Path(__file__).parent
PLAIN = "jax2tf"
OURS = "xlapass"

TOLERANCE = 1e-3
"""Largest difference of two files' outputs, relative to the largest value: the rounding of a hundred layers."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one model.

    Attributes:
      model: its name.
      milliseconds: median time of one run, by file.
      ratio: quartiles of the plain file's time over ours.
      operations: how many the file has, by file.
      note: what else there is to say.
    """

    model: str
    milliseconds: dict[str, float]
    ratio: tuple[float, float, float] | None
    operations: dict[str, int]
    note: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 0 when the files of each model agree."""
    options = parser().parse_args(arguments)
    options.files.mkdir(parents=True, exist_ok=True)
    names = [name for name in choose_models(options.models) if zoo.family(name) != "training"]
    make_plain_files(names, options)
    rows = []
    for name in names:
        rows.append(measure_model(name, options))
        print(f"{rows[-1].model}: {rows[-1].ratio} {rows[-1].note}", file=sys.stderr)
        jax.clear_caches()
        gc.collect()
    Console(width=100).print(table(rows, options))
    return 0 if not any("differ" in row.note for row in rows) else 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--models", default="all", help=f"names or families, with commas: {', '.join(zoo.names())}")
    made.add_argument("--seconds", type=float, default=10.0, help="time to measure each model")
    made.add_argument("--threads", type=int, default=1, help="threads of the interpreter")
    made.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a machine with other work")
    made.add_argument("--engine", choices=("litert", "tensorflow"), default="litert", help="of xlapass's files")
    made.add_argument("--python", default=str(HERE.parent / ".venv-tensorflow/bin/python"), help="has TensorFlow")
    made.add_argument("--files", type=Path, default=Path("build/tflite"), help="where the plain route's files are kept")
    return made


def make_plain_files(names: Sequence[str], options: Any) -> None:
    """Those that are not there yet."""
    missing = [n for n in names if not any((options.files / f"{n}{s}").exists() for s in (".tflite", ".txt"))]
    if missing:
        command = [options.python, str(HERE / "plain_tflite.py"), str(options.files), *missing]
        subprocess.run(command, check=False, stdout=sys.stderr)  # one that dies leaves the files it has made


def measure_model(name: str, options: Any) -> Row:
    """One model: makes our file, compares the outputs, and times both."""
    model = zoo.load(name)
    python = options.python if options.engine == "tensorflow" else ""
    backend = TfliteBackend(engine=options.engine, python=python)
    files = {OURS: xlapass.compile(model.bind(), *model.inputs, pipeline="tflite", backend=backend).model}
    plain, note = options.files / f"{name}.tflite", ""
    if plain.exists():
        files[PLAIN] = plain.read_bytes()
    else:
        note = "the plain route has no file"
    inputs = flat_inputs(model)
    runs = {what: runner(content, inputs, options.threads) for what, content in files.items()}
    if PLAIN in runs and not agree(runs[OURS](), runs[PLAIN]()):
        note = "the outputs of the files differ"
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    times = dict(zip(runs, alternate(list(runs.values()), options.seconds, clock), strict=True))
    medians = {what: 1e3 * float(np.median(t)) for what, t in times.items()}
    ratio = quartiles(times[PLAIN] / times[OURS]) if PLAIN in times else None
    return Row(name, medians, ratio, {what: operation_counts(content).total() for what, content in files.items()}, note)


def runner(content: bytes, inputs: list[np.ndarray], threads: int) -> Run:
    """Runs a file once; its inputs stay where they are."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    outputs = interpreter.get_output_details()

    def run() -> list[np.ndarray]:
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in outputs]

    return run


def agree(ours: list[np.ndarray], plain: list[np.ndarray]) -> bool:
    """Whether the outputs are the same numbers; the routes may order them differently."""
    if sorted(a.shape for a in ours) != sorted(b.shape for b in plain):
        return False
    largest = max(float(np.abs(a).max(initial=0)) for a in ours if a.dtype.kind == "f")
    return all(
        any(a.shape == b.shape and np.abs(a - b).max(initial=0) <= TOLERANCE * largest for b in plain) for a in ours
    )


def table(rows: Sequence[Row], options: Any) -> Table:
    """All models, and the geometric mean."""
    title = f"LiteRT, {options.threads} thread(s), engine {options.engine}, {options.clock} time"
    made = Table("model", title=title, title_justify="left")
    for heading in (f"{PLAIN} ms", f"{OURS} ms", "ratio", "quartiles", "operations"):
        made.add_column(heading, justify="right")
    for row in rows:
        plain = f"{row.milliseconds[PLAIN]:.2f}" if PLAIN in row.milliseconds else row.note
        counts = f"{row.operations.get(PLAIN, '-')} -> {row.operations[OURS]}"
        low, middle, high = row.ratio or (np.nan, np.nan, np.nan)
        shown = ("", "") if row.ratio is None else (f"{middle:.2f}", f"{low:.2f} to {high:.2f}")
        made.add_row(row.model, plain, f"{row.milliseconds[OURS]:.2f}", *shown, counts)
    ratios = [row.ratio[1] for row in rows if row.ratio is not None]
    if ratios:
        made.add_row("geometric mean", "", "", f"{geometric_mean(ratios):.2f}", "", "")
    return made


if __name__ == "__main__":
    sys.exit(main())
