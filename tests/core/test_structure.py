"""Structural verification: every way in which a pass can break a program is told apart and named."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core as jex_core
from xlapass.core.errors import VerificationError
from xlapass.core.graph import Graph
from xlapass.core.manager import PassManager
from xlapass.core.pass_ import Pass, PassResult
from xlapass.core.plugins import load_registry
from xlapass.core.tracing import trace

X = np.asarray([1.0, -2.0], np.float32)
TABLE = jnp.asarray([3.0, 4.0])
REGISTRY = load_registry(discover=False)


def run(change, fn, *args, claim=True, **keywords):
    """Runs a pass that does ``change`` to the program of ``fn``, and claims what it is told to claim."""

    @dataclasses.dataclass(frozen=True)
    class Breaks(Pass):
        """Breaks the program."""

        name = "breaks"
        numerics = "lossy"

        def run(self, program, context):
            return PassResult(change(program), claim)

    return PassManager([Breaks()], registry=REGISTRY).run(trace(fn, *args, **keywords))


def assert_caught(message, change, fn, *args, **keywords):
    with pytest.raises(VerificationError, match=message) as failure:
        run(change, fn, *args, **keywords)
    assert failure.value.message.startswith("pass 'breaks' (plugin 'given') broke the program: ")
    assert failure.value.hint == "leave it out with --skip breaks, and tell its author"


def retrace(fn):
    """A change to the program of another function at the same types."""
    return lambda program: program.replace(jaxpr=jax.make_jaxpr(fn)(*program.in_avals))


def edit(change):
    """A change of the graph in place."""

    def apply(program):
        graph = Graph(program.jaxpr)
        change(graph)
        return program.replace(jaxpr=graph.to_closed())

    return apply


def with_jaxpr(program, **changes):
    """A change of the jaxpr, whatever may come of it."""
    jaxpr = program.jaxpr.jaxpr
    fields = {name: getattr(jaxpr, name) for name in ("constvars", "invars", "outvars", "eqns", "effects")} | changes
    new = jex_core.Jaxpr(*fields.values(), jaxpr.debug_info.with_unknown_names())
    return program.replace(jaxpr=jex_core.ClosedJaxpr(new, program.jaxpr.consts))


# -- what may be done --------------------------------------------------------------------------------------------------


def test_honest_passes_pass():
    assert run(lambda p: p, jnp.sin, X, claim=False).history == ()
    assert run(retrace(lambda v: jnp.cos(v) * TABLE), jnp.sin, X).history == ("breaks",)
    assert run(retrace(lambda v, s: v * s), lambda v, s: v + s, X, 2.0)


# -- claims ------------------------------------------------------------------------------------------------------------


def test_lies_about_change():
    assert_caught("it says that it changed the program, and did not", lambda p: p, jnp.sin, X)
    assert_caught("it says that it changed nothing, and did", retrace(jnp.cos), jnp.sin, X, claim=False)
    assert_caught("it says that it changed the program, and did not", lambda p: p.replace(name="other"), jnp.sin, X)


# -- the interface -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "fn"),
    [
        (r"output 0 has type float16\[2\] where float32\[2\] was", lambda v, s: v.astype(np.float16)),
        (r"output 0 has type float32\[1\] where float32\[2\] was", lambda v, s: v[:1]),
        (r"output 0 has type float32\[2,1\] where float32\[2\] was", lambda v, s: v[:, None]),
        (r"it has 2 outputs where there were 1", lambda v, s: (v, v)),
        (r"it has 0 outputs where there were 1", lambda v, s: ()),
    ],
)
def test_types_of_outputs(message, fn):
    assert_caught(message, retrace(fn), lambda v, s: v * s, X, 2.0)


def test_types_of_inputs():
    other = jax.make_jaxpr(lambda v: v[:2])(np.ones(3, np.float32))
    assert_caught(r"input 0 has type float32\[3\] where float32\[2\] was", lambda p: p.replace(jaxpr=other), jnp.sin, X)
    assert_caught("it has 0 inputs where there were 1", retrace_without_inputs, lambda v: jnp.zeros(2), X)


def retrace_without_inputs(program):
    return program.replace(jaxpr=jax.make_jaxpr(lambda: jnp.zeros(2))())


def test_weak_types():
    assert_caught("the weak type of output 0 changed", retrace(lambda s: s.astype(np.int32)), lambda s: s + 1, 3)
    strong = jax.make_jaxpr(lambda s: s + 1)(np.int32(3))
    assert_caught("the weak type of input 0 changed", lambda p: p.replace(jaxpr=strong), lambda s: s + 1, 3)


def test_structure_names_and_donations():
    change = {
        "the structure of inputs or outputs changed": {"out_tree": jax.tree_util.tree_structure([1])},
        "names, donations or the width of types changed": {"input_names": ("y",)},
    }
    for message, changes in change.items():
        assert_caught(message, lambda p, changes=changes: retrace(jnp.cos)(p).replace(**changes), jnp.sin, X)
    for changes in ({"donated": (True,)}, {"output_names": ("y",)}, {"x64": True}):
        assert_caught(
            "names, donations or the width of types changed",
            lambda p, changes=changes: retrace(jnp.cos)(p).replace(**changes),
            jnp.sin,
            X,
        )


# -- effects -----------------------------------------------------------------------------------------------------------


def printing(v):
    jax.debug.callback(lambda _: None, v)
    jax.debug.callback(lambda _: None, v + 1)
    return v


def noted(v):
    jax.debug.callback(first, v, ordered=True)
    jax.debug.callback(second, v, ordered=True)
    return v


def first(_):
    pass


def second(_):
    pass


def test_lost_and_gained_effects():
    assert_caught(r"its effects changed: lost \['Debug'\], gained \[\]", retrace(lambda v: v), printing, X)
    assert_caught(r"its effects changed: lost \[\], gained \['Debug'\]", retrace(printing), lambda v: v + 1, X)


def test_an_effect_less():
    def remove_one(graph):
        graph.erase(graph.nodes()[0])

    message = "it had 2 operations with effects at the top level and in calls, and has 1"
    assert_caught(message, edit(remove_one), printing, X)


def test_an_effect_less_in_a_body():
    def remove_one(graph):
        for region in graph.walk():
            for node in region.nodes():
                if node.name == "debug_callback":
                    region.erase(node)
                    return

    message = "it had 2 operations with effects at the top level and in calls, and has 1"
    assert_caught(message, edit(remove_one), lambda v: lax.fori_loop(0, 2, lambda i, c: printing(c), v), X)


def test_ordered_effects_out_of_order():
    def swap(program):
        eqns = list(program.jaxpr.eqns)
        return with_jaxpr(program, eqns=eqns[::-1])

    assert_caught("operations with ordered effects changed their order", swap, noted, X)
    assert run(lambda p: with_jaxpr(p, eqns=list(p.jaxpr.eqns)), noted, X)


def test_effects_that_are_not_declared():
    change = lambda p: with_jaxpr(retrace(noted)(p), effects=p.jaxpr.effects)  # noqa: E731
    assert_caught(r"the effects \['OrderedDebug'\] are not declared", change, lambda v: v * 1, X)


# -- the jaxpr ---------------------------------------------------------------------------------------------------------


def fn(v):
    return jnp.sin(v) * TABLE


def test_a_variable_that_nothing_defines():
    message = r"mul reads a variable of type float32\[2\] that nothing defines"
    assert_caught(message, lambda p: with_jaxpr(p, eqns=list(p.jaxpr.eqns[1:])), fn, X)
    message = r"the result reads a variable of type float32\[2\] that nothing defines"
    assert_caught(message, lambda p: with_jaxpr(p, eqns=list(p.jaxpr.eqns[:1])), fn, X)


def test_a_variable_read_before_it_is_defined():
    message = r"mul reads a variable of type float32\[2\] that nothing defines"
    assert_caught(message, lambda p: with_jaxpr(p, eqns=list(p.jaxpr.eqns[::-1])), fn, X)


def test_a_variable_defined_twice():
    message = "defines a variable a second time"
    assert_caught(message, lambda p: with_jaxpr(p, eqns=[p.jaxpr.eqns[0], *p.jaxpr.eqns]), fn, X)


def test_an_equation_of_the_wrong_type():
    def mistype(graph):
        graph.set_operand(graph.nodes()[-1], 1, graph.constant(np.ones(3, np.float32)))

    assert_caught("JAX's checker", edit(mistype), fn, X)


BODIES = {
    "scan": lambda v: lax.fori_loop(0, 2, lambda i, c: c * 2.0, v),
    "while": lambda v: lax.while_loop(lambda c: c[0] < 3, lambda c: c * 2.0, v),
    "condition": lambda v: lax.while_loop(lambda c: (c * 2.0)[0] < 3, lambda c: c + 1, v),
    "cond": lambda v: lax.cond(v[0] > 0, lambda c: c * 2.0, lambda c: c, v),
    "jit": lambda v: jax.jit(lambda c: c * 2.0)(v),
    "remat": lambda v: jax.checkpoint(lambda c: c * 2.0)(v),
    "custom_jvp": lambda v: jax.nn.relu(v) * 2.0,
    "composite": lambda v: lax.composite(lambda c: c * 2.0, "test.double")(v),
    "scan in jit in cond": lambda v: lax.cond(v[0] > 0, jax.jit(BODIES["scan"]), lambda c: c, v),
}


@pytest.mark.parametrize("wrong", [np.float16(1), np.ones(3, np.float32)], ids=["dtype", "shape"])
@pytest.mark.parametrize("body", BODIES)
def test_an_equation_of_the_wrong_type_in_a_body(body, wrong):
    """JAX's checker looks into few of them."""

    def mistype(graph):
        for region in graph.walk():
            for node in region.nodes():
                if node.name == "mul":
                    region.set_operand(node, 1, region.constant(wrong))

    assert_caught("JAX's checker", edit(mistype), BODIES[body], X)


def test_a_variable_that_nothing_defines_in_a_body():
    def lose(graph):
        for region in graph.walk():
            for node in region.nodes():
                if node.name == "sin":
                    region._unlink(node)

    message = r"mul reads a variable of type float32\[2\] that nothing defines"
    assert_caught(message, edit(lose), lambda v: lax.fori_loop(0, 2, lambda i, c: jnp.sin(c) * 2.0, v), X)


def test_nonsense_parameters():
    def spoil(graph):
        graph.set_params(graph.nodes()[0], axes=(7,))

    assert_caught("JAX's checker", edit(spoil), lambda v: jnp.sum(v), X)


def test_a_body_that_does_not_fit_its_equation():
    def swap(graph):
        (loop,) = graph.nodes()
        graph.set_params(loop, jaxpr=jax.make_jaxpr(lambda i, c: (i, c[:1]))(0, X))

    assert_caught("JAX's checker", edit(swap), lambda v: lax.fori_loop(0, 2, lambda i, c: c * 2.0, v), X)


@pytest.mark.parametrize("other", [np.ones(3, np.float32), np.ones(2, np.int32)])
def test_constants_of_the_wrong_type(other):
    def swap(program):
        return program.replace(jaxpr=jex_core.ClosedJaxpr(program.jaxpr.jaxpr, [other]))

    assert_caught(r"constant 0 has type .* where float32\[2\] is declared", swap, fn, X)


def test_a_refused_pass_leaves_the_program_alone():
    program = trace(fn, X)
    text = str(program)
    with pytest.raises(VerificationError):
        run(lambda p: with_jaxpr(p, eqns=list(p.jaxpr.eqns[1:])), program.flat_function, X)
    assert str(program) == text and (np.asarray(program(X)) == np.asarray(jax.jit(fn)(X))).all()


# -- equations that say the same ---------------------------------------------------------------------------------------


def test_one_wrong_equation_among_many_alike_is_found():
    """Of new equations that say the same of the same types only one is looked at; this one says something else."""

    def widen_last(program):
        jaxpr = retrace(lambda x: [jnp.tanh(x) for _ in range(5)])(program).jaxpr.jaxpr
        last = jaxpr.eqns[-1]
        wrong = jex_core.Var(jax.core.ShapedArray((3,), np.float32))
        eqns = [*jaxpr.eqns[:-1], last.replace(outvars=[wrong])]
        return program.replace(jaxpr=jex_core.ClosedJaxpr(jaxpr.replace(eqns=eqns), ()))

    assert_caught("JAX's checker says", widen_last, lambda x: [x] * 5, X)


def test_a_wrong_literal_among_equal_equations_is_found():
    def wrong_literal(program):
        jaxpr = retrace(lambda x: [x * 2.0 for _ in range(3)])(program).jaxpr.jaxpr
        last = jaxpr.eqns[-1]
        literal = jex_core.Literal(np.zeros(7, np.int8), last.invars[1].aval)
        eqns = [*jaxpr.eqns[:-1], last.replace(invars=[last.invars[0], literal])]
        return program.replace(jaxpr=jex_core.ClosedJaxpr(jaxpr.replace(eqns=eqns), ()))

    assert_caught("Literal value", wrong_literal, lambda x: [x] * 3, X)
