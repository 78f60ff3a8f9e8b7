"""From a program to the bytes of a TFLite model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.extend import mlir

from ...core.errors import CompileError
from ...core.lowering import open_composites
from ...core.program import Program
from ...core.stablehlo import parse
from .engines import Engine
from .process import Worker
from .quantize import is_quantized
from .worker.serve import MODEL, MODULE


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a converter made.

    Attributes:
      model: the bytes of the file.
      versions: of the converter's packages.
    """

    model: bytes
    versions: Mapping[str, str]


def convert(program: Program, engine: Engine, worker: Worker) -> Converted:
    """Converts a program whose operations the engine takes; inputs are called ``x0...`` and outputs ``y0...``.

    Raises:
      CompileError: JAX cannot lower it.
      WorkerFailure: the converter raised, crashed, or was not done in time.
    """
    module = portable_module(program, engine)
    request = {
        "job": engine.name,
        "input_types": _types(program.in_avals),
        "output_types": _types(program.out_avals),
        "symbolic": program.is_symbolic,
        "quantized": is_quantized(program.jaxpr.jaxpr),
    }

    def collect(folder: Path, reply: Mapping[str, Any]) -> Converted:
        return Converted((folder / MODEL).read_bytes(), {engine.package: reply["version"]})

    return worker.call(request, lambda folder: (folder / MODULE).write_bytes(module), collect)


def _types(avals: Sequence[Any]) -> list[tuple[str, list[int | None]]]:
    """Dtype and shape of each; sizes that are not known are None."""
    return [(str(aval.dtype), [d if isinstance(d, int) else None for d in aval.shape]) for aval in avals]


def portable_module(program: Program, engine: Engine) -> bytes:
    """The program as a portable StableHLO artifact that the engine reads, constants inside.

    Raises:
      CompileError: JAX cannot lower it.
    """
    lowered = exported(program)
    if not engine.stablehlo:
        return bytes(lowered.mlir_module_serialized)
    return bytes(mlir.serialize_portable_artifact(parse(lowered), engine.stablehlo, True))


def exported(program: Program) -> Any:
    """The `jax.export.Exported` of the flat program, constants inside and unused inputs kept; see `portable_module`."""
    program = open_composites(program) if program.is_symbolic else program
    with jax.enable_x64(program.x64):
        jitted = jax.jit(program.flat_function, keep_unused=True)
        try:
            return jax.export.export(jitted, platforms=["cpu"])(*program.input_specs())
        except (ValueError, NotImplementedError, TypeError) as error:
            raise CompileError(f"{program.name} cannot be lowered to StableHLO: {error}") from error
