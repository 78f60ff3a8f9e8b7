"""TFLite files of zoo models by the route that needs no xlapass: jax2tf, then TensorFlow's converter.

    .venv-tensorflow/bin/python benchmarks/plain_tflite.py FOLDER MODEL [MODEL ...]

Writes ``FOLDER/MODEL.tflite``, or ``FOLDER/MODEL.txt`` with what went wrong. ``benchmarks/tflite.py`` calls it.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import jax
import tensorflow as tf
import zoo
from jax.experimental import jax2tf


def convert(model: zoo.ZooModel) -> bytes:
    """What the documentation of jax2tf shows."""
    call = tf.function(jax2tf.convert(model.bind()), autograph=False, jit_compile=True)
    specs = [tf.TensorSpec(x.shape, tf.as_dtype(x.dtype)) for x in jax.tree.leaves(model.inputs)]
    flat = tf.function(lambda *leaves: call(*jax.tree.unflatten(jax.tree.structure(model.inputs), leaves)))
    concrete = flat.get_concrete_function(*specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()


def main(folder: Path, names: list[str]) -> None:
    """Converts every model; one that fails does not stop the others."""
    for name in names:
        try:
            (folder / f"{name}.tflite").write_bytes(convert(zoo.load(name)))
        except Exception:  # whatever the route raises is its result
            (folder / f"{name}.txt").write_text(traceback.format_exc())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
