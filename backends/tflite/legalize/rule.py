"""How the rules of this package are written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....core.node import Node
from ....core.patterns import Op
from ....core.rewrite import Build, Check, Match, Numerics, Rule
from .carriers import kind_of
from .tracing import flat

WhyNot = Callable[[Node], str | None]
"""Why an operation is left alone, or None."""


def lowering(
    name: str,
    primitives: str | tuple[str, ...],
    function: Callable[..., Any],
    why_not: WhyNot | None = None,
    numerics: Numerics = "reassociating",
    *,
    any_size: bool = False,
) -> Rule:
    """A rule that puts a plain JAX function in place of an operation.

    Args:
      name: of the rule.
      primitives: the operations, separated by blanks or as a tuple.
      function: ``function(*arrays, **parameters of the operation)`` returns its result, or all of them.
      why_not: says why an operation is left alone. What the function builds must be left alone, in the end.
      numerics: what the rewrite may do to results.
      any_size: whether it serves symbolic sizes too; other rules wait until the sizes are known.
    """

    def build(match: Match) -> list[Any]:
        node = match.root

        def apply(*arrays: Any) -> Any:
            return function(*arrays, **node.params)

        return match.graph.splice(flat(apply), *node.inputs, before=node, rule=name)

    return Rule(name, Op(_names(primitives)), Build(build), _check(why_not, any_size), numerics)


def node_lowering(
    name: str,
    primitives: str | tuple[str, ...],
    function: Callable[..., Any],
    why_not: WhyNot | None = None,
    numerics: Numerics = "reassociating",
    *,
    any_size: bool = False,
) -> Rule:
    """As `lowering`, for a function that looks at the operation: ``function(node, *arrays)``."""

    def build(match: Match) -> list[Any]:
        node = match.root
        apply = flat(lambda *arrays: function(node, *arrays))
        return match.graph.splice(apply, *node.inputs, before=node, rule=name)

    return Rule(name, Op(_names(primitives)), Build(build), _check(why_not, any_size), numerics)


def _check(why_not: WhyNot | None, any_size: bool) -> Check:
    def check(match: Match) -> str | None:
        if not any_size and not is_static(match.root):
            return "its sizes are not known yet"
        if any(kind_of(getattr(value.aval, "dtype", None)) == "complex" for value in match.root.inputs):
            return "complex numbers are carried in pairs, or refused"  # the rules know real numbers
        return None if why_not is None else why_not(match.root)

    return check


def _names(primitives: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(primitives.split()) if isinstance(primitives, str) else primitives


def is_static(node: Node) -> bool:
    """Whether all sizes are known."""
    return all(isinstance(size, int) for value in (*node.inputs, *node.outputs) for size in value.shape)
