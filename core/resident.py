"""A program compiled by `jax.jit`, with its large constants on the device instead of in the executable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from .embedding import constants_to_embed
from .program import Program


class ResidentFunction:
    """Runs a program on flat inputs.

    Args:
      program: the program.
      embed: for each constant, whether it becomes a literal; by default what `constants_to_embed` says.
      device: where the other constants are put once and for all; by default JAX's default device.
      donated: positions of the flat inputs whose buffers the outputs may take.
      compiler_options: XLA options for this function.
    """

    def __init__(
        self,
        program: Program,
        *,
        embed: Sequence[bool] | None = None,
        device: jax.Device | None = None,
        donated: Sequence[int] = (),
        compiler_options: Mapping[str, Any] | None = None,
    ) -> None:
        consts = list(program.jaxpr.consts)
        chosen = constants_to_embed(program.jaxpr) if embed is None else embed
        self._resident = jax.device_put([c for c, inside in zip(consts, chosen, strict=True) if not inside], device)

        def run(resident: Any, *flat: Any) -> list[Any]:
            passed = iter(resident)
            every = [c if inside else next(passed) for c, inside in zip(consts, chosen, strict=True)]
            return program.function_of_constants(every, *flat)

        run.__name__ = program.name if program.name.isidentifier() else "main"
        donate = tuple(1 + position for position in donated)
        self._run = jax.jit(run, donate_argnums=donate, compiler_options=dict(compiler_options or {}) or None)

    def __call__(self, flat: Sequence[Any]) -> list[Any]:
        """Runs on flat inputs and returns flat outputs."""
        return list(self._run(self._resident, *flat))

    def lower(self, specs: Sequence[Any]) -> jax.stages.Lowered:
        """The lowered computation at the given types of the flat inputs."""
        return self._run.lower(self._resident, *specs)
