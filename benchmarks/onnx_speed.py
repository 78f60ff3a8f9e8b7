"""Compares the ONNX files of xlapass with those of jax2onnx: nodes, and time under ONNX Runtime.

    python benchmarks/onnx_speed.py --peer-python /path/to/venv/bin/python

jax2onnx may live in an environment of its own, whose interpreter exports its files first (it needs jax2onnx and Flax).
Then one process runs both files in turns, and reports medians of the ratios of neighbours in time. The networks are
those of ``onnx_models.py``, in the sizes in which they were published.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import alternate, geometric_mean, largest_error, quartiles
from onnx_models import MODELS, Inputs, build

#: Two exporters order sums differently; these networks are a hundred layers deep.
TOLERANCE = 1e-3


def export_ours(model: Callable[..., Any], inputs: Inputs, path: Path) -> None:
    """What users call, with all its checks."""
    import xlapass

    xlapass.compile(model, *inputs, pipeline="onnx").save(path)


def export_peer(model: Callable[..., Any], inputs: Inputs, path: Path) -> None:
    """jax2onnx with its defaults."""
    import jax
    from jax2onnx import to_onnx

    specs = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in inputs]
    to_onnx(model, specs, return_mode="file", output_path=str(path))


EXPORTERS = {"xlapass": export_ours, "jax2onnx": export_peer}


def export_all(exporter: str, names: Sequence[str], folder: Path) -> None:
    """Writes ``NAME.onnx`` for every model; one that fails leaves none, and says why."""
    for name in names:
        model, inputs = build(name)
        start = time.perf_counter()
        try:
            EXPORTERS[exporter](model, inputs, folder / f"{name}.onnx")
        except Exception as error:  # whatever an exporter raises: the other models still count
            print(f"{exporter}: {name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        else:
            print(f"{exporter}: {name}: exported in {time.perf_counter() - start:.1f} s", file=sys.stderr)


def count_nodes(path: Path) -> int:
    """Nodes of a file, those in bodies and functions included."""
    import onnx

    def count(nodes: Any) -> int:
        bodies = [a.g.node for node in nodes for a in node.attribute if a.HasField("g")]
        return len(nodes) + sum(map(count, bodies))

    model = onnx.load(str(path), load_external_data=False)
    return count(model.graph.node) + sum(count(function.node) for function in model.functions)


def session(path: Path, threads: int) -> Any:
    """A session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def compare(name: str, files: dict[str, Path], seconds: float, threads: int) -> dict[str, Any]:
    """Times, nodes and agreement of the files of one model."""
    model, inputs = build(name)
    expected = [np.asarray(model(*inputs))]
    runs, row = [], {"model": name}
    for exporter, path in list(files.items()):
        try:
            made = session(path, threads)
        except Exception as error:  # the runtime's own exceptions: a file that it does not load takes no part
            if exporter == "xlapass":
                raise
            print(f"{exporter}: {name}: {str(error)[:200]}", file=sys.stderr)
            del files[exporter]
            continue
        feed = {meta.name: array for meta, array in zip(made.get_inputs(), inputs, strict=True)}
        runs.append(functools.partial(made.run, None, feed))
        row[exporter] = {"nodes": count_nodes(path), "error": largest_error(runs[-1](), expected)}
    times = alternate(runs, seconds)
    for exporter, samples in zip(files, times, strict=True):
        row[exporter]["milliseconds"] = [1e3 * t for t in quartiles(samples)]
    if len(files) == 2:
        row["speedup"] = quartiles(times[1] / times[0])
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| model | nodes | of jax2onnx | ms | of jax2onnx | faster by |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        ours, peer = row["xlapass"], row.get("jax2onnx")
        cells = [ours["nodes"], peer["nodes"] if peer else "fails", f"{ours['milliseconds'][1]:.2f}"]
        if peer:
            low, middle, high = row["speedup"]
            cells += [f"{peer['milliseconds'][1]:.2f}", f"{middle:.2f}x ({low:.2f} to {high:.2f})"]
        else:
            cells += ["", ""]
        lines.append("| " + " | ".join(map(str, (row["model"], *cells))) + " |")
    ratios = [row["speedup"][1] for row in rows if "speedup" in row]
    if ratios:
        lines.append(f"\nGeometric mean over {len(ratios)} models: {geometric_mean(ratios):.2f}x")
    return "\n".join(lines)


def measure(args: argparse.Namespace) -> int:
    """Exports with both, compares; 1 when a file of xlapass computes something else than JAX."""
    rows = []
    with tempfile.TemporaryDirectory(dir=args.keep) as temporary:
        folders = {exporter: Path(args.keep or temporary) / exporter for exporter in EXPORTERS}
        for exporter, folder in folders.items():
            folder.mkdir(exist_ok=True)
            interpreter = args.peer_python if exporter == "jax2onnx" else sys.executable
            missing = [name for name in args.models if not (args.keep and (folder / f"{name}.onnx").exists())]
            if missing and interpreter:
                command = [interpreter, __file__, "--models", *missing, "--export", exporter, str(folder)]
                subprocess.run(command, check=True)
        for name in args.models:
            files = {exporter: folder / f"{name}.onnx" for exporter, folder in folders.items()}
            present = {exporter: path for exporter, path in files.items() if path.exists()}
            rows.append(compare(name, present, args.seconds, args.threads))
            print(table(rows[-1:]).splitlines()[2], file=sys.stderr)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    wrong = [row["model"] for row in rows if row["xlapass"]["error"] > TOLERANCE]
    for name in wrong:
        print(f"{name}: the outputs are not JAX's", file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--peer-python", help="interpreter of an environment with jax2onnx; none measures xlapass alone"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="for each model")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", type=Path, help="keep the files in this folder, and use those that are there")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument(
        "--export", nargs=2, metavar=("EXPORTER", "FOLDER"), help="only write the files of one exporter"
    )
    args = parser.parse_args()
    if args.export:
        export_all(args.export[0], args.models, Path(args.export[1]))
        return 0
    return measure(args)


if __name__ == "__main__":
    sys.exit(main())
