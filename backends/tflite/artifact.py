"""What the TFLite backend makes: a model, checked before it is written."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any, ClassVar

from ...core.backend import Artifact
from ...core.errors import UsageError
from ...core.files import write_atomically
from ...core.kernel_report import KernelReport
from ...core.options import suggestion
from ...core.program import Program
from . import quantize, runtime
from .conversion import exported
from .edges import with_edges
from .interface import Interface
from .making import Made
from .places import PLACES, PlaceReport, check_for
from .report import ModelReport, describe


class TfliteArtifact(Artifact):
    """A TFLite model of a program."""

    suffix: ClassVar[str] = ".tflite"

    def __init__(self, program: Program, interface: Interface, made: Made) -> None:
        self.program = program
        self.interface = interface
        self.model = made.model
        self.agreement = made.agreement

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file."""
        write_atomically(path, self.model)

    @staticmethod
    def load(path: str | os.PathLike[str], num_threads: int = 0) -> Any:
        """The LiteRT ``Interpreter`` of a saved file."""
        with open(path, "rb") as file:
            return runtime.load_interpreter(file.read(), num_threads)

    def executable(self, num_threads: int = 0, **options: Any) -> runtime.TfliteExecutable:
        """The model in the LiteRT interpreter.

        Args:
          num_threads: threads of an operation; 0 lets the runtime choose.
          options: none; others are an error.
        """
        if options:
            raise UsageError(f"the tflite executable has no option {min(options)!r}")
        return runtime.TfliteExecutable(self.program, self.interface, self.model, num_threads)

    def notes(self) -> Sequence[str]:
        """What the comparison with JAX showed."""
        return ("The file was not run against JAX.",) if self.agreement is None else (f"{self.agreement}.",)

    def description(self) -> ModelReport:
        """Operations and their kernels, which of them XNNPACK takes, sizes, memory and work."""
        interpreter = runtime.load_interpreter(self.model, num_threads=1)
        products = self.kernels if quantize.is_quantized(self.program.jaxpr.jaxpr) else None
        return describe(self.model, runtime.delegated(interpreter), products)

    def check_for(self, place: str) -> PlaceReport:
        """What of the file would not run in ``place``: ``edgetpu`` or ``micro``."""
        if place not in PLACES:
            raise UsageError(f"a TFLite file cannot be checked for {place!r}", hint=suggestion(place, PLACES))
        return check_for(self.model, place)

    @functools.cached_property
    def kernels(self) -> KernelReport:
        """Which products are integer kernels."""
        return quantize.kernel_report(self.model)

    def stage(self, name: str) -> str:
        """The text of ``jaxpr``, or of ``stablehlo``, which is what the converter gets."""
        if name == "jaxpr":
            return f"{self.program.jaxpr}\n"
        if name == "stablehlo":
            return str(exported(with_edges(self.program)).mlir_module())
        raise UsageError(f"there is no stage {name!r} for TFLite", hint="one of: jaxpr, stablehlo")
