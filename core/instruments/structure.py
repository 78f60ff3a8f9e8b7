"""Structural verification: after every pass, is the program still well-formed and of the same type?"""

from __future__ import annotations

import jax
from jax.extend import core as jex_core

from ..errors import VerificationError
from ..manager import Instrument, PassEvent
from ..program import Program


class StructuralVerifier(Instrument):
    """Checks the jaxpr with JAX's own checker, and that types, structure and effects are what they were.

    It also holds the pass to its word: a pass that says it changed nothing must return the very same program, and one
    that says it did must not.
    """

    def after(self, event: PassEvent) -> None:
        """Raises `VerificationError` naming the pass and its plugin."""
        problem = _claim_problem(event) or _interface_problem(event.before, event.result.program)
        if problem is None and event.result.program.jaxpr is not event.before.jaxpr:
            problem = _jaxpr_problem(event.result.program)
        if problem is not None:
            step = event.step
            raise VerificationError(
                f"pass {step.pass_.name!r} (plugin {step.plugin!r}) broke the program: {problem}",
                hint=f"leave it out with --skip {step.pass_.name}, and tell its author",
            )


def _claim_problem(event: PassEvent) -> str | None:
    before, after = event.before, event.result.program
    same = after.jaxpr is before.jaxpr and after.exported is before.exported
    if event.result.changed and same:
        return "it says that it changed the program, and did not"
    if not event.result.changed and not same:
        return "it says that it changed nothing, and did"
    return None


def _interface_problem(before: Program, after: Program) -> str | None:
    """What changed in the program's type that no pass may change."""
    if after.in_tree != before.in_tree or after.out_tree != before.out_tree:
        return "the structure of inputs or outputs changed"
    for what, old, new in (("input", before.in_avals, after.in_avals), ("output", before.out_avals, after.out_avals)):
        if len(old) != len(new):
            return f"it has {len(new)} {what}s where there were {len(old)}"
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            if a != b and a.str_short() != b.str_short():
                return f"{what} {index} has type {b.str_short()} where {a.str_short()} was"
            if getattr(a, "weak_type", False) != getattr(b, "weak_type", False):
                return f"the weak type of {what} {index} changed"
    if after.donated != before.donated or after.input_names != before.input_names:
        return "names or donations of inputs changed"
    lost = before.jaxpr.effects - after.jaxpr.effects
    gained = after.jaxpr.effects - before.jaxpr.effects
    if lost or gained:
        return f"its effects changed: lost {sorted(map(str, lost))}, gained {sorted(map(str, gained))}"
    return _effect_count_problem(before, after)


def _effect_count_problem(before: Program, after: Program) -> str | None:
    old, new = _effectful(before.jaxpr.jaxpr), _effectful(after.jaxpr.jaxpr)
    if old != new:
        return f"it had {old} operations with effects at the top level and in calls, and has {new}"
    return None


def _effectful(jaxpr: jex_core.Jaxpr) -> int:
    """Equations with effects of their own; calls and control flow count as what is in their bodies."""
    if not jaxpr.effects:
        return 0
    count = 0
    for eqn in jaxpr.eqns:
        inner = list(jex_core.jaxprs_in_params(eqn.params))
        if inner:
            count += sum(map(_effectful, inner))
        elif eqn.effects:
            count += 1
    return count


def _jaxpr_problem(program: Program) -> str | None:
    try:
        with jax.enable_x64(program.x64):
            jex_core.check_jaxpr(program.jaxpr.jaxpr)
    except jex_core.JaxprTypeError as error:
        return f"JAX's checker says: {error}"
    except Exception as error:  # the checker runs typing rules, which raise whatever they like on a malformed equation
        return f"JAX's checker failed: {type(error).__name__}: {error}"
    return None
