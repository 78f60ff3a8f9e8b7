"""Which operation of a program is to blame, found by halving."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core as jex_core

from ...core import _compat
from ...core.program import Program

Fails = Callable[[Program], bool]
"""Whether a program shows the failure that is looked for."""


@dataclasses.dataclass(frozen=True)
class Culprit:
    """The operation without which the failure does not show.

    Attributes:
      operation: its primitive.
      where: the user's source line.
      alone: whether it fails by itself, too; else only after what stands before it.
    """

    operation: str
    where: str | None
    alone: bool

    def __str__(self) -> str:
        how = "by itself, too" if self.alone else "together with what stands before it"
        return f"the operation that is likely to blame is {self.operation!r}, which fails {how}"


def find_culprit(program: Program, fails: Fails) -> Culprit | None:
    """The first operation with which the beginning of a program fails; None when the failure does not show again.

    Args:
      program: at the jaxpr level; it fails as a whole.
      fails: is asked about logarithmically many programs, each a beginning of ``program`` with all that it computes
        for the rest as outputs.
    """
    eqns = program.jaxpr.jaxpr.eqns
    low, high = 0, len(eqns)  # the first `low` operations do not fail, the first `high` do
    if not high or not fails(_beginning(program, high)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if fails(_beginning(program, middle)):
            high = middle
        else:
            low = middle
    eqn = eqns[high - 1]
    alone = fails(_single(program, eqn))
    inner = _inside(program, eqn, fails) if alone else None
    return inner or Culprit(eqn.primitive.name, _compat.user_location(eqn.source_info), alone)


def _inside(program: Program, eqn: Any, fails: Fails) -> Culprit | None:
    """The operation in a body of ``eqn`` that fails there by itself."""
    for body in jex_core.jaxprs_in_params(eqn.params):
        if body.constvars:
            continue
        inner = _with_body(program, body, body.outvars)
        if fails(inner) and (found := find_culprit(inner, fails)) is not None:
            return found
    return None


def _beginning(program: Program, count: int) -> Program:
    """The first ``count`` operations; what the others read, and the outputs that are known by then, are its outputs."""
    body = program.jaxpr.jaxpr
    first, rest = body.eqns[:count], body.eqns[count:]
    made = {var for eqn in first for var in eqn.outvars if not isinstance(var, jex_core.DropVar)}
    read = [atom for eqn in rest for atom in eqn.invars] + list(body.outvars)
    live = dict.fromkeys(atom for atom in read if not isinstance(atom, jex_core.Literal) and atom in made)
    jaxpr = jex_core.Jaxpr(
        body.constvars, body.invars, list(live), first, body.effects, body.debug_info.with_unknown_names()
    )
    return _of(program, jex_core.ClosedJaxpr(jaxpr, program.jaxpr.consts)).replace(examples=program.examples)


def _single(program: Program, eqn: Any) -> Program:
    """One operation; what it reads besides constants is its input."""
    body = program.jaxpr.jaxpr
    known = dict(zip(body.constvars, program.jaxpr.consts, strict=True))
    variables = list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, jex_core.Literal)))
    inputs = [var for var in variables if var not in known]
    constants = [var for var in variables if var in known]
    outputs = [var for var in eqn.outvars if not isinstance(var, jex_core.DropVar)]
    debug_info = body.debug_info.with_unknown_names()
    jaxpr = jex_core.Jaxpr(constants, inputs, outputs, [eqn], eqn.effects, debug_info)
    return _of(program, jex_core.ClosedJaxpr(jaxpr, [known[var] for var in constants]))


def _with_body(program: Program, body: Any, outputs: Any) -> Program:
    debug_info = body.debug_info.with_unknown_names()
    return _of(
        program, jex_core.ClosedJaxpr(jex_core.Jaxpr((), body.invars, outputs, body.eqns, body.effects, debug_info), ())
    )


def _of(program: Program, closed: Any) -> Program:
    """A program around a body: flat, with names that say nothing, and without examples."""
    inputs, outputs = closed.jaxpr.invars, closed.jaxpr.outvars
    return program.replace(
        jaxpr=closed,
        in_tree=_flat_tree(len(inputs), as_tuple=True),
        out_tree=_flat_tree(len(outputs)),
        input_names=tuple(f"x{number}" for number in range(len(inputs))),
        output_names=tuple(f"y{number}" for number in range(len(outputs))),
        donated=(False,) * len(inputs),
        examples=None,
        traced=None,
        input_permutations=(),
        output_permutations=(),
    )


def _flat_tree(count: int, as_tuple: bool = False) -> Any:
    leaves = [0] * count
    return jax.tree_util.tree_structure(tuple(leaves) if as_tuple else leaves)
