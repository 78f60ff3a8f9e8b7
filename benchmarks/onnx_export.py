"""Measures the export of GPT-2 with twelve layers: seconds after imports, and memory as a multiple of the weights.

    python benchmarks/onnx_export.py
    python benchmarks/onnx_export.py --model vit-b16 --verify

The weights are closed over. Time is taken from the call of `xlapass.compile` until the file is written, on the clock
and of the processor (less noisy on a busy machine); memory is the peak of the resident set beyond what was there
before, which holds the weights already.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import xlapass
from flax import nnx
from onnx_models import MODELS, build
from xlapass.backends.onnx.backend import OnnxBackend

#: How often the resident set is looked at, in seconds.
_INTERVAL = 0.01


class Peak(threading.Thread):
    """The largest resident set while it runs, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self._done, self._process = 0, threading.Event(), psutil.Process()

    def run(self) -> None:
        while not self._done.wait(_INTERVAL):
            self.bytes = max(self.bytes, self._process.memory_info().rss)

    def stop(self) -> int:
        self._done.set()
        self.join()
        return self.bytes


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="gpt2-prefill")
    parser.add_argument("--verify", action="store_true", help="with the run against JAX that users get by default")
    args = parser.parse_args()
    model, inputs = build(args.model)
    weights = sum(np.asarray(leaf).nbytes for leaf in _leaves(model))
    xlapass.compile(lambda x: -x, np.ones(2, np.float32), pipeline="onnx")  # imports what is imported when used
    process = psutil.Process()
    before, peak = process.memory_info().rss, Peak()
    peak.start()
    with tempfile.TemporaryDirectory() as folder:
        start, used = time.perf_counter(), time.process_time()
        artifact = xlapass.compile(model, *inputs, pipeline="onnx", backend=OnnxBackend(verify=args.verify))
        artifact.save(Path(folder) / "model.onnx")
        seconds, used = time.perf_counter() - start, time.process_time() - used
        size = (Path(folder) / "model.onnx").stat().st_size
    more = peak.stop() - before
    print(f"{args.model}: {weights / 2**20:.0f} MiB of weights, a file of {size / 2**20:.0f} MiB")
    print(f"export: {seconds:.2f} s on the clock, {used:.2f} s of the processor")
    print(f"memory: {more / 2**20:.0f} MiB more at the peak, {more / weights:.2f} times the weights")
    print(f"largest resident set of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")
    return 0


def _leaves(model: object) -> list[object]:
    import jax

    return list(jax.tree_util.tree_leaves(nnx.state(model)))


if __name__ == "__main__":
    sys.exit(main())
