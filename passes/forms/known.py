"""The part of a form that depends on constants alone: transformed kernels, computed once and not at every call."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex_core

from ...core import _compat
from .. import numpy_operations


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
        """The computed arrays that the rest reads, from the constant operands.

        NumPy computes them where it can: XLA takes longer to compile such a function than to run it.
        """
        if not self._computed:
            return []
        found = self._with_numpy(operands)
        return list(self._compute(*operands)) if found is None else found

    def _with_numpy(self, operands: Sequence[Any]) -> list[Any] | None:
        jaxpr = self.known.jaxpr
        values: dict[Any, np.ndarray[Any, Any]] = {}
        for var, array in zip((*jaxpr.invars, *jaxpr.constvars), (*operands, *self.known.consts), strict=True):
            values[var] = np.asarray(array)
        for eqn in jaxpr.eqns:
            inputs = [np.asarray(a.val) if isinstance(a, jex_core.Literal) else values[a] for a in eqn.invars]
            evaluate = _matrix_product if eqn.primitive.name == "dot_general" else numpy_operations.evaluate
            result = evaluate(eqn.primitive.name, eqn.params, inputs, eqn.outvars[0].aval)
            if result is None or len(eqn.outvars) != 1:
                return None
            values[eqn.outvars[0]] = result
        return [np.ascontiguousarray(values[var]) for var in self._computed]

    @functools.cached_property
    def _computed(self) -> list[Any]:
        inputs = set(self.known.jaxpr.invars)
        return [var for var in self.known.jaxpr.outvars if var not in inputs]

    @functools.cached_property
    def _compute(self) -> Any:
        jaxpr, consts = self.known.jaxpr.replace(outvars=self._computed), self.known.consts
        return jax.jit(lambda *operands: _compat.eval_jaxpr(jaxpr, consts, *operands))


def _matrix_product(
    primitive: str, params: Mapping[str, Any], operands: Sequence[np.ndarray[Any, Any]], aval: Any
) -> np.ndarray[Any, Any] | None:
    """A product of two matrices of 32- or 64-bit floats; None for all others."""
    if params["dimension_numbers"] != (((1,), (0,)), ((), ())) or any(operand.ndim != 2 for operand in operands):
        return None
    if aval.dtype not in (np.float32, np.float64) or any(operand.dtype != aval.dtype for operand in operands):
        return None
    return np.matmul(*operands)


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
