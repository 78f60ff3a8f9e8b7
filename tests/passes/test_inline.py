import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core.primitives import closed_call_p
from jax.sharding import NamedSharding, PartitionSpec
from support import check, operations, run
from xlapass.core.manager import Instrument, PassManager
from xlapass.core.tracing import trace

X = jnp.asarray([-1.5, 0.0, 2.0], jnp.float32)


@jax.custom_vjp
def double(x):
    return x * 2


double.defvjp(lambda x: (x * 2, None), lambda _, g: (g * 2,))


@jax.custom_batching.custom_vmap
def halve(x):
    return x / 2


@halve.def_vmap
def _halve_batched(size, batched, x):
    return x / 2, True


def test_before_and_after():
    def f(x):
        return jax.jit(lambda y: y + 1)(x) * 3

    check(
        "inline",
        f,
        X,
        before="""
            program(a:f32[3]):
              b:f32[3] = jit[name=<lambda>] a
                jaxpr(c:f32[3]):
                  d:f32[3] = add c 1.0:f32[]
                  return d
              e:f32[3] = mul b 3.0:f32[]
              return e
        """,
        after="""
            program(a:f32[3]):
              b:f32[3] = add a 1.0:f32[]
              c:f32[3] = mul b 3.0:f32[]
              return c
        """,
    )


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (jax.nn.relu, ["max"]),
        (double, ["mul"]),
        (halve, ["div"]),
        (jax.checkpoint(jnp.sin), ["sin"]),
        (jax.jit(jax.jit(jax.jit(jnp.tanh))), ["tanh"]),
        (lax.stop_gradient, []),
        (jax.jit(lambda x: x), []),
        (jax.jit(lambda x: 1.0), []),
    ],
    ids=["custom_jvp", "custom_vjp", "custom_vmap", "remat", "nested", "stop_gradient", "identity", "literal"],
)
def test_calls_are_opened(fn, expected):
    after = run("inline", fn, X)
    assert operations(after) == expected


def test_bodies_of_control_flow_are_entered():
    def step(carry, x):
        return jax.jit(jnp.sin)(carry) + x, lax.cond(x > 0, jax.nn.relu, jnp.cos, x)

    def f(x):
        return lax.scan(step, x[0], x), lax.while_loop(lambda i: i < 3, lambda i: jax.jit(lambda j: j + 1)(i), 0)

    after = run("inline", f, X)
    assert not {"jit", "custom_jvp_call"} & set(operations(after))
    assert {"scan", "cond", "while"} < set(operations(after))


def test_a_body_with_closed_over_arrays():
    table = jnp.arange(6.0).reshape(2, 3)
    inner = jax.jit(lambda x: table @ x)
    program = PassManager("inline").run(trace(lambda x: inner(x) + inner(x), X))
    assert "jit" not in operations(program)
    assert [c is table for c in program.consts] == [True]


def test_a_shared_body_is_copied_to_each_call():
    inner = jax.jit(lambda x: jnp.sin(x) * 2)
    after = run("inline", lambda x: (inner(x), inner(x + 1)), X)
    assert operations(after).count("sin") == 2


def test_name_stacks_are_kept():
    @jax.jit
    def inner(x):
        with jax.named_scope("inside"):
            return jnp.sin(x)

    def f(x):
        with jax.named_scope("outside"):
            return inner(x)

    (eqn,) = run("inline", f, X).jaxpr.jaxpr.eqns
    assert "outside" in str(eqn.source_info.name_stack) and "inside" in str(eqn.source_info.name_stack)


def test_effects_keep_their_order(capfd):
    @jax.jit
    def say(x):
        jax.debug.print("first {}", x, ordered=True)
        jax.debug.print("second {}", x, ordered=True)
        return x

    def f(x):
        say(x)
        jax.debug.print("third {}", x, ordered=True)
        return x

    program = PassManager("inline").run(trace(f, 1.0))
    assert "jit" not in operations(program)
    program(2.0)
    jax.effects_barrier()
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == ["first", "second", "third"]


def test_symbolic_dimensions():
    f = jax.jit(lambda x: jax.nn.softmax(x) + jnp.arange(x.shape[0])[:, None])
    after = run("inline", f, jnp.ones((2, 3)), dynamic="b, ...")
    assert "jit" not in operations(after) and after.is_symbolic


def mesh():
    return jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))


def with_sharding():
    return jax.jit(jnp.sin, in_shardings=NamedSharding(mesh(), PartitionSpec("x")))


def recomputed(x):
    return jax.grad(lambda y: jax.checkpoint(lambda z: jnp.sin(jnp.sin(z)))(y).sum())(x)


def with_reference(x):
    ref = jax.new_ref(x)
    ref[...] = ref[...] * 2
    return ref[...]


@pytest.mark.parametrize(
    ("fn", "kept", "reason"),
    [
        (with_sharding(), "jit", "explicit shardings"),
        (recomputed, "remat2", "computed before"),
        (jax.jit(with_reference), "jit", "references"),
    ],
    ids=["shardings", "remat", "references"],
)
def test_what_must_stay_stays_and_says_why(fn, kept, reason):
    details = {}

    class Watch(Instrument):
        def after(self, event):
            details.update(event.result.details)

    program = PassManager("inline", instruments=[Watch()]).run(trace(fn, X))
    assert kept in operations(program)
    assert any(reason in said for said in details["kept"])


def test_derivatives_of_what_is_opened_go_through_the_bodies():
    program = run("inline", jax.nn.silu, X)
    assert jnp.allclose(jax.jacobian(program)(X), jax.jacobian(jax.nn.silu)(X))


@pytest.mark.skipif(closed_call_p.name != "eval_jaxpr", reason="closed_call takes a function before JAX 0.12")
def test_a_body_that_was_traced_before_is_opened():
    body = jax.make_jaxpr(jnp.sin)(X)
    program = run("inline", lambda x: closed_call_p.bind(x, call_jaxpr=body)[0] * 3, X)
    assert operations(program) == ["sin", "mul"]


def test_an_operation_that_knows_its_expansion_is_opened():
    """From JAX 0.12 on `jnp.searchsorted` is one."""
    table, x = np.arange(5.0, dtype=np.float32), np.asarray([-1.0, 2.5, 9.0], np.float32)
    program = PassManager("inline").run(trace(jnp.searchsorted, table, x))
    assert not {eqn.primitive.name for eqn in program.jaxpr.eqns} & {"call_hi_primitive", "jit"}
    np.testing.assert_array_equal(program(table, x), [0, 3, 5])
