"""Sums, products, signs, extremes and bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import primitives
from support import applies, check, declines
from xlapass.passes.fold_batch_norm import FoldBatchNorm
from xlapass.passes.simplify import Simplify

F = jnp.asarray([[-1.5, 0.0, 2.0], [jnp.inf, jnp.nan, -0.0]], jnp.float32)
I = jnp.asarray([[-3, 0, 7], [2**31 - 1, -(2**31), 1]], jnp.int32)  # noqa: E741
U = jnp.asarray([0, 1, 255], jnp.uint8)
B = jnp.asarray([True, False, True])
C = jnp.asarray([1 + 2j, -0.0, jnp.inf])


def test_before_and_after():
    check(
        "simplify",
        lambda x: lax.neg(-(x * 1.0)) - 0.0,
        F,
        before="""
            program(a:f32[2,3]):
              b:f32[2,3] = mul a 1.0:f32[]
              c:f32[2,3] = neg b
              d:f32[2,3] = neg c
              e:f32[2,3] = sub d 0.0:f32[]
              return e
        """,
        after="""
            program(a:f32[2,3]):
              return a
        """,
    )


@pytest.mark.parametrize(
    ("rule", "fn", "x", "left"),
    [
        ("add-zero", lambda x: x + 0, I, []),
        ("add-zero", lambda x: jnp.zeros_like(x) + x, I, []),
        ("add-negative-zero", lambda x: x + -0.0, F, []),
        ("sub-zero", lambda x: x - 0.0, F, []),
        ("sub-zero", lambda x: x - 0, U, []),
        ("sub-from-zero", lambda x: 0 - x, I, ["neg"]),
        ("sub-from-negative-zero", lambda x: -0.0 - x, F, ["neg"]),
        ("sub-self", lambda x: x - x, I, ["broadcast_in_dim"]),
        ("mul-one", lambda x: 1.0 * x, F, []),
        ("mul-one", lambda x: x * np.ones((2, 3), np.float32)[0, 0], F, []),
        ("mul-zero", lambda x: x * 0, U, ["broadcast_in_dim"]),
        ("mul-minus-one", lambda x: x * -1.0, F, ["neg"]),
        ("div-one", lambda x: x / 1.0, F, []),
        ("div-minus-one", lambda x: lax.div(x, -1), I, ["neg"]),
        ("pow-one", lambda x: lax.pow(x, 1.0), F, []),
        ("integer-pow-one", lambda x: primitives.integer_pow_p.bind(x, y=1), F, []),
        ("neg-neg", lambda x: lax.neg(-x), I, []),
        ("add-neg", lambda x: x + -lax.cos(x), F, ["cos", "sub"]),
        ("sub-neg", lambda x: x - -lax.cos(x), F, ["cos", "add"]),
        ("mul-neg-neg", lambda x: -x * -lax.cos(x), F, ["cos", "mul"]),
        ("div-neg-neg", lambda x: -x / -lax.cos(x), F, ["cos", "div"]),
        ("even-of-neg", lambda x: abs(-x), I, ["abs"]),
        ("even-of-neg", lambda x: lax.square(-x), F, ["square"]),
        ("square-of-abs", lambda x: lax.square(abs(x)), F, ["square"]),
        ("extreme-of-self", lambda x: jnp.maximum(x, x), F, []),
        ("extreme-of-self", lambda x: x & x, I, []),
        ("neutral-bound", lambda x: lax.max(x, -jnp.inf), F, []),
        ("neutral-bound", lambda x: lax.min(x, jnp.inf), F, []),
        ("neutral-bound", lambda x: lax.max(x, np.int32(-(2**31))), I, []),
        ("neutral-bound", lambda x: lax.min(x, np.uint8(255)), U, []),
        ("neutral-bound", lambda x: lax.max(x, False), B, []),
        ("xor-self", lambda x: x ^ x, I, ["broadcast_in_dim"]),
        ("not-not", lambda x: ~~x, B, []),
        ("mask-keeps-all", lambda x: x & np.uint8(255), U, []),
        ("mask-keeps-all", lambda x: x & -1, I, []),
        ("mask-keeps-all", lambda x: x & True, B, []),
        ("mask-keeps-none", lambda x: x & 0, I, ["broadcast_in_dim"]),
        ("or-nothing", lambda x: x | 0, I, []),
        ("or-nothing", lambda x: x ^ False, B, []),
        ("xor-everything", lambda x: x ^ True, B, ["not"]),
        ("shift-by-zero", lambda x: x << 0, I, []),
        ("shift-by-zero", lambda x: x >> 0, I, []),
        ("abs-abs", lambda x: abs(abs(x)), F, ["abs"]),
        ("floor-floor", lambda x: jnp.floor(jnp.floor(x)), F, ["floor"]),
        ("round-round", lambda x: lax.round(lax.round(x)), F, ["round"]),
        ("sign-sign", lambda x: lax.sign(lax.sign(x)), F, ["sign"]),
        ("max-max", lambda x: lax.max(lax.max(x, 0.0), 0.0), F, ["max"]),
        ("max-max", lambda x: lax.max(x, lax.max(x, 3.0)), F, ["max"]),
        ("and-and", lambda x: (x & 5) & 5, I, ["and"]),
    ],
)
def test_rule(rule, fn, x, left):
    applies(rule, fn, x, left=left)


@pytest.mark.parametrize(
    ("rule", "fn", "x"),
    [
        ("add-zero", lambda x: x + 0.0, F),  # -0.0 + 0.0 is 0.0
        ("add-zero", lambda x: x[0, 0] + jnp.zeros_like(x), I),  # the result is larger
        ("add-negative-zero", lambda x: x + -0.0, C),
        ("sub-zero", lambda x: x - -0.0, F),  # -0.0 - -0.0 is 0.0
        ("sub-from-zero", lambda x: 0.0 - x, F),  # 0.0 - 0.0 is 0.0, -0.0 negated
        ("sub-self", lambda x: x - x, F),  # inf - inf is NaN
        ("mul-one", lambda x: x * 1, C),  # inf * (1 + 0j) has a NaN
        ("mul-one", lambda x: x * (1 + 1e-7), F),
        ("mul-zero", lambda x: x * 0.0, F),  # NaN * 0 is NaN
        ("pow-one", lambda x: lax.pow(x, 2.0), F),
        ("div-neg-neg", lambda x: lax.div(-x, -x[::-1]), I),  # the least integer has no opposite
        ("neutral-bound", lambda x: lax.max(x, jnp.inf), F),
        ("neutral-bound", lambda x: lax.max(x, 0.0), F),
        ("neutral-bound", lambda x: lax.min(x, jnp.nan), F),
        ("mask-keeps-all", lambda x: x & 255, I),
        ("or-nothing", lambda x: x | 1, I),
        ("sign-sign", lambda x: lax.sign(lax.sign(x)), C),
        ("max-max", lambda x: lax.max(lax.max(x, 0.0), 1.0), F),
        ("shift-by-zero", lambda x: x << 1, I),
    ],
)
def test_what_it_must_not_do(rule, fn, x):
    declines(rule, fn, x)


def test_every_rule_has_a_name_of_its_own():
    names = [rule.name for rule in (*Simplify.own_rules(), *FoldBatchNorm.own_rules())]
    assert len(set(names)) == len(names)


def test_accumulated_gradients():
    def f(x):
        return jax.vjp(lambda y: (y * 3, y * 0), x)[1]((x, jnp.zeros_like(x)))

    applies("mul-one", lambda x: f(x)[0] * 1.0, F, left=None)


def test_symbolic_sizes():
    applies("mul-one", lambda x: x * 1.0, F, left=[], dynamic="b, ...")
    applies("mul-zero", lambda x: x * 0, I, left=["broadcast_in_dim"], dynamic="b, ...")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.int4, jnp.uint4])
def test_small_dtypes(dtype):
    x = jnp.asarray([0, 1, 2]).astype(dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        applies("mul-one", lambda x: x * jnp.ones((), dtype), x, left=[])
    else:
        applies("add-zero", lambda x: x + 0, x, left=[])
