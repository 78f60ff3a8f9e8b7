"""`mlir`: MLIR's own passes on the program lowered to StableHLO."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ..core import stablehlo
from ..core.pass_ import PassContext, StableHLOPass


@dataclasses.dataclass(frozen=True)
class Mlir(StableHLOPass):
    """Runs MLIR passes on the StableHLO module: those of MLIR's core, of StableHLO and of Shardy.

    Attributes:
      pipeline: in MLIR's own syntax, such as ``canonicalize,cse`` or ``func.func(cse)``.
    """

    name: ClassVar[str] = "mlir"

    pipeline: str = "canonicalize,cse"

    def __post_init__(self) -> None:
        """Raises `UsageError` at once when MLIR does not know the pipeline."""
        stablehlo.check_pipeline(self.pipeline)

    def apply(self, exported: Any, context: PassContext) -> Any:
        """Runs the pipeline on a copy of the module; reports the operations before and after."""
        result = stablehlo.run_mlir_pipeline(exported, self.pipeline)
        if result is not exported:
            context.details["operations"] = [stablehlo.operation_count(e) for e in (exported, result)]
        return result
