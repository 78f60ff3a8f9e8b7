"""Reductions. Sums of floats are left alone: another order rounds differently, and ``0.0 + -0.0`` is not ``-0.0``."""

from __future__ import annotations

from jax import lax

from ...core.node import Node, Value
from ...core.patterns import Op, var
from ...core.rewrite import Build, Match, Rule
from .checks import all_of, integers, is_integral

x = var("x")

EXTREMES = ("reduce_max", "reduce_min", "reduce_and", "reduce_or")
"""Reductions of which every order, and every repetition of an element, gives the same bits."""

COUNTING = ("reduce_sum", "reduce_prod", "reduce_xor")
"""Reductions of which every order gives the same bits for integers only."""


def _is_one(size: object) -> bool:
    return isinstance(size, int) and size == 1


def _over_single_elements(match: Match) -> str | None:
    """Every reduced axis has one element, so that the reduction is a reshape."""
    if match.root.name in COUNTING and not is_integral(match["x"]):
        return "it holds for integers only"
    shape = match["x"].aval.shape
    return None if all(_is_one(shape[axis]) for axis in match.root.params["axes"]) else "it reduces"


def _squeezed(match: Match) -> Value:
    return match.trace(lax.squeeze, match["x"], static=(tuple(match.root.params["axes"]),))


def _joined_axes(match: Match) -> tuple[int, ...]:
    inner: Node = match["inner"]
    first = set(inner.params["axes"])
    left = [axis for axis in range(len(match["x"].aval.shape)) if axis not in first]
    return tuple(sorted(first | {left[axis] for axis in match.root.params["axes"]}))


def _same_kind(match: Match) -> str | None:
    return None if match["inner"].name == match.root.name else "the two reduce differently"


def _reduce_once(match: Match) -> Value:
    return match.like(match.root, match["x"], axes=_joined_axes(match))


def _copies_only(match: Match) -> str | None:
    """What is reduced away was added by the broadcast, and is not empty."""
    shape, kept = match.root.inputs[0].aval.shape, match["inner"].params["broadcast_dimensions"]
    axes = match.root.params["axes"]
    if any(axis in kept for axis in axes):
        return "it reduces the operand of the broadcast too"
    return "it may reduce nothing" if any(isinstance(shape[a], int) and shape[a] == 0 for a in axes) else None


def _broadcast_less(match: Match) -> Value:
    left = [axis for axis in range(len(match.root.inputs[0].aval.shape)) if axis not in match.root.params["axes"]]
    places = tuple(left.index(axis) for axis in match["inner"].params["broadcast_dimensions"])
    shape = match.root.outputs[0].aval.shape
    return match.like(match["inner"], match["x"], shape=shape, broadcast_dimensions=places)


_broadcast = Op(("broadcast_in_dim",), (x,), name="inner")

RULES = [
    Rule("reduce-nothing", Op((*EXTREMES, *COUNTING), (x,)), Build(_squeezed), _over_single_elements),
    Rule(
        "reduce-reduce",
        Op(EXTREMES, (Op(EXTREMES, (x,), name="inner"),)),
        Build(_reduce_once),
        _same_kind,
    ),
    Rule(
        "count-count",
        Op(COUNTING, (Op(COUNTING, (x,), name="inner"),)),
        Build(_reduce_once),
        all_of(_same_kind, integers),
    ),
    Rule("reduce-broadcast", Op(EXTREMES, (_broadcast,)), Build(_broadcast_less), _copies_only),
]
