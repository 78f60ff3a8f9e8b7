"""Which products of a quantized program are integer kernels in the artifact, read back from it."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from .errors import CompileError


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A convolution or matrix product in an artifact.

    Attributes:
      name: as the artifact calls it.
      kernel: what the runtime runs: ``QLinearConv``, ``CONV_2D int8``.
      is_integer: whether that multiplies integers.
      promised: whether the program quantized its operands for that.
    """

    name: str
    kernel: str
    is_integer: bool
    promised: bool


@dataclasses.dataclass(frozen=True)
class KernelReport:
    """All products of an artifact; a `Description`."""

    runtime: str
    kernels: Sequence[Kernel]

    def data(self) -> dict[str, Any]:
        """JSON-able."""
        return {"runtime": self.runtime, "products": [dataclasses.asdict(kernel) for kernel in self.kernels]}

    def __rich__(self) -> Any:
        from rich.table import Table

        table = Table(title=f"products in {self.runtime}", title_justify="left")
        for heading in ("product", "kernel", "integer"):
            table.add_column(heading)
        for kernel in self.kernels:
            table.add_row(kernel.name, kernel.kernel, "yes" if kernel.is_integer else "no")
        return table

    def summary(self) -> str:
        """One sentence."""
        count = sum(kernel.is_integer for kernel in self.kernels)
        kinds = collections.Counter(kernel.kernel for kernel in self.kernels)
        listed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        return f"{count} of {len(self.kernels)} products are integer kernels in {self.runtime}: {listed}"

    def require_integers(self) -> None:
        """Raises `CompileError` that lists the products that were promised as integer kernels and are none."""
        broken = [kernel for kernel in self.kernels if kernel.promised and not kernel.is_integer]
        if broken:
            lines = "\n".join(f"  {kernel.name}: {kernel.kernel}" for kernel in broken)
            raise CompileError(
                f"{len(broken)} of {len(self.kernels)} products were quantized, and are no integer kernels in "
                f"{self.runtime}:\n{lines}",
                hint="quantize{keep=NAME} leaves a product in float; a backend without integer-kernels does not look",
            )
