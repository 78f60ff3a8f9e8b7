"""StableHLO to TFLite by TensorFlow's converter, fed by the operation ``XlaCallModule``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .serve import MODEL, MODULE

_CALL_MODULE_VERSION = 10
"""Of the calling convention of ``XlaCallModule``: the newest that TensorFlow 2.21 has."""


def run(folder: Path, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Converts the portable artifact in ``folder``; the model's inputs and outputs are ``x0...`` and ``y0...``.

    Args:
      folder: holds the module, and gets the model.
      request: ``input_types`` and ``output_types`` are pairs of dtype and shape, unknown sizes being None.

    Returns:
      ``version``: of TensorFlow.
    """
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    module = (folder / MODULE).read_bytes()
    results = [(tf.as_dtype(dtype), shape) for dtype, shape in request["output_types"]]

    def call(*inputs: Any) -> dict[str, Any]:
        outputs = xla.call_module(
            list(inputs),
            version=_CALL_MODULE_VERSION,
            module=module,
            Tout=[dtype for dtype, _ in results],
            Sout=[shape for _, shape in results],
            platforms=["CPU"],
        )
        return {f"y{number}": output for number, output in enumerate(outputs)}

    holder = tf.Module()
    specs = [
        tf.TensorSpec(shape, tf.as_dtype(dtype), name=f"x{number}")
        for number, (dtype, shape) in enumerate(request["input_types"])
    ]
    holder.call = tf.function(call, autograph=False, input_signature=specs)
    with tempfile.TemporaryDirectory(dir=folder) as saved:
        tf.saved_model.save(holder, saved, signatures=holder.call.get_concrete_function())
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        converter.canonicalizing_inf_as_min_max_float = False  # else -inf would become a finite number
        converter._experimental_unsafe_fuse_dynamic_shaped_broadcast = request["symbolic"]
        converter._experimental_strict_qdq = request["quantized"]
        (folder / MODEL).write_bytes(converter.convert())
    return {"version": tf.__version__}
