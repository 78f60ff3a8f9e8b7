"""Products and convolutions in every order of axes, of every kind."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

STEP = 9

RNG = np.random.default_rng(0)
NHWC = ("NHWC", "HWIO", "NHWC")


def _f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def _i(*shape, dtype=np.int32):
    return RNG.integers(-9, 9, shape).astype(dtype)


def _dot(contract, batch=((), ()), dtype=None):
    return lambda x, y: lax.dot_general(x, y, (contract, batch), preferred_element_type=dtype)


def _convolution(numbers=NHWC, strides=(1, 1), padding="SAME", **options):
    return lambda x, w: lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=numbers, **options)


def _gradients(fn):
    return jax.grad(lambda x, w: (fn(x, w) ** 2).sum(), argnums=(0, 1))


MATRICES = {
    "one": (_dot(((1,), (0,))), _f(3, 4), _f(4, 5)),
    "two-axes-crossed": (_dot(((0, 2), (2, 0))), _f(3, 4, 5), _f(5, 2, 3)),
    "batch-last": (_dot(((0,), (2,)), ((1,), (0,))), _f(4, 2, 3), _f(2, 5, 4)),
    "four-batches": (_dot(((5,), (4,)), ((0, 1, 2, 3), (0, 1, 2, 3))), _f(2, 2, 1, 2, 3, 4), _f(2, 2, 1, 2, 4, 5)),
    "nothing-contracted": (_dot(((), ()), ((0,), (0,))), _f(4), _f(4)),
    "no-depth": (_dot(((1,), (0,))), _f(3, 0), _f(0, 5)),
    "integers": (_dot(((1,), (0,))), _i(3, 4), _i(4, 5)),
    "many-integers": (_dot(((1,), (0,))), _i(70, 120) * 10**7, _i(120, 160) * 10**7),
    "bytes": (_dot(((0,), (1,)), dtype=np.int32), _i(4, 3, dtype=np.int8), _i(5, 4, dtype=np.int8)),
    "unsigned-bytes": (_dot(((1,), (0,)), dtype=np.int32), _i(3, 4, dtype=np.uint8), _i(4, 5, dtype=np.uint8)),
    "booleans": (lambda x, y: (x > 0) @ (y > 0), _f(3, 4), _f(4, 5)),
    "halves": (_dot(((1,), (0,)), dtype=np.float32), _f(3, 4).astype(np.float16), _f(4, 5).astype(np.float16)),
}
EQUATIONS = {
    equation: (lambda x, y, e=equation: jnp.einsum(e, x, y), _f(*left), _f(*right))
    for equation, left, right in (
        ("aib,cbi->ac", (3, 4, 5), (2, 5, 4)),
        ("bhqd,bkhd->bhqk", (2, 2, 3, 4), (2, 5, 2, 4)),
        ("abcd,dcef->abef", (2, 3, 4, 5), (5, 4, 2, 3)),
        ("ii,ij->j", (4, 4), (4, 3)),
        ("...ij,...jk->...ik", (2, 2, 3, 4), (2, 2, 4, 5)),
    )
}
IMAGES = {
    "odd-layout": (_convolution(("NHCW", "OHWI", "CNWH")), _f(2, 8, 4, 7), _f(8, 3, 3, 4)),
    "integers": (_convolution(), _i(1, 6, 6, 2), _i(3, 3, 2, 3)),
    "bytes": (
        _convolution(preferred_element_type=np.int32),
        _i(1, 6, 6, 2, dtype=np.int8),
        _i(3, 3, 2, 3, dtype=np.int8),
    ),
    "groups": (
        _convolution(strides=(1, 2), feature_group_count=2, rhs_dilation=(2, 1)),
        _f(2, 8, 8, 4),
        _f(3, 3, 2, 6),
    ),
    "batch-groups": (_convolution(strides=(2, 1), batch_group_count=3), _f(3, 6, 6, 2), _f(3, 3, 2, 6)),
    "volume-groups": (
        _convolution(("NDHWC", "DHWIO", "NDHWC"), (1, 1, 1), feature_group_count=2),
        _f(1, 5, 6, 4, 2),
        _f(2, 2, 3, 1, 4),
    ),
    "empty": (_convolution(), _f(0, 8, 8, 4), _f(3, 3, 4, 8)),
    "both-dilated": (
        _convolution(padding=[(4, 4)] * 2, lhs_dilation=(2, 2), rhs_dilation=(2, 2)),
        _f(1, 5, 6, 4),
        _f(3, 3, 4, 8),
    ),
    "spread-and-strided": (
        _convolution(strides=(2, 1), padding=[(2, 1)] * 2, lhs_dilation=(3, 2)),
        _f(1, 5, 6, 4),
        _f(3, 3, 4, 8),
    ),
    "cropped": (_convolution(padding=[(-1, 0), (0, 4)], lhs_dilation=(2, 2)), _f(1, 5, 6, 4), _f(3, 3, 4, 8)),
    "spread-groups": (
        _convolution(padding=[(2, 1)] * 2, lhs_dilation=(2, 2), feature_group_count=2),
        _f(1, 5, 6, 4),
        _f(3, 3, 2, 8),
    ),
    "gradients": (_gradients(_convolution(strides=(2, 2))), _f(1, 6, 6, 4), _f(3, 3, 4, 2)),
    "gradients-depthwise": (_gradients(_convolution(feature_group_count=4)), _f(2, 6, 6, 4), _f(3, 3, 1, 4)),
    "gradients-groups": (
        _gradients(_convolution(strides=(2, 1), feature_group_count=2)),
        _f(1, 6, 6, 4),
        _f(3, 3, 2, 4),
    ),
}
TRANSPOSED = {
    f"transposed-{kernel}-{stride}-{padding}": (
        lambda x, w, s=stride, p=padding: lax.conv_transpose(x, w, (s, s), p),
        _f(1, 5, 6, 2),
        _f(kernel, kernel, 2, 3),
    )
    for kernel, stride, padding in itertools.product((2, 3, 4, 5), (1, 2, 3), ("SAME", "VALID"))
}
CASES = {**MATRICES, **EQUATIONS, **IMAGES, **TRANSPOSED}


def test_products(case, agrees):
    fn, *args = case
    agrees(fn, *args)


def test_transposed_convolution_that_the_converter_pads_wrong(agrees):
    agrees(lambda x, w: lax.conv_transpose(x, w, (2, 2), "SAME"), _f(1, 5, 6, 2), _f(3, 3, 2, 3))
