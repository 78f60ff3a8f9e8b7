"""Running programs so that every operation is rounded by itself, which makes their results comparable bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.extend import core as jex_core

from ..program import Program

UNFUSED: Mapping[str, Any] = {
    "xla_disable_hlo_passes": "fusion,cpu-instruction-fusion,constant_folding,algsimp",
    "xla_backend_optimization_level": 0,
    "xla_allow_excess_precision": False,
}
"""XLA:CPU options under which every operation is rounded by itself. With fusion, the compiler contracts products and
sums differently around every change, and even exact passes would differ in the last bit; and what it computes itself,
from constants, it rounds otherwise than the code that it generates."""


def evaluator(program: Program) -> Callable[[Sequence[Any]], list[Any]]:
    """A function that runs ``program`` on flat inputs of one set of shapes, with every operation rounded by itself."""
    compiled: list[Callable[..., list[Any]]] = []

    def run(flat: Sequence[Any]) -> list[Any]:
        if not compiled:
            compiled.append(program.compile_flat(flat, unfused_options(program.jaxpr.jaxpr)))
        return compiled[0](*flat)

    return run


def unfused_options(jaxpr: jex_core.Jaxpr) -> dict[str, Any]:
    """`UNFUSED`, with XLA's simplifier left on for a program that scatters into a scalar: without it XLA crashes."""
    options = dict(UNFUSED)
    if _scatters_into_scalar(jaxpr):
        options["xla_disable_hlo_passes"] = "fusion,cpu-instruction-fusion,constant_folding"
    return options


def _scatters_into_scalar(jaxpr: jex_core.Jaxpr) -> bool:
    return any(
        (eqn.primitive.name.startswith("scatter") and not getattr(eqn.invars[0].aval, "shape", None))
        or any(map(_scatters_into_scalar, jex_core.jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )
