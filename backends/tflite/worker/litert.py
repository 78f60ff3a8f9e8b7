"""StableHLO to TFLite by ``litert-converter``, which needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .outline import outline_loops
from .serve import MODEL, MODULE, SIGNATURE


def run(folder: Path, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Converts the portable artifact in ``folder``; the model's inputs and outputs are ``x0...`` and ``y0...``.

    Args:
      folder: holds the module, and gets the model.
      request: ``input_types`` and ``output_types`` have an entry for each; ``symbolic``: whether sizes are unknown;
        ``quantized``: whether there are quantizers, which say which kernels compute with integers.

    Returns:
      ``version``: of the converter.
    """
    import importlib.metadata

    from litert_converter import converter_api_ext as api
    from litert_converter.mlir import ir, passmanager
    from litert_converter.mlir.dialects import stablehlo

    context = ir.Context()
    api.prepare_mlir_context(context)
    with context, ir.Location.unknown():
        module = stablehlo.deserialize_portable_artifact(context, (folder / MODULE).read_bytes())
        inputs = [f"x{number}" for number in range(len(request["input_types"]))]
        outputs = [f"y{number}" for number in range(len(request["output_types"]))]
        api.set_signature(module.operation, SIGNATURE, inputs, outputs)
        config = api.ConvertToTFLConfig()
        config.canonicalizing_inf_as_min_max_float = False  # else -inf would become a finite number
        config.unsafe_fuse_dynamic_shaped_broadcast = request["symbolic"]  # else unknown sizes prevent every fusion
        config.strict_qdq_mode = request["quantized"]
        api.run_convert_to_tfl_passes(module, passmanager.PassManager(), config)
        outline_loops(module)
        (folder / MODEL).write_bytes(api.export_flatbuffer_to_bytes(module.operation))
    return {"version": importlib.metadata.version("litert-converter")}
