"""Rules that move, merge and cancel quantizers; they belong to the pass `simplify`.

Dequantizing goes down through what only moves numbers, so that the moving is done with integers and ends between two
kernels, and disappears where it meets the quantizer that it undoes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ...core.node import Node, Value
from ...core.patterns import Op, op, var
from ...core.rewrite import Build, Match, Rule
from .arithmetic import Parameters, dequantize_array, quantize_array
from .composites import QUANTIZE, dequantize, dequantized, parameters_of
from .operations import MOVES, scaling

x = var("x")


def _calls(node: Node, name: str) -> bool:
    return bool(node.params["name"] == name)


_quantizer = Op(("composite",), None, lambda node: _calls(node, QUANTIZE.name))


def _of_whole(node: Node | None) -> Parameters | None:
    """The parameters of a quantizer with one scale for the whole array."""
    p = None if node is None else parameters_of(node)
    return p if p is not None and p.axis is None else None


# -- q(dq(q)) ----------------------------------------------------------------------------------------------------------


def _undoes(match: Match) -> str | None:
    inner = dequantized(match.root.inputs[0])
    if inner is None:
        return "it quantizes what was not quantized"
    mine, its = parameters_of(match.root), parameters_of(inner)
    if mine is None or its is None:
        return "a scale is not constant"
    return None if mine.same_as(its) else "it has another scale: requantization"


def _integers(match: Match) -> Value:
    inner = dequantized(match.root.inputs[0])
    assert inner is not None
    return inner.inputs[0]


# -- constants ---------------------------------------------------------------------------------------------------------


def _is_constant(match: Match) -> str | None:
    if not match.root.inputs[0].is_const:
        return "what it quantizes is not constant"
    return "a scale is not constant" if parameters_of(match.root) is None else None


def _quantized_constant(match: Match) -> Value:
    p = parameters_of(match.root)
    assert p is not None
    return match.graph.constant(quantize_array(match.root.inputs[0].numpy(), p))


# -- down through what moves numbers -----------------------------------------------------------------------------------


def _moves_integers(match: Match) -> str | None:
    node: Node = match.root
    if len(node.inputs) != 1:
        return "it has a dynamic shape"
    return _movable(node.inputs[0])


def _movable(value: Value) -> str | None:
    inner = dequantized(value)
    if inner is None:
        return "its operand is not dequantized"
    if inner.inputs[0].is_const:
        return "its operand is a constant, which is laid out as its reader wants it"
    return None if _of_whole(inner) is not None else "its operand has more than one scale"


def _moved(match: Match) -> Value:
    node: Node = match.root
    inner = dequantized(node.inputs[0])
    assert inner is not None
    p = _of_whole(inner)
    assert p is not None
    integers = match.like(node, inner.inputs[0])
    return match.trace(lambda q: dequantize(q, p), integers)


def _scales_integers(match: Match) -> str | None:
    scaled = scaling(match.root)
    if scaled is None:
        return "it does not multiply by a positive number"
    reason = _movable(scaled[0])
    if reason is not None:
        return reason
    p = _rescaled(match)
    usual = np.finfo(np.float32).tiny <= float(p.scale) < np.inf
    return None if usual else "the scale would overflow or vanish"


def _rescaled(match: Match) -> Parameters:
    scaled = scaling(match.root)
    assert scaled is not None
    value, factor = scaled
    p = _of_whole(dequantized(value))
    assert p is not None
    return dataclasses.replace(p, scale=np.asarray(p.scale.astype(np.float64) * factor, np.float32))


def _scaled(match: Match) -> Value:
    p = _rescaled(match)
    value = scaling(match.root)[0]  # type: ignore[index]
    inner = dequantized(value)
    assert inner is not None
    return match.trace(lambda q: dequantize(q, p), inner.inputs[0])


# -- saturation --------------------------------------------------------------------------------------------------------


def _saturated(match: Match) -> str | None:
    """Whether all that can be dequantized is above the limit anyway."""
    node = dequantized(match["x"])
    p = _of_whole(node)
    if p is None:
        return "its operand is not dequantized with one scale"
    lowest = dequantize_array(np.asarray(p.limits[0], np.int32), p)
    return None if lowest >= 0 else "there are negative numbers"


RULES: Sequence[Rule] = (
    Rule("cancel-quantizers", _quantizer, Build(_integers), _undoes),
    Rule("quantize-constant", _quantizer, Build(_quantized_constant), _is_constant),
    Rule("move-dequantize", Op(tuple(sorted(MOVES - {"copy", "copy_p"}))), Build(_moved), _moves_integers),
    Rule("rescale-dequantize", Op(("mul", "div")), Build(_scaled), _scales_integers, "reassociating"),
    Rule("saturated-relu", op.max(x, 0.0), x, _saturated),
)
"""Dequantizing is exact, and so is what moves; a factor that goes into the scale is rounded otherwise."""
