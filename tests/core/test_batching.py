"""`batch_axes`: which programs compute each row of a batch by itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import lax
from programs import examples, programs
from xlapass.core.batching import BatchAxes, batch_axes, batch_symbol
from xlapass.core.errors import UsageError
from xlapass.core.instruments.evaluation import evaluator
from xlapass.core.instruments.numerics import difference
from xlapass.core.specialize import specialize
from xlapass.core.tracing import trace

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 8, 6)).astype(np.float32)
IMAGE = RNG.standard_normal((3, 8, 8, 4)).astype(np.float32)
TOKENS = RNG.integers(0, 10, (3, 5)).astype(np.int32)
W = RNG.standard_normal((6, 12)).astype(np.float32)
TABLE = RNG.standard_normal((10, 6)).astype(np.float32)
KERNEL = RNG.standard_normal((3, 3, 4, 5)).astype(np.float32)


def conv(x: Any, kernel: Any = KERNEL, **options: Any) -> Any:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)


def attention(x: Any) -> Any:
    b, n, _ = x.shape
    q, k, v = ((x @ W).reshape(b, n, 3, 4).transpose(0, 2, 1, 3) for _ in range(3))
    scores = q @ k.swapaxes(-1, -2) / 2.0
    scores = jnp.where(jnp.tril(jnp.ones((n, n), bool)), scores, -jnp.inf)
    return (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(b * n, 12).reshape(b, n, 12)


def recurrent(x: Any) -> Any:
    def step(state: Any, row: Any) -> Any:
        state = jnp.tanh(state @ W[:, :6] + row)
        return state, state.sum(-1)

    return lax.scan(step, jnp.zeros((x.shape[0], 6)), x.swapaxes(0, 1))


def heads_merged(x: Any) -> Any:
    b, n, d = x.shape
    merged = jnp.broadcast_to(x[:, None], (b, 2, n, d)).reshape(b * 2, n, d)
    return (merged @ merged.swapaxes(1, 2)).reshape(b, 2, n, n).sum(1)


INDEPENDENT = [
    (lambda x: jax.nn.gelu(x @ W) + 1, X),
    (lambda x: {"a": x.sum((1, 2)), "b": (jnp.argmax(x, 1), jnp.zeros(3))}, X),
    (lambda x: x.reshape(x.shape[0] * 8, 6) @ W, X[..., :]),
    (lambda x: (x.reshape(-1, 6) @ W).reshape(x.shape[0], 8, 12), X),
    (lambda x: jax.nn.layer_norm(x) if hasattr(jax.nn, "layer_norm") else x - x.mean(-1, keepdims=True), X),
    (attention, X),
    (heads_merged, X),
    (recurrent, X),
    (jax.vmap(lambda x: jnp.sort(x, 0)[::-1].cumsum(0)[2:4]), X),
    (jax.vmap(lambda x: lax.dynamic_slice(x, (x[0, 0].astype(int), 0), (2, 6))), X),
    (jax.vmap(lambda x: x.at[x[0, 0].astype(int)].add(1.0)), X),
    (jax.vmap(lambda x: jnp.linalg.cholesky(x @ x.T + 9 * jnp.eye(8))), X),
    (lambda x: lax.dynamic_update_slice(x, x[:, :2] * 2, (0, 3, 0)), X),
    (lambda x: x.at[:, 2].set(0.0), X),
    (lambda x: lax.top_k(x, 2), X),
    (lambda x: jnp.concatenate([x, jnp.ones_like(x), jnp.zeros((x.shape[0], 1, 6))], 1), X),
    (lambda x: jnp.pad(x, ((0, 0), (1, 1), (0, 0))), X),
    (lambda x: jnp.stack(jnp.split(x, 2, 1)).transpose(1, 0, 2, 3), X),
    (lambda x: jnp.fft.rfft(x).real, X),
    (lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.tanh(c[1])), (0, x))[1], X),
    (lambda x: lax.fori_loop(0, 3, lambda i, c: c + x[:, i], jnp.zeros(x[:, 0].shape)), X),
    (lambda x: jax.checkpoint(lambda y: jnp.sin(y))(x), X),
    (lambda x: jax.jit(lambda y: jax.nn.relu(y))(x), X),
    (lambda x: x * jnp.arange(8.0)[:, None], X),
    (lambda x: jnp.einsum("bnd,bmd->bnm", x, x), X),
    (lambda x: jax.nn.max_pool(x) if hasattr(jax.nn, "max_pool") else conv(x), IMAGE),
    (conv, IMAGE),
    (lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), IMAGE),
    (lambda x: jax.image.resize(x, (x.shape[0], 16, 16, 4), "bilinear"), IMAGE),
    (lambda x: conv(x.transpose(0, 3, 1, 2).transpose(0, 2, 3, 1)).mean((1, 2)), IMAGE),
    (lambda t: jnp.asarray(TABLE)[t], TOKENS),
    (lambda t: jax.nn.one_hot(t, 10), TOKENS),
    (lambda t: jnp.take_along_axis(jnp.broadcast_to(jnp.asarray(TABLE), (t.shape[0], 10, 6)), t[..., None], 1), TOKENS),
]


@pytest.mark.parametrize("fn, x", INDEPENDENT)
def test_rows_that_are_computed_apart(fn: Any, x: Any) -> None:
    program = trace(fn, x, dynamic="b, ...")
    try:
        axes = batch_axes(program, "b")
    except UsageError as error:
        assert "no axis that is just the batch" in str(error)  # the merged output of the third one
        assert fn is INDEPENDENT[2][0]
        return
    assert axes.inputs == (0,)
    whole = jax.tree.leaves(fn(jnp.asarray(x)))
    for axis, result in zip(axes.outputs, whole, strict=True):
        rows = [jax.tree.leaves(fn(jnp.asarray(x[i : i + 1])))[0] for i in range(3)] if len(whole) == 1 else []
        if rows and axis is not None:
            np.testing.assert_allclose(np.concatenate(rows, axis), result, rtol=1e-4, atol=1e-5)


def doubled(x: Any) -> Any:
    return jnp.concatenate([x, x], 0).reshape(x.shape[0], 2, 8, 6)


DEPENDENT = [
    (lambda x: x - x.mean(0), X, "across the rows"),
    (lambda x: x / x.sum(), X, "across the rows"),
    (lambda x: x + jnp.arange(x.shape[0])[:, None, None], X, "numbers the rows"),
    (lambda x: x + x.shape[0], X, "computes with the number of rows"),
    (lambda x: (x * 2, jnp.int32(3) * x.shape[0]), X, "depends on the number of rows"),
    (lambda x: lax.dynamic_slice_in_dim(x, x.shape[0] - 1, 1, 0), X, "rows|no multiple"),
    (lambda x: jax.random.normal(jax.random.key(0), x.shape) + x, X, "not known|numbers|relates"),
    (lambda x: jnp.einsum("bnd,cnd->bc", x, x), X, "different order|relates"),
    (lambda x: jnp.einsum("bnd,bmd->nm", x, x), X, "sums over"),
    (lambda x: x[::-1], X, "across the rows|no multiple"),
    (lambda x: jnp.sort(x, 0), X, "across the rows"),
    (lambda x: jnp.cumsum(x, 0), X, "across the rows"),
    (lambda x: jnp.roll(x, 1, 0), X, "rows|no multiple"),
    (lambda x: x[:1] + x, X, "some of the rows|rows"),
    (lambda x: x.at[0].set(0.0), X, "rows"),
    (doubled, X, "changes the number|into each other|across the rows|holds the rows"),
    (lambda x: x.transpose(1, 0, 2).reshape(x.shape[0], 8, 6), X, "into each other"),
    (lambda x: x.reshape(8, x.shape[0], 6).transpose(1, 0, 2), X, "into each other"),
    (lambda x: x.reshape(x.shape[0] * 8, 6).reshape(8, -1, 6).sum(0), X, "into each other"),
    (lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), X, "across the rows"),
    (lambda x: lax.while_loop(lambda c: (c < 9).any(), lambda c: c + 1, x), X, "across the rows"),
    (lambda x: lax.scan(lambda c, row: (c + row, c), jnp.zeros((8, 6)), x)[1], X, "one after the other"),
    (lambda x: conv(jnp.ones((1, 8, 8, 4)), jnp.moveaxis(x[:, :3, :3], 0, 3)), IMAGE, "rows"),
    (lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 1, 1, 1), (1, 1, 1, 1), "SAME"), IMAGE, "several rows"),
    (lambda t: jnp.asarray(TABLE)[t].sum(0), TOKENS, "across the rows"),
    (lambda t: jnp.bincount(t[:, 0], length=10), TOKENS, "rows"),
    (lambda x: jax.debug.print("{}", x[0, 0, 0]) or x, X, "effects|rows"),
    (lambda x: jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct(x.shape, x.dtype), x), X, "not known|effects"),
    (lambda x: x[: x.shape[0] // 2], X, "no multiple|some of the rows"),
]


@pytest.mark.parametrize("fn, x, reason", DEPENDENT)
def test_rows_that_depend_on_each_other_are_refused_with_a_reason(fn: Any, x: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=f"cannot be computed apart: .*({reason})"):
        batch_axes(trace(fn, x, dynamic="b, ..."), "b")


def test_the_message_names_the_line() -> None:
    with pytest.raises(UsageError) as raised:
        batch_axes(trace(lambda x: x / x.sum(), X, dynamic="b, ..."), "b")
    assert "test_batching.py" in str(raised.value.where)


def test_several_inputs_outputs_and_symbols() -> None:
    def model(x: Any, scale: Any, mask: Any) -> Any:
        return jnp.where(mask, x * scale, 0.0).swapaxes(0, 1), scale * 2

    program = trace(model, X, np.float32(2), X > 0, dynamic=("b, n, ...", None, "b, n, ..."))
    assert batch_axes(program, "b") == BatchAxes((0, None, 0), (1, None))
    assert batch_axes(program, "n") == BatchAxes((1, None, 1), (0, None))


def test_which_dimension_is_the_batch() -> None:
    double = lambda x: x * 2  # noqa: E731
    assert batch_symbol(trace(double, X, dynamic="rows, ...")) == "rows"
    assert batch_symbol(trace(double, X, dynamic="b, n, ...")) == "b"
    assert batch_symbol(trace(double, X, dynamic="n, batch, ...")) == "batch"
    assert batch_symbol(trace(double, X, dynamic="n, m, ..."), "m") == "m"
    for options, message in ((("m, n, ...", None), "which dimension"), (("b, ...", "c"), "no symbolic dimension 'c'")):
        with pytest.raises(UsageError, match=message):
            batch_symbol(trace(double, X, dynamic=options[0]), options[1])
    with pytest.raises(UsageError, match="fixed size"):
        batch_symbol(trace(double, X))


@settings(max_examples=examples(15))
@given(programs(symbolic=True, most_steps=5))
def test_what_is_accepted_is_computed_row_by_row(drawn: Any) -> None:
    with drawn.context():
        program = trace(drawn.fn, *drawn.args, dynamic=drawn.dynamic)
        try:
            axes = batch_axes(program, batch_symbol(program))
        except UsageError:
            return
        rows = [[_row(a, axis, i) for a, axis in zip(drawn.args_for(3), axes.inputs, strict=True)] for i in range(3)]
        apart = [evaluator(specialize(program, {"batch": 1}))(one) for one in rows]
        together = evaluator(specialize(program, {"batch": 3}))(list(drawn.args_for(3)))
    for want, axis, *have in zip(together, axes.outputs, *apart, strict=True):
        joined = have[0] if axis is None else jnp.concatenate(have, axis)
        assert (joined.shape, joined.dtype) == (want.shape, want.dtype)
        error, allowed = difference(want, joined, "reassociating")
        assert error <= allowed


def _row(array: Any, axis: int | None, index: int) -> Any:
    return array if axis is None else array[(slice(None),) * axis + (slice(index, index + 1),)]
