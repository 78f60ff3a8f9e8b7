"""Sums, products, signs, extremes and bits.

Where a rule is for integers only, floats have a counterexample: ``-0.0 + 0.0`` is ``0.0``, and ``inf * 0`` and
``inf - inf`` are NaN. But ``x - 0.0``, ``x + -0.0`` and ``max(x, -inf)`` are ``x`` for every float, NaN included.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.node import Node
from ...core.patterns import Op, Var, number, op, scalar, var
from ...core.rewrite import Build, Match, Rule
from .checks import all_of, filled, floats, integers, is_integral, number_of, real, same_type

x, y = var("x"), var("y")

IDEMPOTENT = ("abs", "ceil", "floor", "round", "sign")
"""Functions that leave their own results alone."""

LATTICE = ("max", "min", "and", "or")
"""Operations for which a second application of the same operand changes nothing."""

SHIFTS = ("shift_left", "shift_right_arithmetic", "shift_right_logical")


def _keeps_everything(match: Match) -> str | None:
    """The scalar is neutral for ``max`` or ``min``."""
    bound, dtype = number_of(match["c"]), match.root.outputs[0].dtype
    wants_least = match.root.name == "max"
    if dtype == np.bool_:
        neutral: Any = not wants_least
    elif is_integral(match.root.outputs[0]):
        neutral = np.iinfo(dtype).min if wants_least else np.iinfo(dtype).max if dtype.kind in "iu" else None
    else:
        neutral = -np.inf if wants_least else np.inf
    return None if bound is not None and neutral is not None and bound == neutral else "the bound may apply"


def _all_bits(value: bool) -> Callable[[Match], str | None]:
    """The scalar has all bits set, or none."""

    def check(match: Match) -> str | None:
        bits = number_of(match["c"])
        if bits is None or not is_integral(match["c"]):
            return "the mask is not a known integer"
        wanted = ~np.zeros_like(bits) if value else np.zeros_like(bits)
        return None if bits == wanted else "the mask is another number"

    return check


def _same_parameters(match: Match) -> str | None:
    return None if match["inner"].params == match.root.params else "the two round differently"


def _inner(match: Match) -> Any:
    node: Node = match["inner"]
    return node.outputs[0]


def _with(function: Callable[..., Any], *names: str) -> Build:
    """The plain function of the values bound to ``names``."""
    return Build(lambda match: match.trace(function, *(match[name] for name in names)))


def _like_root(*names: str) -> Build:
    """The root's operation on the values bound to ``names``."""
    return Build(lambda match: match.like(match.root, *(match[name] for name in names)))


def _twice(name: str, *operands: Var) -> Op:
    """``f(f(x))`` or ``f(f(x, y), y)``."""
    return Op((name,), (Op((name,), operands, name="inner"), *operands[1:]))


RULES = [
    Rule("add-zero", x + 0, x, all_of(integers, same_type("x"))),
    Rule("add-negative-zero", x + number(-0.0), x, all_of(same_type("x"), real)),
    Rule("sub-zero", x - number(0.0), x, all_of(same_type("x"), real)),
    Rule("sub-from-zero", 0 - x, _with(operator.neg, "x"), all_of(integers, same_type("x"))),
    Rule("sub-from-negative-zero", number(-0.0) - x, _with(operator.neg, "x"), all_of(same_type("x"), real)),
    Rule("sub-self", x - x, Build(lambda match: filled(match, 0)), integers),
    Rule("mul-one", x * 1, x, all_of(same_type("x"), real)),
    Rule("mul-zero", x * 0, Build(lambda match: filled(match, 0)), integers),
    Rule("mul-minus-one", x * -1, _with(operator.neg, "x"), all_of(same_type("x"), real)),
    Rule("div-one", x / 1, x, all_of(same_type("x"), real)),
    Rule("div-minus-one", x / -1, _with(operator.neg, "x"), all_of(same_type("x"), real)),
    Rule("pow-one", op.pow(x, 1), x, all_of(same_type("x"), real)),
    Rule("integer-pow-one", op.integer_pow(x, where=lambda node: node.params["y"] == 1), x),
    Rule("neg-neg", op.neg(-x), x),
    Rule("add-neg", x + -y, _with(operator.sub, "x", "y"), real),
    Rule("sub-neg", x - (-y), _with(operator.add, "x", "y"), real),
    Rule("mul-neg-neg", -x * -y, _like_root("x", "y"), real),
    Rule("div-neg-neg", -x / -y, _like_root("x", "y"), floats),
    Rule("even-of-neg", Op(("abs", "square"), (-x,)), _like_root("x"), real),
    Rule("square-of-abs", op.square(op.abs(x)), _like_root("x"), all_of(same_type("x"), real)),
    Rule("extreme-of-self", Op(LATTICE, (x, x)), x),
    Rule("neutral-bound", Op(("max", "min"), (x, scalar("c"))), x, all_of(same_type("x"), _keeps_everything)),
    Rule("xor-self", op.xor(x, x), Build(lambda match: filled(match, 0))),
    Rule("not-not", op.not_(op.not_(x)), x),
    Rule("mask-keeps-all", op.and_(x, scalar("c")), x, all_of(same_type("x"), _all_bits(True))),
    Rule("mask-keeps-none", op.and_(x, scalar("c")), Build(lambda match: filled(match, 0)), _all_bits(False)),
    Rule("or-nothing", Op(("or", "xor"), (x, scalar("c"))), x, all_of(same_type("x"), _all_bits(False))),
    Rule(
        "xor-everything",
        op.xor(x, scalar("c")),
        _with(operator.invert, "x"),
        all_of(same_type("x"), _all_bits(True)),
    ),
    Rule("shift-by-zero", Op(SHIFTS, (x, number(0))), x, same_type("x")),
    *(Rule(f"{name}-{name}", _twice(name, x), Build(_inner), all_of(real, _same_parameters)) for name in IDEMPOTENT),
    *(Rule(f"{name}-{name}", _twice(name, x, y), Build(_inner), same_type("inner")) for name in LATTICE),
]
