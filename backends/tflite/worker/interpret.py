"""Running a model with the LiteRT interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .serve import MODEL


def run(folder: Path, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Runs the model in ``folder`` on the arrays ``NUMBER.npy`` there, in the order of the request's ``inputs``.

    Returns:
      ``outputs``: how many arrays ``output-NUMBER.npy`` it wrote, in the order of the request's ``outputs``.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(folder / MODEL), num_threads=request["threads"])
    runner = interpreter.get_signature_runner(request["signature"])
    arrays = {name: np.load(folder / f"{number}.npy") for number, name in enumerate(request["inputs"])}
    results = runner(**arrays)
    for number, name in enumerate(request["outputs"]):
        np.save(folder / f"output-{number}.npy", results[name])
    return {"outputs": len(request["outputs"])}
