"""`xlapass.jit` does what `jax.jit` does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from xlapass.core.jit import RESIDENT_LIMIT

jit = partial(xlapass.jit, pipeline="inline,simplify,fold-constants,dead-code")
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
WEIGHTS = np.random.default_rng(0).standard_normal((4, 300 * 300)).astype(np.float32) / 10
assert WEIGHTS.nbytes > RESIDENT_LIMIT


def small(x, y=2.0):
    return {"a": jax.nn.relu(x) * y * 1.0, "b": (x + 0,)}


def heavy(x, y=2.0):
    return jnp.tanh(x @ WEIGHTS)[:, :7] * y


FUNCTIONS = [small, heavy]


def close(a, b):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), a, b)


@pytest.mark.parametrize("fn", FUNCTIONS)
def test_values_structure_and_keywords(fn):
    fast = jit(fn)
    close(fast(X), fn(X))
    close(fast(X, y=3.0), fn(X, y=3.0))
    close(fast(X[:2]), fn(X[:2]))
    assert fast.__name__ == fn.__name__


@pytest.mark.parametrize("fn", FUNCTIONS)
def test_under_transformations_it_gives_what_the_original_gives(fn):
    fast = jit(fn)
    fast(X)  # also once it has been called, and decided where weights go
    total = lambda f: lambda x: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(f(x)))  # noqa: E731
    close(jax.grad(total(fast))(X), jax.grad(total(fn))(X))
    close(jax.vmap(fast)(X[:, None]), jax.vmap(fn)(X[:, None]))
    close(jax.jit(fast)(X), fn(X))
    close(jax.jvp(fast, (X,), (X,)), jax.jvp(fn, (X,), (X,)))
    close(jax.grad(lambda x: jax.grad(total(fast))(x).sum())(X), jax.grad(lambda x: jax.grad(total(fn))(x).sum())(X))


def test_custom_derivatives_are_kept():
    @jax.custom_vjp
    def odd(x):
        return x * 2

    odd.defvjp(lambda x: (x * 2, None), lambda _, g: (g * 100,))
    fast = jit(lambda x: odd(x).sum())
    assert jax.grad(fast)(X).max() == 100
    assert jax.grad(jax.jit(fast))(X).max() == 100

    @jax.custom_jvp
    def cube(x):
        return x**3

    cube.defjvp(lambda primals, tangents: (primals[0] ** 3, tangents[0] * -1))
    close(jax.grad(jit(lambda x: cube(x).sum()))(X), -np.ones_like(X))


@pytest.mark.parametrize("table", [np.float32(1), WEIGHTS])
def test_static_arguments(table):
    calls = []

    @partial(jit, static_argnums=(1,), static_argnames=("mode",))
    def fn(x, n, *, mode="sum", scale=1.0):
        calls.append((n, mode))
        return getattr(jnp, mode)(x * n * scale) + jnp.sum(table) * 0

    assert float(fn(X, 2)) == pytest.approx(2 * X.sum(), abs=1e-5)
    assert float(fn(X, 3, mode="max")) == 3
    traced = len(calls)
    fn(X, 3, mode="max")
    assert len(calls) == traced
    assert {(2, "sum"), (3, "max")} <= set(calls)


@pytest.mark.parametrize("table", [np.ones(4, np.float32), np.ones((300, 300), np.float32)])
def test_donated_arguments_are_consumed(table):
    fn = jit(lambda x: x * 2 + table[0, 0] if table.ndim == 2 else x * 2 + table[0], donate_argnums=0)
    x = jnp.ones(1000)
    np.testing.assert_array_equal(fn(x), np.full(1000, 3, np.float32))
    assert x.is_deleted()


def test_decorator_and_methods():
    class Model:
        def __init__(self, scale):
            self.scale = scale

        @partial(jit, static_argnums=0)
        def __call__(self, x):
            return x * self.scale

    np.testing.assert_array_equal(Model(2.0)(X), X * 2)


def test_random_keys_integers_and_effects(capfd):
    sample = jit(lambda key, n: jax.random.normal(key, (3,)) * n)
    np.testing.assert_allclose(sample(jax.random.key(0), 2), jax.random.normal(jax.random.key(0), (3,)) * 2, rtol=1e-6)

    def noisy(x):
        jax.debug.print("x is {}", x)
        return x * 2

    assert float(jit(noisy)(1.0)) == 2
    assert float(jax.grad(jit(noisy))(1.0)) == 2
    jax.effects_barrier()
    assert "x is 1.0" in capfd.readouterr().out


def test_a_function_that_closes_over_a_tracer():
    def outer(y):
        return jit(lambda x: x * y + 1)(X).sum()

    close(jax.jit(outer)(2.0), outer(2.0))
    close(jax.grad(outer)(2.0), X.sum())


def test_the_attributes_of_jax_jit():
    fast = jit(heavy)
    assert fast.eval_shape(X).shape == (3, 7)
    assert "dot_general" in fast.lower(X).as_text()
    assert fast.trace(X).jaxpr.eqns
    fast(X)
    fast.clear_cache()
    close(fast(X), heavy(X))


def test_what_the_function_raises_passes_through():
    def wrong(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        jit(wrong)(X)


def test_exact_numerics_leave_out_what_rounds():
    with pytest.raises(xlapass.UsageError, match="no pass or pipeline"):
        xlapass.jit(small, pipeline="no-such")(X)
    close(xlapass.jit(small, pipeline="cpu", numerics="exact")(X), small(X))
