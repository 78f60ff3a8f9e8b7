"""Structural verification: after every pass, is the program still well-formed and of the same type?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any

import jax
from jax.extend import core as jex_core

from .. import _compat
from ..errors import VerificationError
from ..manager import Instrument, PassEvent
from ..node import REGION_PARAMS
from ..program import Program

_KEPT = ("input_names", "output_names", "donated", "x64")
"""Attributes of a program that no pass may change, besides its structure."""


class StructuralVerifier(Instrument):
    """Checks the jaxpr with JAX's own checker, and that types, structure and effects are what they were.

    It also holds the pass to its word: a pass that says it changed nothing must return the very same program, and one
    that says it did must not.
    """

    def __init__(self) -> None:
        self._checked: tuple[Any, Set[int]] = (None, frozenset())

    def after(self, event: PassEvent) -> None:
        """Raises `VerificationError` naming the pass and its plugin."""
        problem = _claim_problem(event) or _interface_problem(event.before, event.result.program)
        if problem is None and event.result.program.jaxpr is not event.before.jaxpr:
            problem = self._jaxpr_problem(event.before, event.result.program)
        if problem is not None:
            step = event.step
            raise VerificationError(
                f"pass {step.pass_.name!r} (plugin {step.plugin!r}) broke the program: {problem}",
                hint=f"leave it out with --skip {step.pass_.name}, and tell its author",
            )

    def _jaxpr_problem(self, before: Program, after: Program) -> str | None:
        """What is wrong with the new jaxpr, or None.

        Every variable must be defined once and before its uses; that is checked here, on the whole program. Typing
        rules are JAX's own checker's, which is run on the equations that are new: the others were checked when they
        came.
        """
        jaxpr, known = self._checked
        if jaxpr is not before.jaxpr:
            known = _equations(before.jaxpr.jaxpr)
        try:
            with jax.enable_x64(after.x64):
                _check_constants(after.jaxpr)
                _check_body(known, after.jaxpr.jaxpr)
        except jex_core.JaxprTypeError as error:
            return f"JAX's checker says: {error}"
        except Exception as error:  # the checker runs typing rules, which raise whatever they like on bad equations
            return f"JAX's checker failed: {type(error).__name__}: {error}"
        self._checked = (after.jaxpr, _equations(after.jaxpr.jaxpr))
        return None


def _claim_problem(event: PassEvent) -> str | None:
    before, after = event.before, event.result.program
    same = after.jaxpr is before.jaxpr and after.exported is before.exported
    same = same and after.compiler_options == before.compiler_options
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
    if any(getattr(after, field) != getattr(before, field) for field in _KEPT):
        return "names, donations or the width of types changed"
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
    if len(old) != len(new):
        return f"it had {len(old)} operations with effects at the top level and in calls, and has {len(new)}"
    if _in_order(old) != _in_order(new):
        return "operations with ordered effects changed their order"
    return None


def _effectful(jaxpr: jex_core.Jaxpr) -> list[Any]:
    """Equations with effects of their own; calls and control flow count as what is in their bodies."""
    if not jaxpr.effects:
        return []
    found: list[Any] = []
    for eqn in jaxpr.eqns:
        inner = list(jex_core.jaxprs_in_params(eqn.params))
        for body in inner:
            found.extend(_effectful(body))
        if eqn.effects and not inner:
            found.append(eqn)
    return found


def _in_order(eqns: Sequence[Any]) -> list[Any]:
    """What tells equations with ordered effects apart: the primitive, and the function that a callback calls."""
    ordered = (eqn for eqn in eqns if any(map(_compat.is_ordered, eqn.effects)))
    return [(eqn.primitive, id(eqn.params.get("callback"))) for eqn in ordered]


def check_closed(closed: jex_core.ClosedJaxpr) -> None:
    """Checks a whole jaxpr, the bodies of loops and branches included; raises what JAX's checker raises."""
    _check_constants(closed)
    _check_body(set(), closed.jaxpr)


def _check_constants(closed: jex_core.ClosedJaxpr) -> None:
    for index, (var, const) in enumerate(zip(closed.jaxpr.constvars, closed.consts, strict=True)):
        aval = jax.typeof(const)
        if aval.shape != var.aval.shape or aval.dtype != var.aval.dtype:
            declared = var.aval.str_short()
            raise jex_core.JaxprTypeError(f"constant {index} has type {aval.str_short()} where {declared} is declared")


def _check_body(known: Set[int], jaxpr: jex_core.Jaxpr) -> None:
    """Checks a jaxpr whose equations in ``known``, a set of ids, were checked before.

    JAX's checker does not descend into the bodies of loops and branches, so this does.
    """
    fresh = [eqn for eqn in jaxpr.eqns if id(eqn) not in known]
    defined = {*jaxpr.constvars, *jaxpr.invars}
    for eqn in jaxpr.eqns:
        for atom in eqn.invars:
            if not isinstance(atom, jex_core.Literal) and atom not in defined:
                raise _undefined(atom, eqn.primitive.name)
        for var in eqn.outvars:
            if var in defined:
                raise jex_core.JaxprTypeError(f"{eqn.primitive.name} defines a variable a second time")
            defined.add(var)
    for atom in jaxpr.outvars:
        if not isinstance(atom, jex_core.Literal) and atom not in defined:
            raise _undefined(atom, "the result")
    _check_equations(fresh, jaxpr)
    for eqn in fresh:
        if eqn.primitive.name in REGION_PARAMS:
            for body in _bodies(eqn):
                _check_body(known, body)


def _undefined(atom: Any, reader: str) -> Exception:
    return jex_core.JaxprTypeError(f"{reader} reads a variable of type {atom.aval.str_short()} that nothing defines")


def _check_equations(eqns: Sequence[Any], jaxpr: jex_core.Jaxpr) -> None:
    """Runs JAX's checker on some of the equations of a jaxpr, on one of those that say the same of the same types."""
    if _compat.has_reference_effects(jaxpr):  # these name variables, and hold for the whole jaxpr only
        jex_core.check_jaxpr(jaxpr)
        return
    effects: frozenset[Any] = frozenset().union(*(eqn.effects for eqn in eqns))
    if not effects <= jaxpr.effects:
        raise jex_core.JaxprTypeError(f"the effects {sorted(map(str, effects - jaxpr.effects))} are not declared")
    one_of_each: dict[Any, Any] = {}
    for eqn in eqns:
        one_of_each.setdefault(_typing(eqn), eqn)
    eqns = list(one_of_each.values())
    made = {var for eqn in eqns for var in eqn.outvars}
    free = {a: None for eqn in eqns for a in eqn.invars if not isinstance(a, jex_core.Literal) and a not in made}
    debug_info = jaxpr.debug_info.with_unknown_names()
    jex_core.check_jaxpr(jex_core.Jaxpr((), list(free), [], eqns, effects, debug_info))


def _typing(eqn: Any) -> Any:
    """All that the checker's answer depends on; the identity of an equation whose parameters cannot be compared."""
    operands = tuple(map(_operand_type, eqn.invars))
    results = tuple(var.aval for var in eqn.outvars)
    key = (eqn.primitive, tuple(sorted(eqn.params.items())), operands, results, eqn.effects, eqn.ctx)
    try:
        hash(key)
    except TypeError:
        return id(eqn)
    return key


def _operand_type(atom: Any) -> Any:
    return (atom.aval, jax.typeof(atom.val)) if isinstance(atom, jex_core.Literal) else atom.aval


def _bodies(eqn: Any) -> Iterator[jex_core.Jaxpr]:
    """The bodies that passes may edit."""
    for param in REGION_PARAMS[eqn.primitive.name]:
        yield from jex_core.jaxprs_in_params({param: eqn.params.get(param)})


def _equations(jaxpr: jex_core.Jaxpr) -> set[int]:
    """The ids of all equations, those in bodies included."""
    found, pending = set(), [jaxpr]
    while pending:
        for eqn in pending.pop().eqns:
            found.add(id(eqn))
            if eqn.primitive.name in REGION_PARAMS:
                pending.extend(_bodies(eqn))
    return found
