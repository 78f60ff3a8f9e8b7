"""Measures the model zoo: `jax.jit`, `xlapass.jit` and other runtimes, in alternation within one process.

    make bench
    python benchmarks/bench.py --models conv,gpt2-decode --layout both --seconds 20

Writes a table, `bench.json` and `bench.png` into the folder given by `--out`.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import zoo
from contenders import CONTROL, REFERENCE, Contender, every_contender, thread_count
from measure import Run, alternate, largest_error, quartiles
from report import Measurement, Quartiles, Results, draw, notes, table, write_json
from rich.console import Console

# Float32 rounding, accumulated over the depth of these networks.
TOLERANCE = 1e-4


NOISE_FACTOR = 4
"""Two correct programs may differ by this many times what `jax.jit` differs from itself with XLA's fusion off: in a
training step, where a ReLU that was rounded to the other side changes whole gradients, that is more than rounding."""

UNFUSED = {"xla_disable_hlo_passes": "fusion,cpu-instruction-fusion"}


@dataclasses.dataclass(frozen=True)
class Built:
    """One variant of a contender, ready to be timed."""

    layout: str
    contender: str
    variant: str
    run: Run
    error: float
    noise: float
    build_seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 0 when every output agreed with the reference's, else 1."""
    options = parser().parse_args(arguments)
    console, progress = Console(width=None if sys.stdout.isatty() else 140), Console(stderr=True)
    conditions = machine()
    chosen, absent = present(choose_contenders(options.contenders))
    measurements: list[Measurement] = []
    layout_ratio: dict[str, dict[str, Quartiles]] = {}
    names = choose_models(options.models)
    for index, name in enumerate(names):
        with progress.status(f"{name} ({index + 1} of {len(names)})"):
            measured, ratios = measure_model(name, chosen, options)
        measurements += measured
        for contender, ratio in ratios.items():
            layout_ratio.setdefault(contender, {})[name] = ratio
        jax.clear_caches()
        gc.collect()
    results = Results(
        machine=conditions,
        settings=vars(options) | {"out": str(options.out)},
        reference=REFERENCE,
        contenders={contender.name: contender.about for contender in chosen},
        absent=absent,
        measurements=tuple(measurements),
        layout_ratio=layout_ratio,
        tolerance=TOLERANCE,
    )
    write(results, options.out, console)
    return 0 if all(results.agrees(m) for m in measurements if m.failure is None) else 1


def parser() -> argparse.ArgumentParser:
    contenders = ", ".join(contender.name for contender in every_contender())
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--models", default="all", help=f"names or families, with commas: {', '.join(zoo.names())}")
    made.add_argument("--contenders", default="all", help=f"names, with commas, or all but {CONTROL!r}: {contenders}")
    made.add_argument("--layout", choices=("nhwc", "nchw", "both"), default="nhwc", help="of the convolutional models")
    made.add_argument("--seconds", type=float, default=20.0, help="time to measure each model, after building it")
    made.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for the table, JSON and picture")
    return made


def choose_models(text: str) -> list[str]:
    """Names of models, in the order of the zoo, from names and families."""
    wanted = {part.strip() for part in text.split(",")}
    if "all" in wanted:
        return list(zoo.names())
    families = {name: zoo.family(name) for name in zoo.names()}
    if unknown := wanted - set(families) - set(families.values()):
        known = ", ".join([*families, *dict.fromkeys(families.values())])
        raise SystemExit(f"no model or family {sorted(unknown)[0]!r}; there are: {known}")
    return [name for name, family in families.items() if name in wanted or family in wanted]


def choose_contenders(text: str) -> list[Contender]:
    """Contenders by name; the reference always takes part."""
    every = every_contender()
    wanted = {part.strip() for part in text.split(",")}
    if "all" in wanted:
        return [contender for contender in every if contender.name != CONTROL or CONTROL in wanted]
    if unknown := wanted - {contender.name for contender in every}:
        known = ", ".join(contender.name for contender in every)
        raise SystemExit(f"no contender {sorted(unknown)[0]!r}; there are: {known}")
    return [contender for contender in every if contender.name in wanted | {REFERENCE}]


def present(contenders: Sequence[Contender]) -> tuple[list[Contender], dict[str, str]]:
    """Those that can take part, and for the others the reason why not."""
    reasons = {contender.name: contender.absent() for contender in contenders}
    chosen = [contender for contender in contenders if reasons[contender.name] is None]
    return chosen, {name: reason for name, reason in reasons.items() if reason is not None}


def measure_model(
    name: str, contenders: Sequence[Contender], options: argparse.Namespace
) -> tuple[list[Measurement], dict[str, Quartiles]]:
    """Measures a model in the layouts asked for, and compares each contender's layouts where both are."""
    asked = ("nhwc", "nchw") if options.layout == "both" else (options.layout,)
    layouts = [layout for layout in asked if layout in zoo.layouts(name)] or ["nhwc"]
    built: list[Built] = []
    measured: list[Measurement] = []
    for layout in layouts:
        ready, failed = build(name, layout, contenders)
        built += ready
        measured += failed
    times = alternate([entry.run for entry in built], options.seconds) if built else np.empty((0, 0))
    fastest = fastest_variants(built, times)
    for (layout, contender), index in fastest.items():
        reference = times[fastest[layout, REFERENCE]]
        measured.append(
            Measurement(
                name,
                zoo.family(name),
                layout,
                contender,
                built[index].variant,
                milliseconds=quartiles(1e3 * times[index]),
                ratio=quartiles(reference / times[index]),
                error=built[index].error,
                noise=built[index].noise,
                build_seconds=built[index].build_seconds,
            )
        )
    in_both = [contender for layout, contender in fastest if layout == "nchw" and ("nhwc", contender) in fastest]
    ratios = {name: quartiles(times[fastest["nhwc", name]] / times[fastest["nchw", name]]) for name in in_both}
    return measured, ratios


def fastest_variants(built: Sequence[Built], times: np.ndarray) -> dict[tuple[str, str], int]:
    """For each layout and contender, the index of the variant with the lowest median time."""
    fastest: dict[tuple[str, str], int] = {}
    for index, entry in enumerate(built):
        key = (entry.layout, entry.contender)
        if key not in fastest or np.median(times[index]) < np.median(times[fastest[key]]):
            fastest[key] = index
    return fastest


def build(name: str, layout: str, contenders: Sequence[Contender]) -> tuple[list[Built], list[Measurement]]:
    """Every variant of every contender, run once and compared with the reference's first one."""
    model = load(name, layout)
    expected: list[Any] | None = None
    noise = 0.0
    built: list[Built] = []
    failures: list[Measurement] = []
    for contender in contenders:
        try:
            start = time.perf_counter()
            for variant, run in contender.variants(model).items():
                outputs = run()
                seconds = time.perf_counter() - start
                if expected is None:
                    expected = [np.asarray(output) for output in outputs]
                    noise = own_noise(model, expected)
                error = largest_error(outputs, expected)
                built.append(Built(layout, contender.name, variant, run, error, noise, seconds))
                start = time.perf_counter()
        # Other people's compilers and runtimes fail in their own ways; one that fails must not end the comparison.
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            failures.append(Measurement(name, model.family, layout, contender.name, failure=reason))
            if contender.name == REFERENCE:
                return [], failures
    return built, failures


def own_noise(model: zoo.ZooModel, expected: Sequence[Any]) -> float:
    """For a training step, how far `jax.jit` is from itself when XLA rounds every operation by itself; else 0."""
    if model.family != "training":
        return 0.0
    unfused = jax.jit(model.fn, compiler_options=UNFUSED)(model.params, *model.inputs)
    return NOISE_FACTOR * largest_error(jax.tree.leaves(unfused), expected)


def load(name: str, layout: str) -> zoo.ZooModel:
    return zoo.load(name, layout=layout) if len(zoo.layouts(name)) > 1 else zoo.load(name)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "processor": processor(),
        "cores": thread_count(),
        "load": os.getloadavg()[0],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def processor() -> str:
    """The processor's name as Linux tells it, else what Python knows."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write(results: Results, folder: Path, console: Console) -> None:
    """Shows the table and writes the files."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "bench.txt").open("w") as file:
        for output in (console, Console(file=file, width=140)):
            output.print(table(results))
            output.print(notes(results), highlight=False, markup=False, soft_wrap=True)
    write_json(results, folder / "bench.json")
    draw(results, folder / "bench.png")
    console.print(f"written: {folder}/bench.txt, bench.json, bench.png")


if __name__ == "__main__":
    sys.exit(main())
