"""Comparisons, selections, clamping. NaN differs from itself: for floats ``x < x`` is known, and ``x == x`` is not."""

from __future__ import annotations

import operator

import numpy as np

from ...core.node import Node, Value
from ...core.patterns import Op, op, same_value, var
from ...core.rewrite import Build, Match, Rule
from .checks import all_of, filled, integers, is_integral, number_of, same_type

x, y, p, a, b, c = map(var, "xypabc")
low, high = var("low"), var("high")

OPPOSITE = {
    "eq": operator.ne,
    "ne": operator.eq,
    "lt": operator.ge,
    "le": operator.gt,
    "gt": operator.le,
    "ge": operator.lt,
}
"""What holds where a comparison does not; for floats, of ``eq`` and ``ne`` only."""


def _boolean(match: Match) -> str | None:
    return None if match["x"].dtype == np.bool_ else "what is compared is not a boolean"


def _opposite_exists(match: Match) -> str | None:
    compared: Node = match["compared"]
    holds = compared.name in ("eq", "ne") or is_integral(compared.inputs[0])
    return None if holds else "a comparison with NaN is false, and so is its opposite"


def _negated_comparison(match: Match) -> Value:
    return match.trace(OPPOSITE[match["compared"].name], match["x"], match["y"])


def _inverted(match: Match) -> Value:
    return match.trace(operator.invert, match["x"])


def _predicate_known(match: Match) -> str | None:
    which = number_of(match.root.inputs[0])
    if which is None:
        return "the predicate is not known"
    return None if 0 <= int(which) < len(match.root.inputs) - 1 else "the index is out of range"


def _known_case(match: Match) -> Value:
    return match.root.inputs[1 + int(number_of(match.root.inputs[0]))]


def _boolean_predicate(match: Match) -> str | None:
    return None if match.root.inputs[0].dtype == np.bool_ else "it chooses among more than two"


def _same_case(match: Match) -> str | None:
    first, *others = match.root.inputs[1:]
    return None if all(same_value(first, case) for case in others) else "the cases differ"


def _select(*names: str) -> Build:
    """The root's selection, with the values bound to ``names``."""
    return Build(lambda match: match.like(match.root, *(match[name] for name in names)))


_from_boolean = op.convert_element_type(x)
"""A boolean as a number: 0 or 1."""

RULES = [
    Rule("equals-itself", Op(("eq", "le", "ge"), (x, x)), Build(lambda match: filled(match, True)), integers),
    Rule("differs-from-itself", op.ne(x, x), Build(lambda match: filled(match, False)), integers),
    Rule("less-than-itself", Op(("lt", "gt"), (x, x)), Build(lambda match: filled(match, False))),
    Rule("is-true", op.eq(x, 1) | op.ne(x, 0), x, all_of(_boolean, same_type("x"))),
    Rule("is-false", op.eq(x, 0) | op.ne(x, 1), Build(_inverted), all_of(_boolean, same_type("x"))),
    Rule(
        "nonzero-boolean",
        op.ne(_from_boolean, 0) | op.gt(_from_boolean, 0) | op.eq(_from_boolean, 1),
        x,
        all_of(_boolean, same_type("x")),
    ),
    Rule("zero-boolean", op.eq(_from_boolean, 0), Build(_inverted), all_of(_boolean, same_type("x"))),
    Rule(
        "not-comparison",
        op.not_(Op(tuple(OPPOSITE), (x, y), name="compared")),
        Build(_negated_comparison),
        _opposite_exists,
    ),
    Rule("select-same", Op(("select_n",)), Build(lambda match: match.root.inputs[1]), _same_case),
    Rule("select-known", Op(("select_n",)), Build(_known_case), _predicate_known),
    Rule("select-not", op.select_n(op.not_(p), a, b), _select("p", "b", "a"), _boolean_predicate),
    Rule("select-true-or-false", op.select_n(x, 0, 1), x, all_of(_boolean, same_type("x"))),
    Rule("select-false-or-true", op.select_n(x, 1, 0), Build(_inverted), all_of(_boolean, same_type("x"))),
    Rule("select-again-false", op.select_n(p, op.select_n(p, a, b), c), _select("p", "a", "c"), _boolean_predicate),
    Rule("select-again-true", op.select_n(p, a, op.select_n(p, b, c)), _select("p", "a", "c"), _boolean_predicate),
    Rule("clamp-by-itself", op.clamp(x, x, x), x, same_type("x")),
    Rule(
        "clamp-clamp",
        op.clamp(low, op.clamp(low, x, high, name="inner"), high),
        Build(lambda match: match["inner"].outputs[0]),
    ),
]
