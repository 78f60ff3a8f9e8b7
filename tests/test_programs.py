"""The programs that other tests draw: they run, and what they are made of is really drawn."""

import collections

import jax
import pytest
from hypothesis import given, settings
from jax.extend import core as jex_core
from programs import assert_identical, examples, programs

KINDS = {
    "plain": {},
    "x64": {"x64": True},
    "symbolic": {"symbolic": True},
    "effects": {"effects": True},
}


def primitives_in(jaxpr, counts):
    for eqn in jaxpr.eqns:
        counts[eqn.primitive.name] += 1
        for inner in jex_core.jaxprs_in_params(eqn.params):
            primitives_in(inner, counts)


@pytest.mark.parametrize("kind", KINDS)
def test_programs_trace_and_run(kind):
    @settings(max_examples=examples(4))
    @given(programs(**KINDS[kind]))
    def check(drawn):
        drawn.jaxpr()
        with drawn.context():
            results = jax.jit(drawn.fn)(*drawn.args_for(3))
            again = jax.jit(drawn.fn)(*drawn.args_for(3))
        assert_identical(results, again)
        jax.effects_barrier()

    check()


def test_programs_are_varied():
    counts = collections.Counter()
    shapes, dtypes, constants = set(), set(), 0

    @settings(max_examples=examples(150))
    @given(programs())
    def collect(drawn):
        nonlocal constants
        closed = drawn.jaxpr()
        constants += len(closed.consts)
        shapes.update(v.aval.shape for v in closed.jaxpr.invars)
        dtypes.update(str(v.aval.dtype) for v in closed.jaxpr.invars)
        primitives_in(closed.jaxpr, counts)

    collect()
    assert {"jit", "scan", "while", "cond", "custom_jvp_call", "composite"} <= set(counts)
    assert {"add", "mul", "select_n", "transpose", "reduce_sum", "concatenate", "dot_general"} <= set(counts)
    assert len(counts) > 60
    assert len(dtypes) >= 8
    assert any(0 in shape for shape in shapes) and any(len(shape) == 3 for shape in shapes)
    assert constants > 10
