"""What the check of a file against JAX allows, and what it does not wait for."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from jax import lax
from xlapass.backends.onnx import check
from xlapass.core.errors import CompileError
from xlapass.core.tracing import trace

WEIGHTS = jnp.asarray(np.random.default_rng(0).standard_normal((64, 64)), jnp.float32)


def chaotic(x: Any) -> Any:
    """A ReLU that a rounding turns on or off, and a jump that shows it."""
    y = (x @ WEIGHTS) @ WEIGHTS
    return jnp.sum(jnp.where(y - lax.stop_gradient(lax.reduce_precision(y, 8, 14)) > 0, 1.0, 0.0), axis=1), x * 2


def test_roundings_that_results_show_are_allowed() -> None:
    x = jnp.asarray(np.random.default_rng(1).standard_normal((4, 64)), jnp.float32)
    program = trace(chaotic, x)
    jumps, doubled = program.evaluate_flat([x])
    moved = [jnp.asarray(jumps) + 1, doubled]
    agreement = check.check_results(program, lambda flat: moved)
    assert agreement is not None and agreement.absolute == 1.0


def test_a_wrong_output_beside_one_that_roundings_move_is_found() -> None:
    x = jnp.asarray(np.random.default_rng(1).standard_normal((4, 64)), jnp.float32)
    program = trace(chaotic, x)
    jumps, doubled = program.evaluate_flat([x])
    with pytest.raises(CompileError, match="largest error"):
        check.check_results(program, lambda flat: [jnp.asarray(jumps) + 1, jnp.asarray(doubled) * 1.01])
    with pytest.raises(CompileError, match="largest error"):
        check.check_results(program, lambda flat: [jnp.asarray(jumps) + 1000, doubled])


def test_a_program_that_roundings_do_not_move_is_held_to_its_results() -> None:
    x = jnp.ones((2, 3))
    program = trace(lambda x: jnp.tanh(x), x)
    (want,) = program.evaluate_flat([x])
    with pytest.raises(CompileError, match="largest error"):
        check.check_results(program, lambda flat: [jnp.asarray(want) + 0.01])


def test_a_file_that_does_not_end_is_an_error() -> None:
    def endless(x: jax.Array) -> jax.Array:
        return lax.while_loop(lambda c: c[0] < 1e9, lambda c: (c[0] + 1e-3 * c[1], c[1]), (x, x * 0.0 + 1e-30))[0]

    program = trace(endless, jax.ShapeDtypeStruct((), jnp.float32))
    artifact = xlapass.compile(program, pipeline="onnx")
    run = artifact.executable()
    start = time.perf_counter()
    with pytest.raises(CompileError, match="has not ended after 1 s"):
        run.run_flat([np.float32(1.0)], limit_s=1.0)
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_log1p_keeps_the_sign_of_zero(dtype: str) -> None:
    x = jnp.asarray([-0.0, 0.0, 1e-4, -0.5, 3.0, jnp.inf, -1.0], dtype)
    run = xlapass.compile(jnp.log1p, x, pipeline="onnx").executable()
    have, want = np.asarray(run(x)), np.asarray(jnp.log1p(x))
    np.testing.assert_array_equal(np.signbit(have), np.signbit(want))
    np.testing.assert_allclose(have.astype(np.float64), want.astype(np.float64), rtol=4 * float(jnp.finfo(dtype).eps))


def test_draws_whose_loop_divides_by_it() -> None:
    key = np.array([3, 5], np.uint32)
    run = xlapass.compile(lambda key: jax.random.multinomial(key, 5.0, jnp.ones(3) / 3), key, pipeline="onnx")
    np.testing.assert_array_equal(run.executable()(key), jax.random.multinomial(key, 5.0, jnp.ones(3) / 3))
