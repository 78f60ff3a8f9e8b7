"""Every exact pass, alone and together, on programs drawn by hypothesis: results stay the same to the bit."""

import hypothesis
import pytest
from hypothesis import given, settings
from programs import programs
from xlapass.core.instruments.numerics import NumericalVerifier
from xlapass.core.instruments.structure import StructuralVerifier
from xlapass.core.manager import PassManager
from xlapass.core.tracing import trace

PASSES = ("inline", "dead-code", "common-subexpressions", "fold-constants", "simplify")
PIPELINE = ",".join(("inline", *PASSES, "fixpoint(simplify,fold-constants,common-subexpressions,dead-code)"))

FEWER = max(hypothesis.settings().max_examples // 4, 1)
"""Examples for tests that compile a program after each of a dozen passes."""


def run(pipeline, drawn):
    with drawn.context():
        program = trace(drawn.fn, *drawn.args, dynamic=drawn.dynamic)
        after = PassManager(pipeline, instruments=[StructuralVerifier(), NumericalVerifier()]).run(program)
    return program, after


@pytest.mark.parametrize("name", PASSES)
@settings(max_examples=2 * FEWER)
@given(drawn=programs())
def test_alone(name, drawn):
    _, after = run(name, drawn)
    again = PassManager(name).run(after)
    assert again is after, f"a second run of {name} changes the program again"


@settings(max_examples=FEWER)
@given(drawn=programs(most_steps=14))
def test_together(drawn):
    run(PIPELINE, drawn)


@settings(max_examples=FEWER)
@given(drawn=programs(x64=True))
def test_64_bit_types(drawn):
    run(PIPELINE, drawn)


@settings(max_examples=FEWER)
@given(drawn=programs(symbolic=True))
def test_symbolic_sizes(drawn):
    run(PIPELINE, drawn)


@given(drawn=programs(effects=True))
def test_effects(drawn):
    """Structure alone: the drawn callbacks are not called here."""
    with drawn.context():
        PassManager(PIPELINE).run(trace(drawn.fn, *drawn.args, dynamic=drawn.dynamic))
