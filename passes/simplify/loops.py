"""Loops whose number of turns leaves no loop."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import lax

from ...core import _compat
from ...core.node import Value
from ...core.patterns import Op
from ...core.rewrite import Build, Match, Rule


def _has_length(length: int) -> Any:
    def check(match: Match) -> str | None:
        have = match.root.params["length"]
        if not (isinstance(have, int) and have == length):
            return f"it takes {have} turns"
        if length == 0 and not all(isinstance(output.dtype, np.dtype) for output in match.root.outputs):
            return "it returns random keys"
        body = match.root.regions.get(("jaxpr", None))
        if body is None or _compat.has_reference_effects(body.to_closed().jaxpr):
            return "its body works on references"
        return None

    return check


def _first(array: jax.Array) -> jax.Array:
    return lax.squeeze(array, (0,))


def _one_turn(match: Match) -> list[Value]:
    node = match.root
    consts, carries = _compat.scan_sizes(node.params)
    leading = consts + carries
    operands = [*node.inputs[:leading], *(match.trace(_first, xs) for xs in node.inputs[leading:])]
    body = node.regions["jaxpr", None].to_closed()
    results = match.graph.insert_jaxpr(body, operands, before=node, rule=match.rule)
    carry, ys = results[:carries], results[carries:]
    return [*carry, *(match.trace(lax.expand_dims, y, static=((0,),)) for y in ys)]


def _no_turn(match: Match) -> list[Value]:
    node = match.root
    consts, carries = _compat.scan_sizes(node.params)
    ys = node.outputs[carries:]
    return [
        *node.inputs[consts : consts + carries],
        *(match.trace(lax.full, static=(y.aval.shape, 0, y.aval.dtype)) for y in ys),
    ]


_scan = Op(("scan",))

RULES = [
    Rule("scan-once", _scan, Build(_one_turn), _has_length(1)),
    Rule("scan-never", _scan, Build(_no_turn), _has_length(0)),
]
