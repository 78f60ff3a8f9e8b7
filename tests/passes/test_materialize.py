"""`materialize`: which values are written, and that XLA:CPU then computes them once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from support import operations, run
from xlapass.core.graph import Graph
from xlapass.core.manager import PassManager
from xlapass.core.program import Program
from xlapass.core.tracing import trace
from xlapass.passes.materialize import MOST_SOURCES, _Region

X = jnp.linspace(-2.0, 2.0, 128 * 256).reshape(128, 256)
WEIGHTS = jnp.eye(256)


def inlined(fn: Any, *args: Any, **options: Any) -> Program:
    return PassManager("inline").run(trace(fn, *args, **options))


def materialize(fn: Any, *args: Any, subject: str = "materialize") -> Program:
    return run(subject, inlined(fn, *args))


def written(fn: Any, *args: Any) -> int:
    """How many values the pass has written; results must stay the same."""
    return operations(materialize(fn, *args)).count("jit")


def compiled_text(program: Program, *args: Any) -> str:
    return str(jax.jit(program.flat_function).lower(*args).compile().as_text())


def taps(x: jax.Array) -> jax.Array:
    """A sum of five shifted slices, of which each reads the same array."""
    padded = jnp.pad(x, ((2, 2), (0, 0)))
    return sum((index + 1.0) * padded[index : index + 128] for index in range(5))  # type: ignore[return-value]


def normalized(y: jax.Array) -> jax.Array:
    return (y - y.mean(-1, keepdims=True)) * lax.rsqrt((y * y).mean(-1, keepdims=True) + 1.0)


def test_a_long_sum_that_is_normalized_is_written() -> None:
    assert written(lambda x: normalized(taps(x) + 1.0), X) == 1


def test_it_is_written_where_its_paths_part() -> None:
    program = materialize(lambda x: normalized(jnp.maximum(taps(x) + 1.0, 0.0)), X)
    names = operations(program)
    assert names.index("max") + 1 == names.index("jit") < names.index("reduce_sum")


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: (y := taps(x)) * jnp.maximum(y, 0.0),
        lambda x: (y := taps(x)) * jnp.clip(y + 3.0, 0.0, 6.0),
        lambda x: taps(x) @ WEIGHTS,
        lambda x: normalized(x + 1.0),
        lambda x: normalized(x * 2.0 + x),
        lambda x: ((y := jnp.exp(x)) + 1.0, y.sum()),
    ],
    ids=["meeting again", "one loop", "one reader", "one read", "two reads", "costly"],
)
def test_what_is_left_alone(fn: Any) -> None:
    assert written(fn, X) == 0


def test_small_values_are_left_alone() -> None:
    assert written(lambda x: normalized(sum(x[i : i + 8] for i in range(5))), X[:12, :16]) == 0


def test_a_residual_sum_is_written_before_it_grows() -> None:
    def model(x: jax.Array) -> jax.Array:
        for _ in range(4):
            x = jax.nn.relu(x + x @ WEIGHTS)
        return x

    assert written(model, X) == 3


def test_a_sum_of_many_large_arrays_is_written_half_way() -> None:
    x = jnp.ones((1024, 1024))
    program = materialize(lambda x: sum(jnp.concatenate([x[i:], x[:i]]) for i in range(1, 12)), x)
    assert operations(program).count("jit") == 1


def test_what_is_known_of_a_value_does_not_grow_with_the_program() -> None:
    """Each link reads the one before twice, and an array more: twice the reads, and one source more."""

    def links(x: jax.Array) -> jax.Array:
        for _ in range(400):
            x = jnp.tanh(x).sum(0) + x * x
        return x

    region = _Region(Graph(inlined(links, jnp.ones((4, 4))).jaxpr), least_reads=3)
    assert region.materialize() == 0
    assert max(region.reads.values()) == 3
    assert max(map(len, region.sources.values())) == MOST_SOURCES


def updated(cache: jax.Array, row: jax.Array, index: int) -> tuple[jax.Array, jax.Array]:
    cache = lax.dynamic_update_slice(cache, row, (index, 0))
    return cache, cache.reshape(256, 128) @ WEIGHTS[:128]


def test_an_array_that_is_updated_for_several_readers_is_written() -> None:
    args = X, jnp.ones((1, 256)), 3
    assert written(updated, *args) == 1
    assert written(lambda *args: updated(*args)[1], *args) == 0
    before, after = inlined(updated, *args), materialize(updated, *args)
    assert compiled_text(before, *args).count(" dynamic-update-slice(") == 2
    assert compiled_text(after, *args).count(" dynamic-update-slice(") == 1


def test_values_in_loops_are_written() -> None:
    program = materialize(lambda x: lax.fori_loop(0, 2, lambda i, y: normalized(taps(y) + 1.0), x), X)
    assert "jit" in operations(program)


def test_symbolic_sizes_are_left_alone() -> None:
    program = inlined(lambda x: normalized(x * x + x), X, dynamic="batch, ...")
    assert "jit" not in operations(run("materialize", program))


def test_xla_computes_a_written_value_once() -> None:
    fn = lambda x: normalized(taps(x) + 1.0)  # noqa: E731
    before, after = inlined(fn, X), materialize(fn, X)
    assert compiled_text(before, X).count(" slice(") > compiled_text(after, X).count(" slice(")
    assert " call(" in compiled_text(after, X)


def test_written_values_have_derivatives_and_batches() -> None:
    fn = lambda x: normalized(taps(x) + 1.0)  # noqa: E731
    after = materialize(fn, X)
    flat = lambda x: after.flat_function(x)[0]  # noqa: E731
    np.testing.assert_allclose(jax.jvp(flat, (X,), (X,))[1], jax.jvp(fn, (X,), (X,))[1], atol=1e-5)
    np.testing.assert_allclose(jax.vmap(flat)(X[None]), fn(X)[None], atol=1e-5)


@given(st.data())
def test_results_stay_the_same_whatever_is_shared(data: Any) -> None:
    """Programs of sums, movements, reductions and products, with random sharing."""
    steps = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 7)), max_size=5))

    def model(x: jax.Array) -> Any:
        values = [x]
        for kind, first, second in steps:
            a, b = values[first % len(values)], values[second % len(values)]
            made = [
                lambda a, b: a + b,
                lambda a, b: jnp.maximum(a, -b),
                lambda a, b: jnp.roll(a, 1, axis=0) - b,
                lambda a, b: a - b.mean(-1, keepdims=True),
                lambda a, b: jnp.tanh(a) * b,
                lambda a, b: a @ WEIGHTS,
            ][kind](a, b)
            values.append(made)
        return values[-1], sum(values)

    materialize(model, X, subject="materialize{least-reads=1}")
