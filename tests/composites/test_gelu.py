"""`fuse` finds GELU however it is spelled, and what it finds stays bit for bit what it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from support import operations
from xlapass.core.composites import attributes_of
from xlapass.core.graph import Graph
from xlapass.core.target import Target
from xlapass.core.tracing import trace
from xlapass.passes.composites.gelu import GELU, gelu
from xlapass.testing import assert_equal_results, program_text

CPU = Target("cpu", "cpu")
X = jnp.linspace(-4.0, 4.0, 24).reshape(4, 6)
SQRT_2 = 2**0.5
C = (2 / jnp.pi) ** 0.5

EXACT = {
    "jax.nn": lambda x: jax.nn.gelu(x, approximate=False),
    "half last": lambda x: x * (1 + lax.erf(x / SQRT_2)) * 0.5,
    "half first": lambda x: 0.5 * x * (1 + lax.erf(x * (1 / SQRT_2))),
    "divided": lambda x: x * (lax.erf(x / SQRT_2) + 1) / 2,
    "erfc": lambda x: x * (0.5 * lax.erfc(-(x / SQRT_2))),
    "erfc of a negative divisor": lambda x: 0.5 * x * lax.erfc(x / -SQRT_2),
}
TANH = {
    "jax.nn": lambda x: jax.nn.gelu(x, approximate=True),
    "cube as a product": lambda x: 0.5 * x * (1 + jnp.tanh(C * (x + 0.044715 * x * x * x))),
    "power": lambda x: 0.5 * x * (1 + jnp.tanh(C * (x + 0.044715 * lax.pow(x, jnp.asarray(3, x.dtype))))),
    "x in front": lambda x: 0.5 * x * (1 + jnp.tanh(C * x * (1 + 0.044715 * x * x))),
    "square": lambda x: x * (0.5 * (1 + jnp.tanh(x * C * (1 + 0.044715 * x**2)))),
    "rounded constants": lambda x: 0.5 * x * (1 + jnp.tanh(0.79788456 * (x + 0.044715 * x**3))),
}
SPELLINGS = [(fn, False, name) for name, fn in EXACT.items()] + [(fn, True, name) for name, fn in TANH.items()]


def found(program):
    """``(name, attributes)`` of every composite of the program."""
    nodes = [node for region in Graph(program.jaxpr).walk() for node in region.nodes() if node.name == "composite"]
    return [(node.params["name"], attributes_of(node)) for node in nodes]


@pytest.mark.parametrize("fn, approximate, name", SPELLINGS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_spelling_is_found(run, fn, approximate, name, dtype):
    program = trace(fn, X.astype(dtype))
    fused = run("inline,fuse", program)
    assert found(fused) == [("xlapass.gelu", {"approximate": approximate})]


def test_before_and_after(run):
    program = run("inline", trace(TANH["jax.nn"], X))
    fused = run("fuse", program)
    assert operations(program) == ["integer_pow", "mul", "add", "mul", "tanh", "add", "mul", "mul"]
    assert operations(fused) == ["composite", *operations(program)]
    body = Graph(fused.jaxpr).nodes()[0].body.to_closed()
    assert [str(e) for e in body.eqns] == [str(e) for e in program.jaxpr.eqns]
    assert program_text(run("lower-composites", fused)) == program_text(program)


def test_is_idempotent_and_goes_into_loops_but_not_into_composites(run):
    def model(x):
        return lax.fori_loop(0, 3, lambda i, y: jax.nn.gelu(y), x)

    once = run("inline,fuse", trace(model, X))
    assert [name for name, _ in found(once)] == ["xlapass.gelu"]
    assert run("fuse", once).jaxpr is once.jaxpr


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: 0.5 * x * (1 + lax.erf(x / 1.5)),
        lambda x: 0.25 * x * (1 + lax.erf(x / SQRT_2)),
        lambda x: 0.5 * x * (2 + lax.erf(x / SQRT_2)),
        lambda x: 0.5 * (x + 1) * (1 + lax.erf(x / SQRT_2)),
        lambda x: 0.5 * x * lax.erfc(x / SQRT_2),
        lambda x: 0.5 * x * (1 + jnp.tanh(C * (x + 0.05 * x**3))),
        lambda x: 0.5 * x * (1 + jnp.tanh(C * (x + 0.044715 * x**2))),
        lambda x: 0.5 * x * (1 + jnp.tanh(C * (x - 0.044715 * x**3))),
    ],
)
def test_what_only_looks_like_it_is_left_alone(run, fn):
    assert found(run("inline,fuse", trace(fn, X))) == []


def test_declines_where_a_value_inside_is_used_elsewhere(run):
    def model(x):
        erf = lax.erf(x / SQRT_2)
        return 0.5 * x * (1 + erf), jnp.exp(erf)

    assert found(run("inline,fuse", trace(model, X))) == []


def test_a_symbolic_batch_is_no_obstacle(run):
    program = trace(jax.nn.gelu, X, dynamic="batch, ...")
    fused = run("inline,fuse", program)
    assert [name for name, _ in found(fused)] == ["xlapass.gelu"]
    np.testing.assert_array_equal(fused(X[:3]), program(X[:3]))


@given(
    st.sampled_from(SPELLINGS),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from(["float32", "float16", "bfloat16"]),
)
def test_opening_gives_back_the_very_operations(run, spelling, shape, dtype):
    program = run("inline", trace(spelling[0], jnp.ones(shape, dtype)))
    fused = run("fuse", program)
    assert len(found(fused)) == 1
    assert program_text(run("lower-composites", fused)) == program_text(program)


@pytest.mark.parametrize("fn", [EXACT["jax.nn"], TANH["jax.nn"]])
def test_the_bits_are_the_same(registry_with, fn):
    x = jnp.array([0.0, -0.0, 1.5, -3.0, -100.0, jnp.inf, -jnp.inf, jnp.nan])
    assert_equal_results("inline,fuse", fn, x, registry=registry_with())


@pytest.mark.parametrize("approximate", [False, True])
def test_the_decomposition_is_that_of_jax(approximate):
    x = jnp.linspace(-6, 6, 101)
    want = jax.nn.gelu(x, approximate=approximate)
    np.testing.assert_allclose(gelu(x, approximate=approximate), want, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(GELU(x, approximate=approximate), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_on_the_cpu_the_exact_one_is_written_with_erf(run, dtype):
    x = jnp.linspace(-12, 12, 2001, dtype=dtype)
    optimized = run("inline,fuse{with-kernel=true},lower-composites", trace(EXACT["jax.nn"], x), target=CPU)
    names = {eqn.primitive.name for eqn in optimized.jaxpr.eqns}
    assert ("erf" in names, "erfc" in names) == ((True, False) if dtype == "float32" else (False, True))
    if dtype == "float32":
        np.testing.assert_allclose(optimized(x), jax.nn.gelu(x, approximate=False), rtol=2e-7, atol=1e-6)


def test_on_the_cpu_special_values_are_kept(run):
    x = jnp.array([0.0, -0.0, jnp.inf, -jnp.inf, jnp.nan])
    optimized = run("inline,fuse{with-kernel=true},lower-composites", trace(EXACT["jax.nn"], x), target=CPU)
    np.testing.assert_array_equal(optimized(x), jax.nn.gelu(x, approximate=False))
