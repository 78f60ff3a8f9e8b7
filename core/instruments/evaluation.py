"""Running programs so that every operation is rounded by itself, which makes their results comparable bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.extend import core as jex_core

from ..program import Program, operation_count

UNFUSED: Mapping[str, Any] = {
    "xla_disable_hlo_passes": "fusion,cpu-instruction-fusion,constant_folding",
    "xla_backend_optimization_level": 0,
    "xla_allow_excess_precision": False,
}
"""XLA:CPU options under which nearly every operation is rounded by itself. With fusion, the compiler contracts products
and sums differently around every change, and even exact passes would differ in the last bit; and what it computes
itself, from constants, it rounds otherwise than the code that it generates."""

UNSIMPLIFIED: Mapping[str, Any] = {**UNFUSED, "xla_disable_hlo_passes": UNFUSED["xla_disable_hlo_passes"] + ",algsimp"}
"""The same with XLA's simplifier off, which rounds divisions by constants (it multiplies) otherwise than other ones.
XLA is not made to run without it: with jaxlib 0.10.2, scatters into scalars crash, and slices of everything may share
memory with values that are still needed."""

UNSIMPLIFIED_EQUATIONS = 200
"""Larger programs are not given to XLA without its simplifier: in those, more than is known here has gone wrong."""

Evaluator = Callable[[Sequence[Any]], list[Any]]
"""Flat inputs to flat outputs."""


class Evaluation:
    """A program to be compared with others; compiled when first run, at most once each way.

    Attributes:
      program: the program.
      simplified: runs it with `UNFUSED`.
      unsimplified: runs it with `UNSIMPLIFIED`; None where XLA is known not to be up to it, or the program is large.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.simplified = evaluator(program)
        safe = program.exported is None and operation_count(program.jaxpr) <= UNSIMPLIFIED_EQUATIONS
        self.unsimplified = (
            evaluator(program, UNSIMPLIFIED) if safe and runs_unsimplified(program.jaxpr.jaxpr) else None
        )


def evaluator(program: Program, options: Mapping[str, Any] = UNFUSED) -> Evaluator:
    """A function that runs ``program`` on flat inputs of one set of shapes, with every operation rounded by itself."""
    compiled: list[Callable[..., list[Any]]] = []

    def run(flat: Sequence[Any]) -> list[Any]:
        if not compiled:
            compiled.append(program.compile_flat(flat, options))
        return compiled[0](*flat)

    return run


def runs_unsimplified(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether nothing in ``jaxpr`` is known to go wrong without XLA's simplifier."""
    return all(
        _runs_unsimplified(eqn) and all(map(runs_unsimplified, jex_core.jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


def _runs_unsimplified(eqn: Any) -> bool:
    if eqn.primitive.name.startswith("scatter"):
        return bool(eqn.invars[0].aval.shape != ())
    return not (eqn.primitive.name == "slice" and eqn.outvars[0].aval.shape == eqn.invars[0].aval.shape)
