"""The legality table of the ONNX backend: primitive name -> how it is lowered."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any


class Refusal(Exception):
    """A lowering declines an equation; the message is the reason, one sentence."""


@dataclasses.dataclass(frozen=True)
class Lowering:
    """One row of the table.

    Attributes:
      primitive: the primitive's name.
      function: ``function(ctx, eqn, *operands)`` returns one operand or a list.
      kind: ``"direct"`` (to ONNX nodes) or ``"decomposed"`` (to simpler JAX first).
      note: what a reader of the coverage table should know: accuracy, limits.
    """

    primitive: str
    function: Callable[..., Any]
    kind: str = "direct"
    note: str = ""


_TABLE: dict[str, Lowering] = {}


def lowers(*primitives: str, note: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers ``function(ctx, eqn, *operands) -> Operand | list[Operand]`` as the lowering of the primitives."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for primitive in primitives:
            _TABLE[primitive] = Lowering(primitive, function, "direct", note)
        return function

    return register


def decomposes(*primitives: str, note: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a plain JAX function of the equation's inputs and parameters; what it traces to is lowered instead."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def lower(ctx: Any, eqn: Any, *operands: Any) -> Any:
            return ctx.trace_and_lower(lambda *arrays: function(*arrays, **eqn.params), *operands)

        for primitive in primitives:
            _TABLE[primitive] = Lowering(primitive, lower, "decomposed", note)
        return function

    return register


def refuses(*primitives: str, reason: str) -> None:
    """Registers primitives that ONNX cannot express, with the reason."""

    def lower(ctx: Any, eqn: Any, *operands: Any) -> Any:
        raise Refusal(reason)

    for primitive in primitives:
        _TABLE[primitive] = Lowering(primitive, lower, "refused", reason)


def table() -> dict[str, Lowering]:
    """All rows, by primitive name."""
    from . import lowering

    for module in sorted(m.name for m in pkgutil.iter_modules(lowering.__path__)):
        importlib.import_module(f"{lowering.__name__}.{module}")
    return _TABLE
