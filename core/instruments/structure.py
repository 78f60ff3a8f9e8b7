"""Structural verification: after every pass, is the program still well-formed and of the same type?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
            problem = _jaxpr_problem(event.before, event.result.program)
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
    kinds = (
        ("input", before.in_avals, before.input_permutations, after.in_avals, after.input_permutations),
        ("output", before.out_avals, before.output_permutations, after.out_avals, after.output_permutations),
    )
    for what, old_avals, old_permutations, new_avals, new_permutations in kinds:
        old, new = _traced_types(old_avals, old_permutations), _traced_types(new_avals, new_permutations)
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


def _traced_types(avals: Sequence[Any], permutations: Sequence[Any]) -> list[Any]:
    """The types in the layout in which the program was traced."""
    if not permutations:
        return list(avals)
    pairs = zip(avals, permutations, strict=True)
    return [a if p is None else a.update(shape=tuple(a.shape[p.index(i)] for i in range(len(p)))) for a, p in pairs]


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


def _jaxpr_problem(before: Program, after: Program) -> str | None:
    """What is wrong with the new jaxpr, or None.

    Every variable must be defined once and before its uses; that is checked here, on the whole program. Typing rules
    are JAX's own checker's, which is run on the equations that are new: the others were checked when they came.
    """
    try:
        with jax.enable_x64(after.x64):
            _check_body(before.jaxpr.jaxpr, after.jaxpr.jaxpr)
    except jex_core.JaxprTypeError as error:
        return f"JAX's checker says: {error}"
    except Exception as error:  # the checker runs typing rules, which raise whatever they like on a malformed equation
        return f"JAX's checker failed: {type(error).__name__}: {error}"
    return None


def _check_body(before: jex_core.Jaxpr, after: jex_core.Jaxpr) -> None:
    known = set(map(id, before.eqns))
    fresh = [eqn for eqn in after.eqns if id(eqn) not in known]
    defined = {*after.constvars, *after.invars}
    for eqn in after.eqns:
        _require_defined(eqn.invars, defined, eqn.primitive.name)
        for var in eqn.outvars:
            if var in defined:
                raise jex_core.JaxprTypeError(f"{eqn.primitive.name} defines a variable a second time")
            defined.add(var)
    _require_defined(after.outvars, defined, "the result")
    made = {var for eqn in fresh for var in eqn.outvars}
    free = {a: None for eqn in fresh for a in eqn.invars if not isinstance(a, jex_core.Literal) and a not in made}
    effects: frozenset[Any] = frozenset().union(*(eqn.effects for eqn in fresh))
    if any(hasattr(effect, "input_index") for effect in effects):  # effects on references name inputs by position
        jex_core.check_jaxpr(after)
        return
    debug_info = after.debug_info.with_unknown_names()
    jex_core.check_jaxpr(jex_core.Jaxpr((), list(free), [], fresh, effects, debug_info))


def _require_defined(atoms: Sequence[Any], defined: set[Any], reader: str) -> None:
    for atom in atoms:
        if not isinstance(atom, jex_core.Literal) and atom not in defined:
            raise jex_core.JaxprTypeError(
                f"{reader} reads a variable of type {atom.aval.str_short()} that nothing defines"
            )
