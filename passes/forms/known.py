"""The part of a form that depends on constants alone: transformed kernels, computed once and not at every call."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Sequence
from typing import Any

import jax
from jax.extend import core as jex_core

from ...core import _compat


@dataclasses.dataclass(frozen=True)
class SplitForm:
    """A form's equations, split by what they depend on.

    Attributes:
      known: from the constant operands, in their order, to the arrays that the rest reads of them.
      rest: from the other operands, followed by those arrays, to the results.
      constants: indices of the constant operands.
    """

    known: jex_core.ClosedJaxpr
    rest: jex_core.ClosedJaxpr
    constants: tuple[int, ...]

    @property
    def sources(self) -> list[int | None]:
        """For each array that the rest reads: which constant operand it is, or None where it is computed."""
        places = {var: index for var, index in zip(self.known.jaxpr.invars, self.constants, strict=True)}
        return [places.get(var) for var in self.known.jaxpr.outvars]

    def prepare(self, operands: Sequence[Any]) -> list[Any]:
        """The computed arrays that the rest reads, from the constant operands."""
        return list(self._compute(*operands)) if self._computed else []

    @functools.cached_property
    def _computed(self) -> list[Any]:
        inputs = set(self.known.jaxpr.invars)
        return [var for var in self.known.jaxpr.outvars if var not in inputs]

    @functools.cached_property
    def _compute(self) -> Any:
        jaxpr, consts = self.known.jaxpr.replace(outvars=self._computed), self.known.consts
        return jax.jit(lambda *operands: _compat.eval_jaxpr(jaxpr, consts, *operands))


def split(body: jex_core.ClosedJaxpr, constants: Collection[int]) -> SplitForm:
    """Splits a form's body, given which of its operands are constants.

    What depends on no operand at all stays in the rest, where XLA makes it without reading memory; the known part has
    its own copy.
    """
    jaxpr = body.jaxpr
    order = tuple(sorted(constants))
    derived = {jaxpr.invars[index] for index in order}
    computable = derived | set(jaxpr.constvars)
    known_eqns, rest_eqns = [], []
    for eqn in jaxpr.eqns:
        inputs = [atom for atom in eqn.invars if not isinstance(atom, jex_core.Literal)]
        is_computable = not eqn.effects and all(var in computable for var in inputs)
        if is_computable:
            computable.update(eqn.outvars)
            known_eqns.append(eqn)
        if is_computable and any(var in derived for var in inputs):
            derived.update(eqn.outvars)
        else:
            rest_eqns.append(eqn)
    read = [*(atom for eqn in rest_eqns for atom in eqn.invars), *jaxpr.outvars]
    handed_over = list(dict.fromkeys(a for a in read if not isinstance(a, jex_core.Literal) and a in derived))
    known = _closed(body, [jaxpr.invars[index] for index in order], handed_over, known_eqns)
    others = [var for index, var in enumerate(jaxpr.invars) if index not in set(order)]
    return SplitForm(known, _closed(body, [*others, *handed_over], jaxpr.outvars, rest_eqns), order)


def _closed(
    body: jex_core.ClosedJaxpr, inputs: Sequence[Any], outputs: Sequence[Any], eqns: Sequence[Any]
) -> jex_core.ClosedJaxpr:
    jaxpr = jex_core.Jaxpr(
        body.jaxpr.constvars,
        list(inputs),
        list(outputs),
        list(eqns),
        jex_core.no_effects,
        body.jaxpr.debug_info.with_unknown_names(),
    )
    closed, _ = _compat.eliminate_dead_code(
        jex_core.ClosedJaxpr(jaxpr, body.consts), [True] * len(outputs), instantiate=True
    )
    return closed
