"""`mixed-precision`: what goes into the small type, what stays, and where the casts end up."""

import numpy as np
from jax import lax
from xlapass.testing import assert_equal_results, assert_idempotent, assert_rewrites

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def check(fn, *args, after, subject="mixed-precision", **options):
    """The program after the pass reads as expected, computes the same within its tolerance, and has settled."""
    assert_rewrites(subject, fn, *args, expect=after, **options)
    assert_equal_results(subject, fn, *args, **options)
    return assert_idempotent(subject, fn, *args, **options)


# -- placement -----------------------------------------------------------------------------------------------------------


def test_product_of_inputs():
    check(
        lambda x, y: lax.dot(x, y),
        draw(2, 3),
        draw(3, 4),
        after="""
            program(a:f32[2,3], b:f32[3,4]):
              c:bf16[2,3] = convert_element_type[new_dtype=bfloat16] a
              d:bf16[3,4] = convert_element_type[new_dtype=bfloat16] b
              e:f32[2,4] = dot_general[dimension_numbers=(((1),(0)),((),())) preferred_element_type=float32] c d
              return e
        """,
    )
