"""The TFLite backend: programs to files for LiteRT."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from typing import TYPE_CHECKING, ClassVar, Literal

import jax

from ...core.backend import Backend, LegalityTable
from ...core.errors import CompileError
from ...core.program import Program
from ...core.target import Target
from . import engines, legality
from .interface import SIGNATURE, interface_of

if TYPE_CHECKING:
    from .artifact import TfliteArtifact


@dataclasses.dataclass(frozen=True)
class TfliteBackend(Backend):
    """Write a TFLite file.

    Attributes:
      engine: the converter: litert-converter, or TensorFlow's; ``auto`` takes the first that is installed.
      python: interpreter of an environment that has the converter, where this one has not.
      timeout: seconds after which a conversion is given up.
      input_names: names of the inputs, in place of those from the argument's structure.
      output_names: names of the outputs.
      signature: name of the function in the file.
    """

    name: ClassVar[str] = "tflite"
    default_target: ClassVar[str] = "tflite"

    engine: Literal["auto", "litert", "tensorflow"] = "auto"
    python: str = ""
    timeout: int = 600
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    signature: str = SIGNATURE

    def emit(self, program: Program, target: Target) -> TfliteArtifact:
        """Converts the program; raises `UnsupportedError` that lists every operation that cannot be."""
        from .artifact import TfliteArtifact
        from .assembly import assemble
        from .conversion import convert
        from .process import Worker, WorkerFailure

        engine = engines.choose(self.engine, self.python)
        self.legality(target).require(program, self.name)
        interface = interface_of(program, self.input_names, self.output_names, self.signature)
        with Worker(self.python, timeout_s=self.timeout) as worker:
            try:
                converted = convert(program, engine, worker)
            except WorkerFailure as failure:
                raise CompileError(f"the {engine.name} converter did not convert {program.name}: {failure}") from None
        facts = {
            "xlapass": importlib.metadata.version("xlapass"),
            "jax": jax.__version__,
            "pipeline": ",".join(program.history),
            **converted.versions,
        }
        return TfliteArtifact(program, interface, assemble(converted.model, interface, facts))

    def legality(self, target: Target) -> LegalityTable:
        """What both converters take after legalization."""
        return legality.table()
