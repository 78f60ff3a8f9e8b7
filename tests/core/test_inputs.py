"""The inputs on which programs are verified."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from xlapass.core.instruments.inputs import (
    FEW_ELEMENTS,
    SPECIAL_FLOATS,
    SPECIAL_ROUNDS,
    SYMBOLIC_SIZE,
    has_unbounded_loop,
    random_inputs,
    verification_inputs,
)
from xlapass.core.tracing import trace


def spec(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype)


def special_of(program):
    return [flat for name, flat in verification_inputs(program, special=True) if name.startswith("special")]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_element_takes_every_special_value(dtype):
    program = trace(lambda x, y: x, spec((2,), dtype), spec((), dtype))
    rounds = special_of(program)
    assert len(rounds) == SPECIAL_ROUNDS
    for element in [[r[0][0] for r in rounds], [r[0][1] for r in rounds], [r[1][()] for r in rounds]]:
        seen = {str(np.float64(v)) for v in element}
        assert {str(np.float64(v)) for v in SPECIAL_FLOATS} < seen and len(seen) == SPECIAL_ROUNDS


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8", "uint32", "int4"])
def test_integers_go_to_their_limits(dtype):
    rounds = special_of(trace(lambda n: n, spec((), dtype)))
    seen = {int(r[0]) for r in rounds}
    info = jnp.iinfo(dtype)
    assert {int(info.min), int(info.max), 0, 1} <= seen and (-1 in seen) == (info.min < 0)
    assert all(r[0].dtype == jnp.dtype(dtype) for r in rounds)


def test_large_programs_get_one_set_of_special_values():
    assert len(special_of(trace(lambda x: x, spec((FEW_ELEMENTS + 1,), np.float32)))) == 1
    assert len(special_of(trace(lambda x: x, spec((0,), np.float32)))) == SPECIAL_ROUNDS


def test_kinds_of_inputs():
    x = np.ones(3, np.float32)
    program = trace(lambda x, key: x + jax.random.uniform(key), x, jax.random.key(0))
    names = [name for name, _ in verification_inputs(program, special=False)]
    assert names == ["example inputs", "zeros inputs", "magnitudes inputs"]
    assert random_inputs(program)[0] is x
    assert verification_inputs(trace(lambda x: x, spec((3,), np.float32)), special=False)[0][0] == "random inputs"
    for _, (values, key) in verification_inputs(program, special=True):
        assert values.shape == (3,) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()


def test_the_same_every_time():
    program = trace(lambda x: x, spec((3,), np.float32))
    first, second = verification_inputs(program, special=True), verification_inputs(program, special=True)
    for (name, a), (other, b) in zip(first, second, strict=True):
        assert name == other
        np.testing.assert_array_equal(a[0], b[0])


def test_symbolic_sizes():
    (rows,) = jax.export.symbolic_shape("rows")
    program = trace(lambda x: x, spec((rows, 2), np.float32))
    assert {flat[0].shape for _, flat in verification_inputs(program, special=True)} == {(SYMBOLIC_SIZE, 2)}


def test_loops_that_might_not_end_run_on_examples_only():
    def fn(x):
        return jax.jit(lambda v: lax.while_loop(lambda c: c < 9, lambda c: c + 1, v))(x)

    program = trace(fn, np.float32(3))
    assert has_unbounded_loop(program.jaxpr.jaxpr)
    assert [name for name, _ in verification_inputs(program, special=True)] == ["example inputs"]
    assert not has_unbounded_loop(trace(lambda x: lax.fori_loop(0, 3, lambda i, c: c, x), np.float32(3)).jaxpr.jaxpr)
