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

    results = [(tf.as_dtype(dtype), shape) for dtype, shape in request["output_types"]]

    def call(*inputs: Any) -> dict[str, Any]:
        outputs = xla.call_module(
            list(inputs),
            version=_CALL_MODULE_VERSION,
            module=b"",  # see _fill_in
            Tout=[dtype for dtype, _ in results],
            Sout=[shape for _, shape in results],
            platforms=["CPU"],
        )
        return {f"y{number}": output for number, output in enumerate(outputs)}

    specs = [
        tf.TensorSpec(shape, tf.as_dtype(dtype), name=f"x{number}")
        for number, (dtype, shape) in enumerate(request["input_types"])
    ]
    function = tf.function(call, autograph=False, input_signature=specs).get_concrete_function()
    with tempfile.TemporaryDirectory(dir=folder) as saved:
        tf.saved_model.save(tf.Module(), saved, signatures=function)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        converter.canonicalizing_inf_as_min_max_float = False  # else -inf would become a finite number
        converter._experimental_unsafe_fuse_dynamic_shaped_broadcast = request["symbolic"]
        converter._experimental_strict_qdq = request["quantized"]
        empty = _fill_in(Path(saved) / "saved_model.pb", folder / MODULE)
        (folder / MODEL).write_bytes(converter._convert_from_saved_model(empty))
    return {"version": tf.__version__}


def _fill_in(saved: Path, module: Path) -> Any:
    """Puts the module into the saved model of a call without one, and returns the graph as it was before.

    Weights are in the module, and each part of TensorFlow in Python that handles the model copies it: several gigabytes
    for a hundred megabytes. This way only the converter itself, which reads the file, sees them.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString(saved.read_bytes())
    graph = model.meta_graphs[0].graph_def
    before = type(graph).FromString(graph.SerializeToString())
    calls = [node for function in graph.library.function for node in function.node_def if node.op == "XlaCallModule"]
    for node in calls:
        node.attr["module"].s = module.read_bytes()
    saved.write_bytes(model.SerializeToString())
    return before
