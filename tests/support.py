"""What the tests of passes share."""

from __future__ import annotations

from typing import Any

from jax.extend import core as jex_core
from xlapass.core.driver import as_program
from xlapass.core.manager import PassManager
from xlapass.core.program import Program
from xlapass.core.text import canonical_text
from xlapass.core.tracing import trace
from xlapass.testing import (
    assert_equal_results,
    assert_idempotent,
    assert_rewrites,
    assert_rule_does_not_fire,
    program_text,
)


def run(subject: Any, fn: Any, *args: Any, **options: Any) -> Program:
    """The program after ``subject``, with equal results, and which a second run leaves alone."""
    assert_equal_results(subject, fn, *args, **options)
    return assert_idempotent(subject, fn, *args, **options)


def check(subject: Any, fn: Any, *args: Any, before: str, after: str, **options: Any) -> Program:
    """Asserts the program before and after ``subject`` as text, and whatever `run` asserts."""
    found = canonical_text(program_text(trace(fn, *args, **options)))
    assert found == canonical_text(before), f"before, the program reads:\n{found}"
    assert_rewrites(subject, fn, *args, expect=after, **options)
    return run(subject, fn, *args, **options)


def operations(program: Program) -> list[str]:
    """Names of the primitives of a program, those inside control flow included."""
    found, pending = [], [program.jaxpr.jaxpr]
    while pending:
        jaxpr = pending.pop()
        for eqn in jaxpr.eqns:
            found.append(eqn.primitive.name)
            pending.extend(jex_core.jaxprs_in_params(eqn.params))
    return found


def applies(rule: str, fn: Any, *args: Any, left: list[str] | None, first: str = "", **options: Any) -> Program:
    """Asserts that one rule of `simplify` rewrites ``fn``, and which operations are left by all of them.

    The passes ``first`` run before.
    """
    program = PassManager(first).run(trace(fn, *args, **options)) if first else as_program(fn, args, **options)
    alone = run(f"simplify{{only={rule}}}", program)
    assert alone is not program and len(alone.history) > len(program.history), f"{rule} did not apply:\n{program}"
    after = run("simplify", program)
    assert left is None or operations(after) == left, after
    return after


def declines(rule: str, fn: Any, *args: Any, **options: Any) -> None:
    """Asserts that a rule of `simplify` does not apply."""
    assert_rule_does_not_fire("simplify", fn, *args, rule=rule, **options)
