"""Finds the operation at which two versions of a program part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jax.extend import core as jex_core

from .. import _compat
from ..program import Program
from .evaluation import evaluator


@dataclasses.dataclass(frozen=True)
class Place:
    """The operation that a pass rewrote wrongly.

    Attributes:
      operation: the primitive that was there before.
      rule: the rule that replaced it, when known.
      where: the user's source line.
    """

    operation: str
    rule: str | None
    where: str | None

    def __str__(self) -> str:
        by = f" by rule {self.rule!r}" if self.rule else ""
        return f"first at the operation {self.operation!r}, rewritten{by}"


def locate_difference(
    before: Program, after: Program, flat: Sequence[Any], differs: Callable[[Any, Any], bool]
) -> Place | None:
    """Where ``after`` first computes something else than ``before``.

    Passes keep the variables of equations that they leave alone. The first such variable whose value changed has an
    operand that was rewritten; what produced that operand before is the operation wanted. Returns None when every
    common variable agrees or the programs cannot be compared that way.
    """
    if before.exported is not None or after.exported is not None or before.is_symbolic:
        return None
    old = {var: eqn for eqn in before.jaxpr.jaxpr.eqns for var in eqn.outvars}
    new = {var: eqn for eqn in after.jaxpr.jaxpr.eqns for var in eqn.outvars}
    common = [v for v in new if v in old and not isinstance(v, jex_core.DropVar)]
    outputs = before.jaxpr.jaxpr.outvars, after.jaxpr.jaxpr.outvars
    old_values = _values(before, [*common, *outputs[0]], flat)
    new_values = _values(after, [*common, *outputs[1]], flat)
    for var, want, have in zip(common, old_values, new_values, strict=False):
        if differs(want, have):
            return _rewritten_operand(old[var], new[var], old, after)
    of_outputs = old_values[len(common) :], new_values[len(common) :]
    for a, b, want, have in zip(*outputs, *of_outputs, strict=True):
        if a is not b and not isinstance(a, jex_core.Literal) and a in old and differs(want, have):
            return _place(old[a], b, after)
    return None


def _values(program: Program, variables: Sequence[Any], flat: Sequence[Any]) -> list[Any]:
    body = program.jaxpr.jaxpr
    outvars = list(variables)
    debug_info = body.debug_info.with_unknown_names()
    wide = jex_core.Jaxpr(body.constvars, body.invars, outvars, body.eqns, body.effects, debug_info)
    return evaluator(program.replace(jaxpr=jex_core.ClosedJaxpr(wide, program.jaxpr.consts)))(flat)


def _rewritten_operand(old_eqn: Any, new_eqn: Any, old: dict[Any, Any], after: Program) -> Place:
    if old_eqn.primitive is new_eqn.primitive and len(old_eqn.invars) == len(new_eqn.invars):
        for a, b in zip(old_eqn.invars, new_eqn.invars, strict=True):
            if a is not b and not isinstance(a, jex_core.Literal) and a in old:
                return _place(old[a], b, after)
    return _place(old_eqn, new_eqn.outvars[0], after)


def _place(eqn: Any, new_atom: Any, after: Program) -> Place:
    rule = None if isinstance(new_atom, jex_core.Literal) else after.provenance.get(new_atom)
    return Place(eqn.primitive.name, rule, _compat.user_location(eqn.source_info))
