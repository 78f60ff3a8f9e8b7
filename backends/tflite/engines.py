"""The converters: which there are, which is used, and what they need."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Literal

from ...core.errors import MissingDependencyError

EngineName = Literal["litert", "tensorflow"]


@dataclasses.dataclass(frozen=True)
class Engine:
    """A converter.

    Attributes:
      name: what the option ``engine`` calls it; also the worker's job.
      module: must be importable for it to work.
      package: what brings the module.
      extra: the optional dependencies of xlapass that hold the package.
      stablehlo: the version of StableHLO that it reads; empty where it reads what JAX writes.
    """

    name: EngineName
    module: str
    package: str
    extra: str
    stablehlo: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether this interpreter has it."""
        return importlib.util.find_spec(self.module) is not None


LITERT = Engine("litert", "litert_converter", "litert-converter", "tflite")
TENSORFLOW = Engine("tensorflow", "tensorflow", "tensorflow-cpu", "tensorflow", stablehlo="1.13.0")
ENGINES: dict[str, Engine] = {engine.name: engine for engine in (LITERT, TENSORFLOW)}


def choose(name: str, python: str) -> Engine:
    """The engine of that name, or with ``auto`` the first that is installed.

    Args:
      name: ``auto``, ``litert`` or ``tensorflow``.
      python: interpreter of another environment, which is not looked into; empty for this one.

    Raises:
      MissingDependencyError: it is not installed.
    """
    installed = (engine for engine in ENGINES.values() if engine.is_installed)
    engine = next(installed, LITERT) if name == "auto" else ENGINES[name]
    if not python and not engine.is_installed:
        raise MissingDependencyError(f"the {engine.name} engine of the tflite backend", engine.extra, engine.package)
    return engine
