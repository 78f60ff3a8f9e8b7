"""The other way to an ONNX file: StableHLO, TensorFlow Lite and tf2onnx.

It shares no lowering with the direct route, which makes it a witness: where both files compute the same, an error
would have to be in both. It takes less (no control flow with bodies that TFLite lacks, no float64, sizes that are
known), and knows nothing of scopes, lines and opsets beyond tf2onnx's.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from ...core.driver import compile
from ...core.errors import CompileError, MissingDependencyError, UnsupportedError, UsageError
from ...core.program import Program
from .operand import inner_shape, stored_type

#: The newest opset that tf2onnx writes.
NEWEST_OPSET = 18

_PACKAGES = ("tf2onnx", "tensorflow")


def export(program: Program, inputs: Sequence[str], outputs: Sequence[str], opset: int = 0) -> ir.Model:
    """The model of a program by way of its TFLite file; see `xlapass.backends.onnx.export.export`.

    Raises:
      UsageError: an opset that tf2onnx does not write.
      UnsupportedError: TFLite holds the inputs or outputs otherwise, as it does 64-bit types.
      CompileError: the TFLite backend or tf2onnx cannot convert the program.
    """
    if opset > NEWEST_OPSET:
        raise UsageError(f"tf2onnx writes no opset {opset}", hint=f"choose one of up to {NEWEST_OPSET}, or 0")
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError("onnx{route=tf2onnx}", "tf2onnx", package)
    artifact = compile(program, pipeline="tflite")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.tflite", Path(folder) / "model.onnx"
        artifact.save(source)
        _convert(source, target, opset or NEWEST_OPSET)
        model = ir.from_proto(ir.to_proto(ir.load(target)))
    _rename(model, program, inputs, outputs)
    model.metadata_props["route"] = "StableHLO, TFLite, tf2onnx"
    return model


def _convert(source: Path, target: Path, opset: int) -> None:
    """Runs tf2onnx in a process apart: TensorFlow and JAX need not share one."""
    command = [sys.executable, "-m", "tf2onnx.convert", "--tflite", str(source), "--output", str(target)]
    done = subprocess.run([*command, "--opset", str(opset)], capture_output=True, text=True, check=False)
    if done.returncode or not target.exists():
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise CompileError(f"tf2onnx cannot convert the program: {last}", hint="the direct route may: route=direct")


def _rename(model: ir.Model, program: Program, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Gives inputs and outputs the names that were asked for, and checks that they are what the program's are."""
    for values, names, avals, what in (
        (model.graph.inputs, inputs, program.in_avals, "input"),
        (model.graph.outputs, outputs, program.out_avals, "output"),
    ):
        if len(values) != len(names):
            raise UnsupportedError(f"TFLite gives the program {len(values)} {what}s in place of {len(names)}")
        for value, name, aval in zip(values, names, avals, strict=True):
            shape = [*aval.shape, *inner_shape(aval.dtype)]
            held = list(value.shape) if value.shape is not None else None
            if value.dtype != stored_type(aval.dtype) or held != shape:
                raise UnsupportedError(
                    f"TFLite holds the {what} {name!r} as {value.dtype}{held}, not {aval.str_short()}"
                )
            value.name = name
