"""Runs a folder of ONNX export cases through xlapass, with the backend alone and with the whole ``onnx`` pipeline.

    python benchmarks/onnx_conformance.py FOLDER
    python benchmarks/onnx_conformance.py FOLDER --through pipeline --sets ordinary --filter norm

FOLDER holds the program ``onnx_cases.py``, which collects cases (functions with example inputs), calls an adapter
``export(fn, example_args, path, dynamic_shapes=None)``, runs the file under ONNX Runtime and compares with JAX. The
functions `backend` and `pipeline` of this module are such adapters. The interpreter needs what the cases are written
with (Flax, Equinox, and the package that the cases come from) besides xlapass.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: Name of a set -> the arguments that choose it.
SETS = {"cases": [], "dynamic": ["--dynamic"], "ordinary": ["--source", "ordinary"]}
THROUGH = ("backend", "pipeline")

#: What makes a run of cases fail beside a wrong result.
PASSED, WRONG = "pass", "mismatch"


def _specs(example_args: Sequence[Any], dynamic_shapes: Sequence[Any] | None) -> list[Any]:
    """The arguments, or their types with a symbolic dimension for every name."""
    import jax

    if dynamic_shapes is None:
        return list(example_args)
    scope = jax.export.SymbolicScope()

    def dimension(d: Any) -> Any:
        return jax.export.symbolic_shape(d, scope=scope)[0] if isinstance(d, str) else d

    pairs = zip(example_args, dynamic_shapes, strict=True)
    return [jax.ShapeDtypeStruct(tuple(dimension(d) for d in shape), array.dtype) for array, shape in pairs]


def backend(fn: Callable[..., Any], example_args: Sequence[Any], path: str, dynamic_shapes: Any = None) -> None:
    """Adapter: only the lowering, without a pass and without a check."""
    import jax
    import onnx_ir as ir
    from xlapass.backends.onnx.export import export

    ir.save(export(jax.make_jaxpr(fn)(*_specs(example_args, dynamic_shapes))), path)


def pipeline(fn: Callable[..., Any], example_args: Sequence[Any], path: str, dynamic_shapes: Any = None) -> None:
    """Adapter: what users call, with all passes and all checks."""
    import xlapass

    xlapass.compile(fn, *_specs(example_args, dynamic_shapes), pipeline="onnx").save(path)


def run(folder: Path, chosen: str, through: str, out: Path, extra: Sequence[str]) -> list[dict[str, Any]]:
    """The verdicts of one set through one adapter."""
    result = out / f"{chosen}-{through}.json"
    command = [
        *(sys.executable, str(folder / "onnx_cases.py"), "run", "--out", str(result)),
        *("--adapter", f"{Path(__file__).stem}:{through}", *SETS[chosen], *extra),
    ]
    subprocess.run(command, cwd=Path(__file__).parent, check=True, stdout=subprocess.DEVNULL)
    cases = json.loads(result.read_text())
    return list(cases["results"] if isinstance(cases, dict) else cases)


def main() -> int:
    """Exit status 1 when a case fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="the folder with onnx_cases.py")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--through", nargs="+", choices=THROUGH, default=THROUGH)
    parser.add_argument("--out", type=Path, default=Path("build/onnx-cases"), help="folder for the verdicts")
    parser.add_argument("--filter", help="only cases whose name matches this regular expression")
    parser.add_argument("--timeout", default="120", help="seconds that a case may take")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    extra = ["--timeout", args.timeout, *(["--filter", args.filter] if args.filter else [])]
    failed = 0
    for chosen in args.sets:
        for through in args.through:
            results = run(args.folder.resolve(), chosen, through, args.out.resolve(), extra)
            counts = Counter(r["verdict"] for r in results)
            print(f"{chosen:9} {through:9} {counts[PASSED]}/{len(results)}  {dict(counts)}", flush=True)
            for r in results:
                if r["verdict"] != PASSED:
                    failed += 1
                    print(f"  {r['verdict']}: {r['key']}: {r.get('why', '')}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
