"""int8 TFLite files by TensorFlow's own quantization after training; ``benchmarks/quantization.py`` calls it.

    .venv-tensorflow/bin/python benchmarks/tensorflow_int8.py FOLDER SCHEME

Reads what the other benchmark put into the folder, the float model as StableHLO and the calibration data, and writes
``FOLDER/int8.tflite``. The scheme is ``static`` or ``dynamic``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

CALL_MODULE_VERSION = 10
"""Of the calling convention of ``XlaCallModule``."""


def convert(folder: Path, scheme: str) -> bytes:
    """What the documentation of TensorFlow shows: all of the default optimizations, and a representative data set."""
    module = (folder / "module.bin").read_bytes()
    types = json.loads((folder / "types.json").read_text())
    batches = np.load(folder / "batches.npz")
    inputs, outputs = ([(tf.as_dtype(dtype), shape) for dtype, shape in types[key]] for key in ("inputs", "outputs"))

    def call(*arrays: Any) -> dict[str, Any]:
        results = xla.call_module(
            list(arrays),
            version=CALL_MODULE_VERSION,
            module=module,
            Tout=[dtype for dtype, _ in outputs],
            Sout=[shape for _, shape in outputs],
            platforms=["CPU"],
        )
        return {f"y{number}": result for number, result in enumerate(results)}

    def representative() -> Iterator[dict[str, Any]]:
        for rows in zip(*(batches[f"x{number}"] for number in range(len(inputs))), strict=True):
            yield {f"x{number}": row for number, row in enumerate(rows)}

    holder = tf.Module()
    specs = [tf.TensorSpec(shape, dtype, name=f"x{number}") for number, (dtype, shape) in enumerate(inputs)]
    holder.call = tf.function(call, autograph=False, input_signature=specs)
    with tempfile.TemporaryDirectory(dir=folder) as saved:
        tf.saved_model.save(holder, saved, signatures=holder.call.get_concrete_function())
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if scheme == "static":
            converter.representative_dataset = representative
        return bytes(converter.convert())


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "int8.tflite").write_bytes(convert(place, sys.argv[2]))
