import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core as jex_core
from support import check, operations, run
from xlapass.core.manager import PassManager
from xlapass.core.tracing import trace

X = jnp.asarray([-1.5, 0.0, 2.0], jnp.float32)


def test_before_and_after():
    def f(x):
        y = jnp.sin(x) + 1
        jnp.cos(y)
        return x * 2

    check(
        "dead-code",
        f,
        X,
        before="""
            program(a:f32[3]):
              b:f32[3] = sin a
              c:f32[3] = add b 1.0:f32[]
              _:f32[3] = cos c
              d:f32[3] = mul a 2.0:f32[]
              return d
        """,
        after="""
            program(a:f32[3]):
              b:f32[3] = mul a 2.0:f32[]
              return b
        """,
    )


def scan_with_unused_results(x):
    def step(carry, xi):
        used, unused = carry
        return (used + xi, unused * xi), (jnp.sin(xi), jnp.cos(xi))

    (used, _), (sines, _) = lax.scan(step, (0.0, 1.0), x)
    return used, sines


def cond_with_an_unused_result(x):
    return lax.cond(x[0] > 0, lambda y: (jnp.sin(y), jnp.exp(y)), lambda y: (y, jnp.tan(y)), x)[0]


def while_with_an_unused_result(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * jnp.cos(c[1]), c[2] + 1), (0, x, x))[2]


@pytest.mark.parametrize(
    ("fn", "gone"),
    [
        (scan_with_unused_results, {"cos", "mul"}),
        (cond_with_an_unused_result, {"exp", "tan"}),
        (while_with_an_unused_result, {"cos", "mul"}),
        (lambda x: jax.jit(lambda y: (jnp.sin(y), jnp.cos(y)))(x)[0], {"cos"}),
        (lambda x: jax.nn.relu(x) + 0 * jax.nn.silu(x).size, {"logistic"}),
    ],
    ids=["scan", "cond", "while", "jit", "custom_jvp"],
)
def test_unused_results_of_control_flow(fn, gone):
    before, after = trace(fn, X), run("dead-code", fn, X)
    assert gone <= set(operations(before))
    assert not gone & set(operations(after))


def test_unused_constants_are_forgotten():
    table, used = jnp.ones((100, 100)), jnp.arange(3.0)

    def f(x):
        jnp.sin(table).sum()
        return x + used

    before = trace(f, X)
    after = PassManager("dead-code").run(before)
    assert len(before.consts) == 2
    assert [c is used for c in after.consts] == [True]


def test_constants_of_bodies_are_forgotten():
    table = np.ones(3, np.float32)

    def f(x):
        return jax.jit(lambda y: (y * 2, y + jnp.asarray(table)))(x)[0]

    program = PassManager("dead-code").run(trace(f, X))
    assert program.consts == []
    assert operations(program) == ["jit", "mul"]


def test_nothing_to_do_returns_the_same_program():
    program = trace(lambda x: lax.scan(lambda c, y: (c + y, c), x[0], x), X)
    assert PassManager("dead-code").run(program) is program


def test_effects_stay():
    def f(x):
        jax.debug.print("{}", jnp.sin(x))
        lax.cond(x[0] > 0, lambda y: jax.debug.print("{}", y), lambda y: None, x)
        return x

    program = trace(f, X)
    assert PassManager("dead-code").run(program) is program


def test_effects_of_foreign_primitives_stay():
    noisy_p = jex_core.Primitive("noisy")
    noisy_p.def_effectful_abstract_eval2(lambda x: x)

    def f(x):
        noisy_p.bind(jnp.sin(x))
        return x

    program = PassManager("dead-code").run(trace(f, X))
    assert operations(program) == ["sin", "noisy"]


def test_a_while_inside_a_while():
    def f(x):
        def outer(carry):
            i, y, z = carry
            _, inner, _ = lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] + y, jnp.cos(c[2])), (0, y, z))
            return i + 1, inner, jnp.tan(z)

        return lax.while_loop(lambda c: c[0] < 3, outer, (0, x, x))[1]

    after = run("dead-code", f, X)
    assert not {"cos", "tan"} & set(operations(after))


def test_a_while_keeps_what_its_condition_reads():
    def f(x, limit):
        return lax.while_loop(lambda c: c[0] < limit, lambda c: (c[0] + c[2], c[1] * 2, c[2]), (0, x, 1))[1]

    before, after = trace(f, X, 3), PassManager("dead-code").run(trace(f, X, 3))
    assert (
        after.jaxpr.jaxpr.eqns[0].params["body_jaxpr"].in_avals
        == before.jaxpr.jaxpr.eqns[0].params["body_jaxpr"].in_avals
    )


def test_references_stay():
    def f(x):
        ref = jax.new_ref(x)
        ref[...] = jnp.sin(x)
        return ref[...]

    before, after = trace(f, X), PassManager("dead-code").run(trace(f, X))
    assert operations(before) == operations(after)
    assert (after(X) == before(X)).all()


def test_symbolic_dimensions():
    after = run("dead-code", lambda x: (jnp.sin(x).sum(), x * 2)[1], jnp.ones((2, 3)), dynamic="b, ...")
    assert operations(after) == ["mul"]
