"""Converts and runs the functions of a file, and compares them with JAX: how many of them does TFLite run right?

    python benchmarks/tflite_cases.py CASES.py [--engine tensorflow] [--python PATH] [NAME ...]

The file defines ``C``: names to ``(function, example arguments, wants 64-bit types)``. Each function goes through the
pipeline ``tflite`` and its file through the LiteRT interpreter; results are equal when they have the shape and type of
JAX's and every element is within the tolerance, NaN where JAX has NaN.
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xlapass
from xlapass.backends.tflite.backend import TfliteBackend
from xlapass.core.errors import XlapassError

TOLERANCE = 2e-3


def outcome(function: Any, arguments: Any, backend: TfliteBackend) -> tuple[str, str]:
    """``ok``, ``refused`` or ``wrong``, and the reason."""
    want = jax.tree.leaves(jax.jit(function)(*arguments))
    try:
        artifact = xlapass.compile(function, *arguments, pipeline="tflite", backend=backend)
    except XlapassError as error:
        return "refused", str(error)
    got = jax.tree.leaves(artifact.executable()(*arguments))
    for number, (expected, found) in enumerate(zip(want, got, strict=True)):
        problem = difference(np.asarray(expected), np.asarray(found))
        if problem is not None:
            return "wrong", f"output {number}: {problem}"
    return "ok", ""


def difference(want: np.ndarray, got: np.ndarray) -> str | None:
    """What is different, or None."""
    if (want.shape, want.dtype) != (got.shape, got.dtype):
        return f"{got.dtype}{list(got.shape)} in place of {want.dtype}{list(want.shape)}"
    if not want.size:
        return None
    if want.dtype.kind not in "biu":
        wide = np.complex128 if want.dtype.kind == "c" else np.float64
        equal = np.isclose(got.astype(wide), want.astype(wide), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    else:
        equal = got == want
    if equal.all():
        return None
    place = tuple(int(k) for k in np.argwhere(~equal)[0])
    return f"{got[place]} in place of {want[place]} at {place}"


def load(path: Path) -> Mapping[str, Any]:
    """The cases of a file."""
    spec = importlib.util.spec_from_file_location("cases", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.C


def main() -> int:
    """Prints a line for every function that is not equal, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="Python file that defines C")
    parser.add_argument("names", nargs="*", help="functions to run; default: all")
    parser.add_argument("--engine", default="litert", choices=("litert", "tensorflow"))
    parser.add_argument("--python", default="", help="interpreter of an environment that has the converter")
    options = parser.parse_args()
    backend = TfliteBackend(engine=options.engine, python=options.python)
    cases = load(options.file)
    counts: collections.Counter[str] = collections.Counter()
    for name in options.names or cases:
        function, arguments, wide = cases[name]
        with jax.enable_x64(wide):
            result, reason = outcome(function, arguments, backend)
        counts[result] += 1
        if result != "ok":
            print(f"{result:8} {name}: {' '.join(reason.split())[:300]}", flush=True)
    print(f"{counts['ok']} of {sum(counts.values())} equal, {counts['refused']} refused, {counts['wrong']} wrong")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
