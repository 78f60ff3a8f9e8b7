"""Running a model with LiteRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ...core.backend import Executable
from ...core.errors import MissingDependencyError, UsageError
from ...core.program import Program
from .edges import from_edge, to_edge
from .interface import Interface

_DELEGATE = "DELEGATE"
"""What the interpreter calls an operation that stands for a part that a delegate runs."""


def require_litert() -> Any:
    """The module ``ai_edge_litert.interpreter``; raises `MissingDependencyError` where it is not installed."""
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise MissingDependencyError("running TFLite files", "tflite", "ai-edge-litert") from error
    return interpreter


def load_interpreter(model: bytes, num_threads: int = 0) -> Any:
    """A LiteRT ``Interpreter`` of a model; 0 threads lets the runtime choose."""
    interpreter = require_litert()
    try:
        return interpreter.Interpreter(model_content=model, num_threads=num_threads or None)
    except ValueError as error:
        raise UsageError(f"LiteRT cannot load the model: {error}") from error


class TfliteExecutable(Executable):
    """A model in the LiteRT interpreter. Calling it takes and returns the structures that the program was traced with;
    floats, too, that are int8 in the file.

    Args:
      program: the traced function.
      interface: the names in the file.
      model: the bytes of the file.
      num_threads: threads of an operation; 0 lets the runtime choose.
    """

    def __init__(self, program: Program, interface: Interface, model: bytes, num_threads: int = 0) -> None:
        self.program = program
        self.interface = interface
        self.interpreter = load_interpreter(model, num_threads)
        self._runner = self.interpreter.get_signature_runner(interface.signature)
        self._input_scales = _scales(self._runner.get_input_details())
        self._output_scales = _scales(self._runner.get_output_details())

    def __call__(self, *args: Any) -> Any:
        """Runs on arguments of the traced structure."""
        flat = self.program.flatten_arguments(args)
        return jax.tree_util.tree_unflatten(self.program.out_tree, self.run_flat(flat))

    def run_flat(self, flat: Sequence[Any]) -> list[Any]:
        """Runs on flat inputs and returns flat outputs; checks nothing."""
        names, avals = self.interface.inputs, self.program.in_avals
        feed = {name: to_edge(value, aval) for name, value, aval in zip(names, flat, avals, strict=True)}
        for name, parameters in self._input_scales.items():
            feed[name] = _quantized(feed[name], *parameters)
        results = self._runner(**feed)
        for name, parameters in self._output_scales.items():
            results[name] = _dequantized(results[name], *parameters)
        pairs = zip(self.interface.outputs, self.program.out_avals, strict=True)
        return [from_edge(results[name], aval) for name, aval in pairs]


def _scales(details: Mapping[str, Any]) -> dict[str, tuple[np.float32, int]]:
    """Scale and zero point of the inputs or outputs that are int8 and stand for floats."""
    found = {name: detail["quantization"] for name, detail in details.items() if detail["dtype"] == np.int8}
    return {name: (np.float32(scale), int(zero)) for name, (scale, zero) in found.items() if scale}


def _quantized(array: Any, scale: np.float32, zero_point: int) -> Any:
    return np.clip(np.rint(array / scale) + np.float32(zero_point), -128, 127).astype(np.int8)


def _dequantized(array: Any, scale: np.float32, zero_point: int) -> Any:
    return (array.astype(np.int32) - zero_point).astype(np.float32) * scale


def delegated(interpreter: Any) -> dict[int, frozenset[int]]:
    """The operations of the first subgraph that the XNNPACK delegate takes, by the number of the subgraph.

    After its tensors are allocated, the interpreter lists the operations as they were, and behind them one operation
    for every part that a delegate runs; what lies between such a part's inputs and outputs is in it.
    """
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    producers = {int(out): op for op in details if op["op_name"] != _DELEGATE for out in op["outputs"]}
    taken: set[int] = set()
    for part in details:
        if part["op_name"] != _DELEGATE:
            continue
        outside = set(map(int, part["inputs"]))
        pending = [int(out) for out in part["outputs"]]
        while pending:
            op = producers.get(pending.pop())
            if op is not None and op["index"] not in taken:
                taken.add(op["index"])
                pending.extend(int(index) for index in op["inputs"] if int(index) not in outside)
    return {0: frozenset(taken)}
