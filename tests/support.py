"""What the tests of passes share: run a pass under the default verification, compare bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core as jex_core
from programs import assert_identical
from xlapass.core.manager import PassManager
from xlapass.core.program import Program
from xlapass.core.tracing import trace

UNOPTIMIZED = {
    "xla_disable_hlo_passes": "fusion,cpu-instruction-fusion,algsimp,algebraic-simplifier",
    "xla_backend_optimization_level": 0,
}
"""XLA options under which every operation computes what it says: no contraction to fused multiply-adds."""


def run(pipeline: str, fn: Callable[..., Any], *args: Any, **keywords: Any) -> Program:
    """The program of ``fn`` after ``pipeline``, structure verified; running it again must change nothing."""
    before = trace(fn, *args, **keywords)
    after = PassManager(pipeline).run(before)
    again = PassManager(pipeline).run(after)
    assert again.jaxpr is after.jaxpr, f"a second run of {pipeline} changes the program again:\n{again}"
    return after


def text(program: Program) -> str:
    """The program's jaxpr on one line."""
    return one_line(str(program.jaxpr))


def one_line(lines: str) -> str:
    """Text with every run of white space made one space."""
    return " ".join(lines.split())


def operations(program: Program) -> list[str]:
    """Names of the primitives of a program, those inside control flow included."""
    found, pending = [], [program.jaxpr.jaxpr]
    while pending:
        jaxpr = pending.pop()
        for eqn in jaxpr.eqns:
            found.append(eqn.primitive.name)
            pending.extend(jex_core.jaxprs_in_params(eqn.params))
    return found


def evaluate_exactly(program: Program, *args: Any) -> list[jax.Array]:
    """Flat results of a program, compiled so that XLA changes no rounding."""
    flat = jax.tree_util.tree_leaves(args)
    with jax.enable_x64(program.x64):
        lowered = jax.jit(program.function_of_constants).lower(program.consts, *flat)
        results = lowered.compile(compiler_options=UNOPTIMIZED)(program.consts, *flat)
    return list(results)


def assert_same_bits(before: Program, after: Program, *args: Any) -> None:
    """Both programs give the same bits at ``args``; any NaN equals any other."""
    assert_identical(evaluate_exactly(after, *args), evaluate_exactly(before, *args))
