"""The kit for pass authors: what it accepts, what it refuses, and what its failures say."""

import dataclasses
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from xlapass import testing
from xlapass.core.errors import UsageError
from xlapass.core.pass_ import GraphPass, Pass, PassResult
from xlapass.core.patterns import op, var
from xlapass.core.plugins import PROJECT, Entry, PluginWarning, hookimpl
from xlapass.core.program import Program
from xlapass.core.rewrite import Rule
from xlapass.core.tracing import trace

X = jnp.asarray([1.0, -2.0, 3.0], jnp.float32)

x = var("x")
double_negation = Rule("double-negation", op.neg(op.neg(x)), x)
halve_twice = Rule("halve-twice", op.mul(op.mul(x, 0.5), 0.5), lambda x: x * 0.25)
wrong_sine = Rule("wrong-sine", op.sin(x), lambda x: jnp.cos(x))
third = Rule("third", op.div(x, 3.0), lambda x: x * (1 / 3), numerics="reassociating")


def not_a_vector(match):
    return "a vector is left alone" if match.root.outputs[0].shape else None


picky = Rule("picky", op.sin(x), lambda x: jnp.sin(x), check=not_a_vector)


def negate_twice(v):
    return lax.neg(lax.neg(v)) * 2


def test_before_and_after():
    after = testing.assert_rewrites(
        double_negation,
        negate_twice,
        X,
        expect="""
            program(input:f32[3]):
              twice:f32[3] = mul input 2.0:f32[]
              return twice
        """,
    )
    assert isinstance(after, Program)
    assert after.history == ("rules",)


def test_names_and_indentation_do_not_matter_but_the_rest_does():
    expect = "program(q:f32[3]):\nz:f32[3]   =  mul q 3.0:f32[]\nreturn z"
    with pytest.raises(AssertionError) as failure:
        testing.assert_rewrites(double_negation, negate_twice, X, expect=expect)
    message = str(failure.value)
    assert "-  b:f32[3] = mul a 3.0:f32[]" in message
    assert "+  b:f32[3] = mul a 2.0:f32[]" in message
    assert " program(a:f32[3]):" in message


def test_a_subject_that_does_nothing_says_how_close_it_came():
    with pytest.raises(AssertionError, match="did not change the program") as failure:
        testing.assert_rewrites([double_negation, picky], jnp.sin, X, expect="")
    assert "picky at sin: a vector is left alone" in str(failure.value)


def test_several_rules_and_control_flow():
    def f(v):
        return lax.fori_loop(0, 3, lambda i, c: lax.neg(lax.neg(c)) * 0.5 * 0.5, v)

    testing.assert_rewrites(
        [double_negation, halve_twice],
        f,
        X,
        expect="""
        program(a:f32[3]):
          count:~i32[], r:f32[3] = scan[length=3 num_carry=2 num_consts=0] 0:i32[] a
            jaxpr(i:~i32[], c:f32[3]):
              next:~i32[] = add i 1:i32[]
              d:f32[3] = mul c 0.25:f32[]
              return next, d
          return r
        """,
    )


def test_unchanged():
    testing.assert_unchanged(double_negation, lambda v: -v, X)
    with pytest.raises(AssertionError, match="changed the program") as failure:
        testing.assert_unchanged(double_negation, negate_twice, X)
    assert "-  b:f32[3] = neg a" in str(failure.value)


def test_equal_results():
    testing.assert_equal_results(double_negation, negate_twice, X)
    testing.assert_equal_results(third, lambda v: v / 3, X)
    with pytest.raises(AssertionError, match=r"'rules'.*changed results.*'wrong-sine'"):
        testing.assert_equal_results(wrong_sine, jnp.sin, X)
    with pytest.raises(AssertionError, match="changed results beyond its declared 'exact'"):
        testing.assert_equal_results(dataclasses.replace(third, numerics="exact"), lambda v: v / 3, X)


def test_equal_results_of_a_rule_that_forgets_an_infinity():
    vanish = Rule("vanish", op.sub(x, x), lambda x: jnp.zeros_like(x))
    with pytest.raises(AssertionError, match="differs"):
        testing.assert_equal_results(vanish, lambda v: v - v, X)


def test_idempotence():
    testing.assert_idempotent(halve_twice, lambda v: v * 0.5 * 0.5, X)
    with pytest.raises(AssertionError, match="a second run"):
        testing.assert_idempotent(Once(), lambda v: v + 1, X)


@dataclasses.dataclass(frozen=True)
class Once(GraphPass):
    """Appends a copy of the result, every time."""

    name = "once"

    def apply(self, graph, context):
        (out,) = graph.outputs
        (new,) = graph.splice(lambda v: v * 1, out, before=graph.terminator)
        graph.set_operand(graph.terminator, 0, new)
        return True


def test_rules_that_must_not_fire():
    testing.assert_rule_does_not_fire(double_negation, lambda v: -jnp.abs(-v), X)
    testing.assert_rule_does_not_fire(picky, jnp.sin, X, because="a vector")
    testing.assert_rule_does_not_fire([double_negation, picky], negate_twice, X, rule="picky")
    with pytest.raises(AssertionError, match="'double-negation' applied"):
        testing.assert_rule_does_not_fire([double_negation, picky], negate_twice, X)
    with pytest.raises(AssertionError, match="a vector is left alone"):
        testing.assert_rule_does_not_fire(picky, jnp.sin, X, because="another reason")
    with pytest.raises(AssertionError, match="has no rule 'pikcy'"):
        testing.assert_rule_does_not_fire(picky, jnp.sin, X, rule="pikcy")


def test_passes_that_break_the_program_are_caught():
    @dataclasses.dataclass(frozen=True)
    class Narrow(Pass):
        """Computes in half precision."""

        name = "narrow"

        def run(self, program, context):
            closed = jax.make_jaxpr(lambda v: v.astype(jnp.float16))(X)
            return PassResult(program.replace(jaxpr=closed), True)

    with pytest.raises(AssertionError, match=r"pass 'narrow'.*output 0 has type float16\[3\]"):
        testing.assert_unchanged(Narrow(), lambda v: v, X)


class BringsOnce:
    """A plugin."""

    @hookimpl
    def xlapass_passes(self):
        return {"once": Entry(Once, "for tests")}

    @hookimpl
    def xlapass_rules(self):
        return {"once": Entry([double_negation])}


class AlsoBringsOnce(BringsOnce):
    """Another plugin that claims the same name."""


def test_registries_with_plugins():
    registry = testing.registry_with(BringsOnce())
    assert "once" in registry.names("pass")
    assert registry.rules_for("once") == [double_negation]
    text = "program(a:f32[]):\n b:f32[] = mul a 1.0:f32[]\n return b"
    testing.assert_rewrites("once", lambda v: v, np.float32(1), expect=text, registry=registry)
    with pytest.raises(UsageError, match="there is no pass or pipeline 'once'"):
        testing.assert_unchanged("once", lambda v: v, X)
    with pytest.raises(UsageError, match="both bring a pass named 'once'"):
        testing.registry_with(BringsOnce(), AlsoBringsOnce())


def test_a_strangers_plugin_that_fails_is_no_failure_of_the_test(monkeypatch):
    broken = metadata.EntryPoint("broken", "no_such_module.plugin", PROJECT)
    found = [*metadata.entry_points(group=PROJECT), broken]
    monkeypatch.setattr(metadata, "entry_points", lambda group: found)
    with pytest.warns(PluginWarning, match=r"plugin 'broken' .* is left out"):
        testing.assert_unchanged("simplify", jnp.sin, X)
    with pytest.raises(UsageError, match=r"plugin 'no_such_module' .*failed"):
        testing.registry_with("no_such_module")


def test_what_trace_takes_is_passed_on():
    program = trace(negate_twice, X)
    assert testing.assert_unchanged("", program) is program
    testing.assert_equal_results(double_negation, negate_twice, X, dynamic="n")
    testing.assert_equal_results(double_negation, lambda p, v: lax.neg(lax.neg(v)) * p, X, params=np.float32(2))


def test_a_mixture_of_rules_and_passes_is_refused():
    with pytest.raises(UsageError, match="a pipeline is made of passes"):
        testing.assert_unchanged([double_negation, Once()], negate_twice, X)
