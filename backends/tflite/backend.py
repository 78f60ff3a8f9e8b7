"""The TFLite backend: programs to files for LiteRT."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from ...core.backend import Backend, LegalityTable
from ...core.program import Program
from ...core.target import Target
from . import engines, legality, quantize, runtime
from .interface import SIGNATURE, interface_of

if TYPE_CHECKING:
    from .artifact import TfliteArtifact


@dataclasses.dataclass(frozen=True)
class TfliteBackend(Backend):
    """Write a TFLite file.

    Attributes:
      engine: the converter: litert-converter, or TensorFlow's; ``auto`` takes the first that is installed.
      python: interpreter of an environment that has the converter, where this one has not.
      verify: whether the file is run against JAX before it is written.
      integer_kernels: whether it is an error when a product of quantized weights is no integer kernel in the file.
      int8_inputs: whether the float32 inputs of a quantized program are int8 in the file.
      int8_outputs: the same of outputs.
      timeout: seconds after which a conversion is given up.
      memory: bytes of address space that a conversion may take; 0 for no limit.
      input_names: names of the inputs, in place of those from the argument's structure.
      output_names: names of the outputs.
      signature: name of the function in the file.
    """

    name: ClassVar[str] = "tflite"
    default_target: ClassVar[str] = "tflite"
    compares: ClassVar[bool] = True
    stages: ClassVar[tuple[str, ...]] = ("stablehlo",)
    checks: ClassVar[tuple[str, ...]] = ("edgetpu", "micro")

    engine: Literal["auto", "litert", "tensorflow"] = "auto"
    python: str = ""
    verify: bool = True
    integer_kernels: bool = False
    int8_inputs: bool = False
    int8_outputs: bool = False
    timeout: int = 600
    memory: int = 0
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    signature: str = SIGNATURE

    def emit(self, program: Program, target: Target) -> TfliteArtifact:
        """Converts the program and checks the file.

        Raises:
          UnsupportedError: lists every operation that cannot be converted.
          CompileError: the converter failed, the file does not compute what JAX computes, or an input or output that
            was to be int8 is a float to the model.
          MissingDependencyError: the engine, or LiteRT, is not installed.
        """
        from .artifact import TfliteArtifact
        from .making import Maker, at_some_sizes

        engine = engines.choose(self.engine, self.python)
        runtime.require_litert()
        self.legality(target).require(at_some_sizes(program), self.name)
        interface = interface_of(program, self.input_names, self.output_names, self.signature)
        maker = Maker(engine, self.python, self.timeout, self.memory)
        made = maker.make(program, interface, verify=self.verify)
        if self.int8_inputs or self.int8_outputs:
            model = quantize.with_integer_edges(made.model, self.int8_inputs, self.int8_outputs)
            made = dataclasses.replace(made, model=model)
        artifact = TfliteArtifact(program, interface, made)
        if self.integer_kernels:
            artifact.kernels.require_integers()
        return artifact

    def legality(self, target: Target) -> LegalityTable:
        """What both converters take after legalization."""
        return legality.table()
