"""Every NumPy function against XLA, bit for bit, at numbers of all magnitudes and at the special ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core as jex_core
from programs import assert_identical
from xlapass.core.instruments.numerics import UNFUSED
from xlapass.passes import numpy_operations

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
SAMPLES = 150


@pytest.fixture(autouse=True, scope="module")
def x64():
    with jax.enable_x64(True):
        yield


def values(dtype, shape, rng):
    """Small numbers, random bit patterns, and special numbers."""
    dtype, size = jnp.dtype(dtype), int(np.prod(shape))
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        special = np.array([0, 1, limits.min, limits.max, limits.max - 1], dtype)
    else:
        info = jnp.finfo(dtype)
        special = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, info.max, info.tiny, info.tiny / 4]
        special = np.array([float(x) for x in special]).astype(dtype)
    kinds = [
        np.frombuffer(rng.bytes(size * dtype.itemsize), dtype),
        (rng.standard_normal(size) * 8).astype(np.int64 if dtype.kind in "iu" else dtype).astype(dtype),
        rng.choice(special, size),
        rng.integers(1, 7, size).astype(dtype),
    ]
    return np.choose(rng.integers(0, 4, size), [k.astype(object) for k in kinds]).astype(dtype).reshape(shape)


def compare(fn, *samples):
    """Compares every equation of ``fn`` (one operation per result) at all samples.

    Returns the operations that NumPy never took on.
    """
    closed = jax.make_jaxpr(fn)(*samples[0])
    compiled = jax.jit(fn).lower(*samples[0]).compile(compiler_options=dict(UNFUSED))
    accepted = dict.fromkeys((str(eqn.primitive) for eqn in closed.eqns), 0)
    for operands in samples:
        env = dict(zip(closed.jaxpr.invars, operands, strict=True))
        results = dict(zip(closed.jaxpr.outvars, compiled(*operands), strict=True))
        for eqn in closed.eqns:
            inputs = [np.asarray(v.val) if isinstance(v, jex_core.Literal) else env[v] for v in eqn.invars]
            found = numpy_operations.evaluate(eqn.primitive.name, eqn.params, inputs, eqn.outvars[0].aval)
            if found is not None:
                assert_identical([found], [results[eqn.outvars[0]]])
                accepted[str(eqn.primitive)] += 1
    return [name for name, count in accepted.items() if not count]


def for_floats(x, y):
    return *for_numbers(x, y), lax.abs(x), lax.floor(x), lax.ceil(x), lax.is_finite(x), lax.sqrt(x), x**2


def for_integers(x, y):
    bitwise = [lax.bitwise_and(x, y), lax.bitwise_or(x, y), lax.bitwise_xor(x, y), lax.bitwise_not(x)]
    shifts = [lax.shift_left(x, y), lax.shift_right_logical(x, y), lax.shift_right_arithmetic(x, y)]
    reduced = [lax.reduce_sum(x, (0,)), lax.reduce_prod(x, (0,)), lax.reduce_xor(x, (0,)), lax.reduce_or(x, (0,))]
    return *for_numbers(x, y), *bitwise, *shifts, *reduced, lax.clamp(x, y, x), lax.reduce_and(x, (0,))


def for_numbers(x, y):
    arithmetic = [lax.add(x, y), lax.sub(x, y), lax.mul(x, y), lax.div(x, y), lax.rem(x, y), lax.neg(x), lax.square(x)]
    compared = [lax.eq(x, y), lax.ne(x, y), lax.lt(x, y), lax.le(x, y), lax.gt(x, y), lax.ge(x, y)]
    return *arithmetic, *compared, lax.max(x, y), lax.min(x, y), lax.reduce_max(x, (0,)), lax.reduce_min(x, (0,))


def for_booleans(x, y):
    bitwise = [lax.bitwise_and(x, y), lax.bitwise_or(x, y), lax.bitwise_xor(x, y), lax.bitwise_not(x)]
    return *bitwise, lax.eq(x, y), lax.ne(x, y), lax.max(x, y), lax.min(x, y), lax.reduce_or(x, (0,)), x.all()


@pytest.mark.parametrize("dtype", ("bool", *FLOATS, *INTEGERS))
def test_elementwise(dtype):
    fn = for_floats if dtype in FLOATS else for_booleans if dtype == "bool" else for_integers
    rng = np.random.default_rng(0)
    samples = [(values(dtype, 3, rng), values(dtype, 3, rng)) for _ in range(SAMPLES)]
    assert compare(fn, *samples) == []


@pytest.mark.parametrize("dtype", ("bool", *FLOATS, *INTEGERS))
def test_conversions(dtype):
    def fn(x):
        others = [target for target in ("bool", *FLOATS, *INTEGERS) if target != dtype]
        return tuple(lax.convert_element_type(x, jnp.dtype(target)) for target in others)

    rng = np.random.default_rng(1)
    assert compare(fn, *[(values(dtype, 2, rng),) for _ in range(SAMPLES)]) == []


def moving(x, flat, i, which):
    return (
        lax.reshape(x, (3, 8)),
        lax.transpose(x, (2, 0, 1)),
        lax.broadcast_in_dim(x, (2, 2, 3, 4), (0, 2, 3)),
        lax.squeeze(flat, (0, 2)),
        lax.slice(x, (0, 1, 0), (2, 3, 4), (1, 2, 3)),
        lax.dynamic_slice(x, (i[0], i[1], i[2]), (1, 2, 3)),
        lax.dynamic_update_slice(x, flat, (i[0], i[1], i[2])),
        lax.concatenate([x, x], 1),
        lax.rev(x, (0, 2)),
        lax.pad(x, flat[0, 0, 0], ((1, 0, 0), (-1, 2, 1), (0, -2, 2))),
        lax.pad(x, flat[0, 0, 0], ((-2, 0, 0), (1, 1, 0), (0, 0, 0))),
        lax.select_n(which, x, lax.rev(x, (0,))),
        x[i],
        x[:, i],
        x[i[0], :, i[1]],
        lax.copy(x) if hasattr(lax, "copy") else x,
    )


@pytest.mark.parametrize("dtype", ("bool", "float32", "bfloat16", "float8_e4m3fn", "int4", "uint64", "complex64"))
def test_moving_data(dtype):
    """Each operation by itself: in one function, they would not read the inputs."""
    rng = np.random.default_rng(2)
    for _ in range(12):
        x = rng.integers(-2, 3, (2, 3, 4)).astype(dtype)
        flat = rng.integers(-2, 3, (1, 3, 1)).astype(dtype)
        i = rng.integers(-1, 3, 3).astype(np.int32)
        which = rng.integers(0, 2, (2, 3, 4)).astype(bool)
        expected = jax.jit(moving)(x, flat, i, which)
        closed = jax.make_jaxpr(moving)(x, flat, i, which)
        assert_identical(evaluate_all(closed, [x, flat, i, which]), expected)


def evaluate_all(closed, operands):
    """Runs a jaxpr with NumPy, and with JAX where NumPy declines."""
    env = dict(zip(closed.jaxpr.invars, operands, strict=True))

    def read(atom):
        return np.asarray(atom.val, atom.aval.dtype) if isinstance(atom, jex_core.Literal) else env[atom]

    for eqn in closed.eqns:
        inputs = list(map(read, eqn.invars))
        if eqn.primitive.name == "jit":
            results = evaluate_all(eqn.params["jaxpr"], inputs)
        else:
            result = numpy_operations.evaluate(eqn.primitive.name, eqn.params, inputs, eqn.outvars[0].aval)
            results = [np.asarray(eqn.primitive.bind(*inputs, **eqn.params)) if result is None else result]
        env.update(zip(eqn.outvars, results, strict=True))
    return list(map(read, closed.jaxpr.outvars))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1)])
def test_arrays_without_elements(shape):
    def fn(x):
        return x + x, x.T, jnp.pad(x, 1), jnp.concatenate([x, x]), x.reshape(-1), x[::2], -x, x.astype(int)

    x = np.zeros(shape, np.float32)
    assert_identical(evaluate_all(jax.make_jaxpr(fn)(x), [x]), fn(x))


@pytest.mark.parametrize("dtype", ("float32", "bfloat16", "int8", "int64", "uint16"))
def test_iota(dtype):
    for shape in ((5,), (3, 200), (70000,), (0, 2)):
        found = numpy_operations.evaluate("iota", {"dimension": len(shape) - 1}, [], jax.core.ShapedArray(shape, dtype))
        if found is not None:
            assert_identical([found], [lax.broadcasted_iota(dtype, shape, len(shape) - 1)])
    assert numpy_operations.evaluate("iota", {"dimension": 0}, [], jax.core.ShapedArray((70000,), jnp.bfloat16)) is None


@pytest.mark.parametrize("dtype", ("float32", "bfloat16", "int32", "int8"))
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((0, 0), (2, 1), (0, 3), (0, 0))])
def test_sums_over_windows(dtype, padding):
    x = np.random.default_rng(3).integers(-2, 3, (1, 7, 6, 2)).astype(dtype)

    def fn(x):
        return lax.reduce_window(
            x, np.zeros((), dtype), lax.add, (1, 3, 2, 1), (1, 2, 1, 1), padding, None, (1, 1, 2, 1)
        )

    (eqn,) = jax.make_jaxpr(fn)(x).eqns
    found = numpy_operations.evaluate(eqn.primitive.name, eqn.params, [x], eqn.outvars[0].aval)
    assert_identical([found], [fn(x)])


def test_sums_that_are_rounded_are_left_to_xla():
    (eqn,) = jax.make_jaxpr(lambda x: lax.reduce_window(x, np.float32(0), lax.add, (2,), (1,), "VALID"))(
        np.ones(4, np.float32)
    ).eqns
    for x in (np.full(4, 0.1, np.float32), np.full(4, 2.0**24, np.float32), np.full(4, np.nan, np.float32)):
        assert numpy_operations.evaluate(eqn.primitive.name, eqn.params, [x], eqn.outvars[0].aval) is None


@pytest.mark.parametrize("mode", ["clip", "fill", "wrap"])
def test_gather(mode):
    x = np.arange(24.0).reshape(2, 3, 4)
    for indices in (np.array([[1, 0], [2, 2]]), np.array([3, 0]), np.array([-1])):
        for axis in (0, 1, 2):
            fn = lambda i, axis=axis: jnp.take(x, i, axis=axis, mode=mode)  # noqa: E731
            closed = jax.make_jaxpr(fn)(indices)
            assert_identical(evaluate_all_with_consts(closed, [indices]), [fn(indices)])


def evaluate_all_with_consts(closed, operands):
    """As `evaluate_all`, for a jaxpr that closes over arrays."""
    jaxpr = closed.jaxpr.replace(constvars=[], invars=[*closed.jaxpr.constvars, *closed.jaxpr.invars])
    return evaluate_all(jex_core.ClosedJaxpr(jaxpr, ()), [*map(np.asarray, closed.consts), *operands])


def test_bits():
    x = np.array([1.5, -0.0, np.nan, 1e-40], np.float32)
    for target in ("int32", "uint32", "float32"):
        aval = jax.core.ShapedArray((4,), target)
        found = numpy_operations.evaluate("bitcast_convert_type", {}, [x], aval)
        assert found.tobytes() == x.tobytes()
    assert numpy_operations.evaluate("bitcast_convert_type", {}, [x], jax.core.ShapedArray((4, 2), "int16")) is None
