"""How the rules of this package are written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....core.node import Node
from ....core.patterns import Op
from ....core.rewrite import Build, Match, Numerics, Rule
from .tracing import flat

WhyNot = Callable[[Node], str | None]
"""Why an operation is left alone, or None."""


def lowering(
    name: str,
    primitives: str | tuple[str, ...],
    function: Callable[..., Any],
    why_not: WhyNot | None = None,
    numerics: Numerics = "reassociating",
) -> Rule:
    """A rule that puts a plain JAX function in place of an operation.

    Args:
      name: of the rule.
      primitives: the operations, separated by blanks or as a tuple.
      function: ``function(*arrays, **parameters of the operation)`` returns its result, or all of them.
      why_not: says why an operation is left alone. What the function builds must be left alone, in the end.
      numerics: what the rewrite may do to results.
    """

    def build(match: Match) -> list[Any]:
        node = match.root

        def apply(*arrays: Any) -> Any:
            return function(*arrays, **node.params)

        return match.graph.splice(flat(apply), *node.inputs, before=node, rule=name)

    check = None if why_not is None else (lambda match: why_not(match.root))
    return Rule(name, Op(_names(primitives)), Build(build), check, numerics)


def node_lowering(
    name: str,
    primitives: str | tuple[str, ...],
    function: Callable[..., Any],
    why_not: WhyNot | None = None,
    numerics: Numerics = "reassociating",
) -> Rule:
    """As `lowering`, for a function that looks at the operation: ``function(node, *arrays)``."""

    def build(match: Match) -> list[Any]:
        node = match.root
        apply = flat(lambda *arrays: function(node, *arrays))
        return match.graph.splice(apply, *node.inputs, before=node, rule=name)

    check = None if why_not is None else (lambda match: why_not(match.root))
    return Rule(name, Op(_names(primitives)), Build(build), check, numerics)


def _names(primitives: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(primitives.split()) if isinstance(primitives, str) else primitives


def is_static(node: Node) -> bool:
    """Whether all sizes are known."""
    return all(isinstance(size, int) for value in (*node.inputs, *node.outputs) for size in value.shape)


def size_of(node: Node, index: int = 0) -> int:
    """Number of elements of an operand of known sizes."""
    total = 1
    for size in node.inputs[index].shape:
        total *= int(size)
    return total
