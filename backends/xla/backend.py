"""The XLA backend: programs to executables on the CPU and on GPUs, and to portable `jax.export` artifacts."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from ...core.backend import Backend
from ...core.errors import UsageError
from ...core.program import Program
from ...core.target import Target
from .artifact import XlaArtifact

_BOOLEANS = {"true": True, "false": False}


@dataclasses.dataclass(frozen=True)
class XlaBackend(Backend):
    """Compile with XLA.

    Attributes:
      embed_constants: whether weights become literals of the executable. ``auto`` embeds small arrays and the kernels
        of convolutions, which XLA lays out better when it knows them; the others are arguments that stay on the device,
        so that compile time and memory do not grow with them.
      compiler_options: XLA options for this compilation, ``key:value`` pairs.
    """

    name: ClassVar[str] = "xla"
    default_target: ClassVar[str] = "cpu"
    stages: ClassVar[tuple[str, ...]] = ("stablehlo", "hlo", "llvm", "ptx", "asm")

    embed_constants: Literal["auto", "always", "never"] = "auto"
    compiler_options: tuple[str, ...] = ()

    def emit(self, program: Program, target: Target) -> XlaArtifact:
        """Prepares the program for ``target``; XLA compiles when a stage or an executable is first asked for."""
        if target.platform not in ("cpu", "cuda"):
            raise UsageError(
                f"the xla backend does not compile for target {target.name!r} (platform {target.platform!r})",
                hint="its targets are cpu and the GPUs that `xlapass list targets` shows",
            )
        return XlaArtifact(program, target, self.embed_constants, self._options())

    def _options(self) -> dict[str, str | bool]:
        pairs = [option.partition(":") for option in self.compiler_options]
        for key, colon, _ in pairs:
            if not colon:
                raise UsageError(f"compiler option {key!r} has no value", hint="write compiler-options=xla_name:value")
        return {key: _BOOLEANS.get(value, value) for key, _, value in pairs}
