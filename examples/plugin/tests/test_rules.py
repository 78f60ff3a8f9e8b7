"""Rules: the program before and after, and what must not match."""

import jax.numpy as jnp
import pytest
from xlapass.testing import assert_equal_results, assert_rewrites, assert_rule_does_not_fire
from xlapass_example.rules import SIMPLIFY

X = jnp.array([1.0, 2.0, 4.0])


def test_reciprocal_square_root():
    assert_rewrites(
        SIMPLIFY,
        lambda x: 1 / jnp.sqrt(x),
        X,
        expect="""
            program(a:f32[3]):
              b:f32[3] = rsqrt a
              return b
        """,
    )
    assert_equal_results(SIMPLIFY, lambda x: 1 / jnp.sqrt(x), X)


@pytest.mark.parametrize("dtype", ["float32", "int8", "int32", "bfloat16"])
def test_square_of_absolute(dtype):
    assert_equal_results(SIMPLIFY, lambda x: jnp.abs(x) * jnp.abs(x), X.astype(dtype))


def test_what_the_checks_decline():
    z = X.astype("complex64")
    assert_rule_does_not_fire(SIMPLIFY, lambda x: 1 / jnp.sqrt(x), z, because="real floats")
    assert_rule_does_not_fire(SIMPLIFY, lambda x: jnp.abs(x) * jnp.abs(x), z, because="complex number")


@pytest.mark.parametrize("fn", [lambda x: 2 / jnp.sqrt(x), lambda x: jnp.abs(x) * jnp.abs(x + 1)])
def test_what_only_looks_like_it(fn):
    assert_rule_does_not_fire(SIMPLIFY, fn, X)
