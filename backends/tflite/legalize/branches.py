"""Branches that are known: those of a platform, and those of a constant index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
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


def _one_by_one(node: Node, index: jax.Array, *operands: jax.Array) -> list[jax.Array]:
    """Branch after branch: each runs, or keeps what the one that ran has given.

    Of more than two, the converters make STABLEHLO_CASE, whose subgraphs they number as if the file had no others: a
    loop or another choice in it, and wrong branches run. Of choices within choices, TensorFlow's mixes up the operands.
    """
    bodies = node.params["branches"]
    results = [jnp.zeros(value.shape, value.dtype) for value in node.outputs]
    for number, body in enumerate(bodies):
        wanted = index <= 0 if number == 0 else index >= number if number == len(bodies) - 1 else index == number
        results = lax.cond(wanted, _running(body), lambda kept, *_: kept, results, *operands)
    return results


def _running(body: Any) -> Callable[..., list[jax.Array]]:
    function = jax.extend.core.jaxpr_as_fun(body)
    return lambda kept, *operands: list(function(*operands))


def _why_not_one_by_one(node: Node) -> str | None:
    if node.effects:
        return "it has effects"
    return None if len(node.params["branches"]) > 2 else "it has two branches"


RULES = (
    Rule("platform", Op(("platform_index",)), Build(_index)),
    node_lowering("one-by-one", "cond", _one_by_one, _why_not_one_by_one, "exact"),
    Rule("known-branch", Op(("cond",)), Build(_branch), _why_not_known),
)
