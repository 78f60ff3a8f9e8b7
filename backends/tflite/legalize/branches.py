"""Branches that are known: those of a platform, and those of a constant index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.extend
import numpy as np
from jax import lax

from ....core.node import Node, Value
from ....core.patterns import Op
from ....core.rewrite import Build, Match, Rule
from .rule import node_lowering

PLATFORM = "cpu"
"""What a function does where it knows the platforms; its default for all platforms comes first."""


def _index(match: Match) -> Value:
    platforms: Any = match.root.params["platforms"]
    wanted = [number for number, names in enumerate(platforms) if names is None]
    wanted += [number for number, names in enumerate(platforms) if names is not None and PLATFORM in names]
    return match.graph.constant(np.asarray(wanted[0] if wanted else 0, match.root.outputs[0].dtype))


def _branch(match: Match) -> list[Value]:
    node = match.root
    bodies = node.params["branches"]
    taken = bodies[min(max(int(node.inputs[0].numpy()), 0), len(bodies) - 1)]
    return match.graph.insert_jaxpr(taken, node.inputs[1:], before=node, rule="known-branch", relocate=False)


def _why_not_known(match: Match) -> str | None:
    node: Node = match.root
    if node.effects:
        return "it has effects"
    return None if node.inputs[0].is_const else "its index is not known"


def _two_by_two(node: Node, index: jax.Array, *operands: jax.Array) -> list[jax.Array]:
    """The first branch, or else one of the others.

    Of more than two, the converters make STABLEHLO_CASE, whose subgraphs they number as if the file had no others: a
    loop or another choice in it, and wrong branches run.
    """
    functions = [jax.extend.core.jaxpr_as_fun(body) for body in node.params["branches"]]
    return _chosen(functions, index, operands)


def _chosen(functions: list[Any], index: jax.Array, operands: Sequence[jax.Array]) -> list[jax.Array]:
    first, *others = functions
    if not others:
        return list(first(*operands))

    def rest(*values: jax.Array) -> list[jax.Array]:
        return _chosen(others, index - np.int32(1), values)

    return list(lax.cond(index <= np.int32(0), lambda *values: list(first(*values)), rest, *operands))


def _why_not_two_by_two(node: Node) -> str | None:
    if node.effects:
        return "it has effects"
    return None if len(node.params["branches"]) > 2 else "it has two branches"


RULES = (
    Rule("platform", Op(("platform_index",)), Build(_index)),
    node_lowering("two-by-two", "cond", _two_by_two, _why_not_two_by_two, "exact"),
    Rule("known-branch", Op(("cond",)), Build(_branch), _why_not_known),
)
