import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex_core
from support import check, operations, run
from xlapass.core.manager import PassManager
from xlapass.core.tracing import trace
from xlapass.passes.common_subexpressions import by_value

X = jnp.asarray([-1.5, 0.0, 2.0], jnp.float32)


def test_before_and_after():
    def f(x):
        return jnp.sin(x) + 2.0, jnp.sin(x) * 2.0, 2.0 + jnp.sin(x)

    check(
        "common-subexpressions",
        f,
        X,
        before="""
            program(a:f32[3]):
              b:f32[3] = sin a
              c:f32[3] = add b 2.0:f32[]
              d:f32[3] = sin a
              e:f32[3] = mul d 2.0:f32[]
              f:f32[3] = sin a
              g:f32[3] = add 2.0:f32[] f
              return c, e, g
        """,
        after="""
            program(a:f32[3]):
              b:f32[3] = sin a
              c:f32[3] = add b 2.0:f32[]
              d:f32[3] = mul b 2.0:f32[]
              return c, d, c
        """,
    )


def unchanged(f, *args):
    program = trace(f, *args)
    return PassManager("common-subexpressions").run(program) is program


def test_different_things_stay_apart():
    assert unchanged(lambda x: (x + 0.0, x + -0.0), X)
    assert unchanged(lambda x: (x + 1.0, x + 2.0), X)
    assert unchanged(lambda x: (x - 1.0, 1.0 - x), X)
    assert unchanged(lambda x: (x.sum(0), x.sum(1)), jnp.ones((2, 2)))
    assert unchanged(lambda x: (x**2, x**3), X)
    assert unchanged(lambda x: (lax.iota(jnp.int32, 3), lax.iota(jnp.uint32, 3)), X)


def test_nan_payloads_stay_apart():
    quiet, other = (np.uint32(bits).view(np.float32) for bits in (0x7FC00000, 0x7FC00001))
    assert unchanged(lambda x: (lax.add(x, quiet), lax.add(x, other)), X)


def test_weak_and_strong_literals_stay_apart():
    def f(x):
        return lax.broadcast(2.0, (3,)), lax.broadcast(np.float32(2), (3,))

    before, after = trace(f, X), run("common-subexpressions", f, X)
    assert [a.weak_type for a in after.out_avals] == [a.weak_type for a in before.out_avals]


def test_random_state_barriers_and_effects_stay():
    assert unchanged(lambda: (lax.rng_uniform(0.0, 1.0, (3,)), lax.rng_uniform(0.0, 1.0, (3,))))
    assert unchanged(lambda x: (lax.optimization_barrier(x), lax.optimization_barrier(x)), X)
    assert unchanged(lambda x: (jax.debug.print("{}", x), jax.debug.print("{}", x)), X)

    noisy_p = jex_core.Primitive("noisy")
    noisy_p.def_effectful_abstract_eval2(lambda x: x)
    assert unchanged(lambda x: (noisy_p.bind(x), noisy_p.bind(x)), X)


def test_keys_are_pure():
    def f(key):
        return jax.random.bits(key, (2,)), jax.random.bits(key, (2,))

    key = jax.random.key(7)
    after = run("inline,common-subexpressions", f, key)
    assert operations(after).count("random_bits") == 1


def test_recomputation_that_was_asked_for_stays():
    g = jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)))
    assert unchanged(lambda x: (g(x), g(x)), X)


def test_control_flow():
    step = jax.jit(lambda c, x: (c + x, c))

    def f(x):
        def body(c, xi):
            return c + jnp.sin(xi), jnp.sin(xi)

        return lax.scan(body, 0.0, x), lax.scan(step, 0.0, x), lax.scan(step, 0.0, x)

    before = trace(f, X)
    after = PassManager("common-subexpressions").run(before)
    assert operations(before).count("sin") == 2 and operations(after).count("sin") == 1


def test_calls_of_one_body_are_merged():
    g = jax.jit(lambda x: jnp.sin(x) * 2)
    assert operations(run("common-subexpressions", lambda x: g(x) + g(x), X)).count("jit") == 1


def test_equal_constants():
    table = jnp.arange(3.0)
    copy, large, another = table + 0, jnp.ones((200, 200)), jnp.ones((200, 200))

    def f(x):
        return x + table, x * copy, x + large.sum() + another.sum()

    after = run("common-subexpressions", f, X)
    assert [c.shape for c in after.consts] == [(3,), (200, 200), (200, 200)]


def test_symbolic_dimensions():
    def f(x):
        return x.reshape(-1) + jnp.arange(x.size), x.reshape(-1) * jnp.arange(x.size)

    after = run("common-subexpressions", f, jnp.ones((2, 3)), dynamic="b, ...")
    assert operations(after).count("reshape") == 1 and operations(after).count("iota") == 1


def test_parameters_are_compared_by_value():
    assert by_value(0.0) != by_value(-0.0)
    assert by_value(np.float32(0.0)) != by_value(np.float32(-0.0))
    assert by_value(float("nan")) == by_value(float("nan"))
    assert by_value((np.int64(1), 2)) == by_value((1, 2))
    assert by_value((1.0, 2)) != by_value((1.0, 3))
