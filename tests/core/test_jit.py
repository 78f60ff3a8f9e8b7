"""`xlapass.jit` does what `jax.jit` does."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from xlapass.core.compile_options import CompileOptions
from xlapass.core.forms import Measured
from xlapass.core.jit import RESIDENT_LIMIT
from xlapass.core.recompilation import RecompilationWarning
from xlapass.core.timings import Timings
from xlapass.passes.compile_options import structure_hash
from xlapass.passes.forms import measure as measuring

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


def test_what_the_pipeline_declares_is_permitted():
    """Naming a pipeline with lossy passes asks for them; what others put into its phases has no say."""
    wide = np.linspace(0.1, 1, 256 * 256, dtype=np.float32).reshape(256, 256)

    def product(x):
        return x @ wide

    rounding = "inline,mixed-precision{policy=products}"
    exact = product(wide)
    assert np.abs(xlapass.jit(product, pipeline=rounding)(wide) - exact).max() > 1e-3 * np.abs(exact).max() / 10
    kept = xlapass.jit(product, pipeline=rounding, numerics="reassociating")(wide)
    np.testing.assert_allclose(kept, exact, rtol=1e-5)


# -- weights on the device, a compilation for each signature -----------------------------------------------------------


@pytest.mark.parametrize("warm", [[], [X], [X, X[:2]], [X, X[:2], X[:1]]])
def test_weights_whatever_was_compiled_before(warm):
    fast = jit(heavy)
    for x in warm:
        close(fast(x), heavy(x))
    close(fast(X), heavy(X))
    close(fast(X, y=3.0), heavy(X, y=3.0))
    close(fast(jnp.asarray(X)), heavy(X))
    close(jax.jit(fast)(X[:2]), heavy(X[:2]))
    close(jax.grad(lambda x: fast(x).sum())(X), jax.grad(lambda x: heavy(x).sum())(X))
    close(jax.vmap(fast)(X[:, None]), jax.vmap(heavy)(X[:, None]))


def test_weights_and_every_kind_of_argument():
    def fn(first, second, /, x, mode, *rest, scale=1.0, **more):
        assert isinstance(mode, str)
        total = sum(rest) + sum(more.values())
        return (first + second["a"]) * (jnp.tanh(x @ WEIGHTS)[:, :4] * scale) + total

    fast = jit(fn, static_argnums=(3,), static_argnames="mode", donate_argnums=(0,))
    for args, kwargs in [
        (({"a": X}, X, "sum"), {}),
        (({"a": X}, X, "sum", 1.0, 2.0), {"scale": 2.0}),
        (({"a": X},), {"x": X, "mode": "max", "other": 3.0}),
    ]:
        for _ in range(2):
            close(fast(jnp.asarray(X), *args, **kwargs), fn(X, *args, **kwargs))
    donated = jnp.asarray(X)
    close(fast(donated, {"a": X}, X, "sum"), fn(X, {"a": X}, X, "sum"))
    assert donated.is_deleted()


def test_signatures_share_their_weights(monkeypatch):
    puts = []
    real = jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda x, *rest: puts.append(np.shape(x)) or real(x, *rest))
    fast = jit(lambda x: jnp.tanh(x @ WEIGHTS)[:, :7])
    for rows in (3, 2, 1):
        fast(X[:rows])
    assert puts.count(WEIGHTS.shape) == 1


def test_an_argument_that_keeps_changing_is_named():
    fast = jit(lambda image, scale: image * scale)
    with pytest.warns(
        RecompilationWarning, match="compiled 8 times, because its argument 'image' keeps changing: float32"
    ):
        for size in range(12):  # one warning, and not one for each
            fast(np.ones(size + 1, np.float32), 2.0)
    fast = jit(lambda x, n: x["a"] * n, static_argnums=1)
    with pytest.warns(RecompilationWarning, match="its argument 'n' keeps changing: 4, 5, 6, 7"):
        for n in range(9):
            fast({"a": X}, n)
    fast = jit(lambda *args: args[1]["a"].sum())
    with pytest.warns(RecompilationWarning, match=re.escape("""argument "argument 1['a']" keeps""")):
        for size in range(9):
            fast(1.0, {"a": np.ones(size + 1)})


def test_a_few_signatures_are_no_reason_to_warn():
    fast = jit(lambda x: x * 2)
    for _ in range(3):
        for size in range(1, 8):
            fast(np.ones(size))


# -- tuning ------------------------------------------------------------------------------------------------------------


def image(size=32, features=16):
    return jnp.asarray(np.random.default_rng(0).standard_normal((1, size, size, features)), jnp.float32)


def pool(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def test_tuning_measures_once_and_is_remembered(tmp_path, monkeypatch):
    file = tmp_path / "tuned.json"
    close(xlapass.jit(pool, tune=True, tune_file=file)(image()), pool(image()))
    before = file.read_text()
    assert "reduce_window_max" in before and "program " in before
    monkeypatch.setattr(measuring, "run_seconds", None)  # a second run measures nothing
    close(xlapass.jit(pool, tune_file=file)(image()), pool(image()))
    assert file.read_text() == before


def test_without_a_budget_nothing_is_measured(tmp_path):
    file = tmp_path / "tuned.json"
    close(xlapass.jit(pool, tune_budget="0s", tune_file=file)(image()), pool(image()))
    assert not file.exists()
    with pytest.raises(xlapass.UsageError, match="budget cannot be 'soon'"):
        xlapass.jit(pool, tune_budget="soon")


@pytest.mark.parametrize("weights", [np.float32(1), WEIGHTS])
def test_compile_options_that_were_measured_are_used(tmp_path, weights):
    def fn(x):
        return jnp.tanh(x * 2) + jnp.sum(weights) * 0

    file = tmp_path / "tuned.json"
    program = xlapass.compile(fn, X).program
    timings = Timings()
    timings.record(f"program {structure_hash(program)}", "xla_cpu_prefer_vector_width=128", Measured(1.0, 2.0))
    timings.write(file)
    registry = xlapass.load_registry([Options()])
    fast = xlapass.jit(fn, tune_budget=0, tune_file=file, registry=registry)
    for _ in range(2):
        close(fast(X), fn(X))
        close(jax.jit(fast)(X), fn(X))
        close(jax.grad(lambda x: fast(x).sum())(X), jax.grad(lambda x: fn(x).sum())(X))
        close(fast(X[:2]), fn(X[:2]))
    (one, *_) = [compiled for compiled in fast._compiled.values() if compiled.has_options]
    close(one.run(one.resident, X), fn(X))


class Options:
    @xlapass.hookimpl
    def xlapass_compile_options(self):
        return {"narrow": xlapass.Entry(CompileOptions({"xla_cpu_prefer_vector_width": "128"}))}


def test_what_is_no_function_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="takes a function, not 3"):
        jit(3)
