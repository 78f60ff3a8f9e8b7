"""Running programs so that every operation is rounded by itself, which makes their results comparable bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.extend import core as jex_core

from ..program import Program

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
memory with values that are still needed. Only good for a second opinion on programs that differ with it."""

Evaluator = Callable[[Sequence[Any]], list[Any]]
"""Flat inputs to flat outputs."""


def evaluator(program: Program, *, simplified: bool = True) -> Evaluator:
    """A function that runs ``program`` on flat inputs of one set of shapes, with every operation rounded by itself."""
    compiled: list[Callable[..., list[Any]]] = []

    def run(flat: Sequence[Any]) -> list[Any]:
        if not compiled:
            compiled.append(program.compile_flat(flat, UNFUSED if simplified else UNSIMPLIFIED))
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
