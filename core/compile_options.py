"""`CompileOptions`: options of XLA that may suit a program, to be measured. Imports nothing heavy, as for targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .rewrite import Numerics


@dataclasses.dataclass(frozen=True)
class CompileOptions:
    """Options of XLA for one compilation, as `jax.stages.Lowered.compile` takes them.

    Attributes:
      options: values by the name of the XLA flag.
      platform: what they are for: ``cpu`` or ``cuda``.
      numerics: what they may do to results.
    """

    options: Mapping[str, str | bool]
    platform: str = "cpu"
    numerics: Numerics = "reassociating"

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in sorted(self.options.items()))
