"""Comparisons, selections, clamping, and conversions between dtypes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core as jex_core
from programs import assert_identical
from support import applies, check, declines
from xlapass.core.instruments.numerics import UNFUSED
from xlapass.core.tracing import trace
from xlapass.passes.simplify import conversions

F = jnp.asarray([[-1.5, 0.0, 2.0], [jnp.inf, jnp.nan, -0.0]], jnp.float32)
I = jnp.asarray([[-3, 0, 7], [300, -300, 1]], jnp.int32)  # noqa: E741
B = jnp.asarray([[True, False, True], [False, True, True]])


def select(predicate, on_true, on_false):
    return lax.select_n(predicate, on_false, on_true)


def test_before_and_after():
    check(
        "simplify",
        lambda p, x, y: select(~p, select(p, x, y), y),
        B,
        F,
        F,
        before="""
            program(a:bool[2,3], b:f32[2,3], c:f32[2,3]):
              d:bool[2,3] = not a
              e:f32[2,3] = select_n a c b
              f:f32[2,3] = select_n d c e
              return f
        """,
        after="""
            program(a:bool[2,3], b:f32[2,3], c:f32[2,3]):
              return c
        """,
    )


@pytest.mark.parametrize(
    ("rule", "fn", "args", "left"),
    [
        ("equals-itself", lambda x: x <= x, (I,), ["broadcast_in_dim"]),
        ("differs-from-itself", lambda x: x != x, (I,), ["broadcast_in_dim"]),
        ("less-than-itself", lambda x: x < x, (F,), ["broadcast_in_dim"]),
        ("is-true", lambda x: x == True, (B,), []),  # noqa: E712
        ("is-true", lambda x: x != False, (B,), []),  # noqa: E712
        ("is-false", lambda x: x == False, (B,), ["not"]),  # noqa: E712
        ("nonzero-boolean", lambda x: x.astype(int) != 0, (B,), []),
        ("nonzero-boolean", lambda x: x.astype(jnp.bfloat16) > 0, (B,), []),
        ("zero-boolean", lambda x: x.astype(float) == 0, (B,), ["not"]),
        ("not-comparison", lambda x: ~(x < 3), (I,), ["ge"]),
        ("not-comparison", lambda x: ~(x == 3), (F,), ["ne"]),
        ("select-same", lambda p, x: select(p, x, x), (B, F), []),
        ("select-same", lambda i, x: lax.select_n(i % 3, x, x, x), (I, F), []),
        ("select-known", lambda x, y: select(jnp.ones((2, 3), bool), x, y), (F, F), []),
        ("select-known", lambda x, y: select(False, x, y), (F, F), []),
        ("select-known", lambda x, y: lax.select_n(np.int32(2), x, x, y), (F, F), []),
        ("select-not", lambda p, x, y: select(~p, x, y), (B, F, F), ["select_n"]),
        ("select-true-or-false", lambda p: select(p, jnp.ones_like(p), jnp.zeros_like(p)), (B,), []),
        ("select-false-or-true", lambda p: select(p, jnp.zeros_like(p), jnp.ones_like(p)), (B,), ["not"]),
        ("select-again-true", lambda p, x, y: select(p, select(p, x, y), x), (B, F, F), []),
        ("select-again-false", lambda p, x, y: select(p, y, select(p, x, y)), (B, F, F), []),
        ("clamp-by-itself", lambda x: lax.clamp(x, x, x), (F,), []),
        ("clamp-clamp", lambda x: lax.clamp(0.0, lax.clamp(0.0, x, 6.0), 6.0), (F,), ["clamp"]),
        ("convert-back", lambda x: x.astype(jnp.bfloat16).astype(float).astype(jnp.bfloat16), (F,), None),
        ("convert-back", lambda x: x.astype(jnp.int32).astype(bool), (B,), None),
        ("convert-twice", lambda x: x.astype(jnp.int32).astype(jnp.float32), (B,), ["convert_element_type"]),
        ("convert-twice", lambda x: x.astype(jnp.bfloat16).astype(jnp.float32).astype(jnp.int8), (I,), None),
        ("copy", lambda x: jnp.array(x, copy=True), (F,), []),
    ],
)
def test_rule(rule, fn, args, left):
    applies(rule, fn, *args, left=left)


def test_conversion_to_the_same_type():
    """JAX makes none; they are what rewrites leave."""
    program = trace(lambda x: x.astype(jnp.bfloat16), F)
    jaxpr = program.jaxpr.jaxpr
    (eqn,) = jaxpr.eqns
    same = jex_core.Var(eqn.invars[0].aval)
    eqn = eqn.replace(outvars=[same], params={**eqn.params, "new_dtype": np.dtype("float32")})
    program = program.replace(jaxpr=jex_core.ClosedJaxpr(jaxpr.replace(eqns=[eqn], outvars=[same]), ()))
    applies("convert-nothing", program, left=[])


@pytest.mark.parametrize(
    ("rule", "fn", "args"),
    [
        ("equals-itself", lambda x: x == x, (F,)),  # NaN does not
        ("differs-from-itself", lambda x: x != x, (F,)),  # NaN does
        ("is-true", lambda x: x == 1, (I,)),
        ("nonzero-boolean", lambda x: x.astype(float) != 0, (I,)),
        ("not-comparison", lambda x: ~(x < 3), (F,)),  # of NaN neither holds
        ("select-known", lambda p, x: select(p, x, x + 1), (B, F)),
        ("select-same", lambda p, x: select(p, x, x + 1), (B, F)),
        ("select-not", lambda i, x: lax.select_n(~i, x, x), (jnp.asarray(1), F)),
        ("select-true-or-false", lambda p: select(p, jnp.ones(p.shape), jnp.zeros(p.shape)), (B,)),
        ("clamp-clamp", lambda x: lax.clamp(0.0, lax.clamp(-1.0, x, 6.0), 6.0), (F,)),
        ("convert-nothing", lambda x: lax.convert_element_type(x, jnp.int32), (F,)),
        ("convert-back", lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), (F,)),  # loses digits
        ("convert-back", lambda x: x.astype(jnp.float32).astype(jnp.int32), (I,)),  # loses large integers
        ("convert-twice", lambda x: x.astype(jnp.int8).astype(jnp.int16), (I,)),  # wraps around
        ("convert-twice", lambda x: x.astype(jnp.int8).astype(jnp.float32).astype(jnp.uint8), (I,)),  # saturates
        ("convert-twice", lambda x: x.astype(bool).astype(jnp.int8), (I,)),
    ],
)
def test_what_it_must_not_do(rule, fn, args):
    declines(rule, fn, *args)


DTYPES = ("bool", "int8", "uint8", "int16", "int32", "uint32", "float16", "bfloat16", "float32", "float8_e4m3fn")


@pytest.mark.parametrize("source", DTYPES)
def test_two_conversions_and_the_one_in_their_place_agree(source):
    """Through every dtype to every other, on every value of at most 16 bits and many of the wider ones."""
    dtype = jnp.dtype(source)
    rng = np.random.default_rng(0)
    if dtype.itemsize <= 2:
        size = 2 if source == "bool" else 256**dtype.itemsize
        x = np.arange(size).astype(f"u{dtype.itemsize}").view(dtype)
    else:
        x = rng.integers(0, 2**32, 20_000, np.uint64).astype(np.uint32).view(dtype)
        x = np.concatenate([x, (rng.standard_normal(20_000) * 1000).astype(np.int32).astype(dtype)])
    chains = [(b, c) for b, c in itertools.product(DTYPES, DTYPES) if source != b != c and merges(dtype, b, c)]

    def twice(x):
        return [lax.convert_element_type(lax.convert_element_type(x, jnp.dtype(b)), jnp.dtype(c)) for b, c in chains]

    def once(x):
        return [lax.convert_element_type(x, jnp.dtype(c)) for _, c in chains]

    if chains:
        results = [jax.jit(f).lower(x).compile(compiler_options=dict(UNFUSED))(x) for f in (twice, once)]
        for a, b in zip(*results, strict=True):
            with np.errstate(invalid="ignore"):  # NumPy warns of NaN among the float8 numbers that it converts
                assert_identical([b], [a])


def merges(a, b, c):
    """Whether the rule `convert-twice` makes one conversion of a -> b -> c."""
    jaxpr = jax.make_jaxpr(lambda x: x.astype(b).astype(c))(jnp.zeros((), a))
    return conversions.why_not_once(a, jnp.dtype(b), jnp.dtype(c)) is None and len(jaxpr.eqns) == 2
