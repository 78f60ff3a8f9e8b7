"""A program compiled by `jax.jit`, with its large constants on the device instead of in the executable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .embedding import constants_to_embed
from .hoisting import hoist_constants
from .program import Program


class Weights:
    """Arrays that have been put on a device, so that several compilations of one model hold each once.

    The same array, or another with the same bytes, which a pass made anew, is not put there again.
    """

    def __init__(self) -> None:
        self._by_identity: dict[tuple[int, Any], tuple[Any, jax.Array]] = {}
        self._by_content: dict[Any, jax.Array] = {}
        self._unread: list[tuple[Any, Any, jax.Array]] = []

    def put(self, constants: Sequence[Any], device: jax.Device | None) -> list[jax.Array]:
        """The constants of one compilation on ``device``; None is JAX's default device."""
        # The bytes are read from the second compilation on: a model that has one signature need not wait for that.
        for constant, place, array in self._unread:
            self._by_content.setdefault(_content(constant, place), array)
        self._unread = []
        is_first = not self._by_identity
        return [self._put(constant, device, is_first) for constant in constants]

    def _put(self, constant: Any, device: jax.Device | None, is_first: bool) -> jax.Array:
        known = self._by_identity.get((id(constant), device))
        if known is not None:
            return known[1]
        is_key = jnp.issubdtype(constant.dtype, jax.dtypes.extended)
        content = None if is_first or is_key else _content(constant, device)
        array = self._by_content.get(content) if content is not None else None
        if array is None:
            array = jax.device_put(constant, device)
            if content is not None:
                self._by_content[content] = array
            elif is_first and not is_key:
                self._unread.append((constant, device, array))
        self._by_identity[id(constant), device] = constant, array  # holding it keeps its id from being reused
        return array


def _content(constant: Any, device: jax.Device | None) -> tuple[Any, ...]:
    """What two arrays have in common that may take each other's place."""
    array = np.ascontiguousarray(constant)
    digest = hashlib.blake2b(array.view(np.uint8).data if array.size else b"", digest_size=16).digest()
    return np.shape(constant), str(constant.dtype), digest, bool(getattr(constant, "weak_type", False)), device


class ResidentProgram:
    """A program as a function of those of its constants that stay on the device.

    Args:
      program: the program.
      embed: for each constant, whether it becomes a literal; by default what `constants_to_embed` says.
      device: where the other constants are put once and for all; by default JAX's default device.
      weights: arrays that are there already, and to which these are added.

    Attributes:
      resident: the constants on the device.
    """

    def __init__(
        self,
        program: Program,
        *,
        embed: Sequence[bool] | None = None,
        device: jax.Device | None = None,
        weights: Weights | None = None,
    ) -> None:
        if program.level == "jaxpr" and embed is None:
            program = program.replace(jaxpr=hoist_constants(program.jaxpr))
        self.program = program
        self._embed = constants_to_embed(program.jaxpr) if embed is None else embed
        outside = [const for const, inside in zip(program.jaxpr.consts, self._embed, strict=True) if not inside]
        self.resident = jax.device_put(outside, device) if weights is None else weights.put(outside, device)

    def __call__(self, resident: Sequence[Any], *flat: Any) -> list[Any]:
        """Evaluates the program on its resident constants and its flat inputs."""
        passed = iter(resident)
        pairs = zip(self.program.jaxpr.consts, self._embed, strict=True)
        return self.program.function_of_constants([c if inside else next(passed) for c, inside in pairs], *flat)


class ResidentFunction:
    """Runs a program on flat inputs.

    Args:
      program, embed, device, weights: see `ResidentProgram`.
      donated: positions of the flat inputs whose buffers the outputs may take.
      compiler_options: XLA options for this function, besides those of the program.
    """

    def __init__(
        self,
        program: Program,
        *,
        embed: Sequence[bool] | None = None,
        device: jax.Device | None = None,
        weights: Weights | None = None,
        donated: Sequence[int] = (),
        compiler_options: Mapping[str, Any] | None = None,
    ) -> None:
        body = ResidentProgram(program, embed=embed, device=device, weights=weights)
        self._resident = body.resident

        def run(resident: Any, *flat: Any) -> list[Any]:
            return body(resident, *flat)

        run.__name__ = program.name if program.name.isidentifier() else "main"
        donate = tuple(1 + position for position in donated)
        options = {**program.compiler_options, **(compiler_options or {})}
        self._run: Callable[..., Any] = jax.jit(run, donate_argnums=donate, compiler_options=options or None)

    def __call__(self, flat: Sequence[Any]) -> list[Any]:
        """Runs on flat inputs and returns flat outputs."""
        return list(self._run(self._resident, *flat))

    def lower(self, specs: Sequence[Any]) -> jax.stages.Lowered:
        """The lowered computation at the given types of the flat inputs."""
        lowered: jax.stages.Lowered = self._run.lower(self._resident, *specs)  # type: ignore[attr-defined]
        return lowered
