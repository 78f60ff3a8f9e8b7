"""Transformed functions, and other types than float32: name -> function and arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax
from onnx_values import IMAGE, KEY, RNG, Call, V, X, Z, normal, whole


def _mlp(params, x):
    for w, b in params[:-1]:
        x = jax.nn.gelu(x @ w + b)
    w, b = params[-1]
    return x @ w + b


PARAMS = [(normal(4, 8), normal(8)), (normal(8, 2), normal(2))]


@jax.custom_vjp
def clipped(x):
    return x * 2


clipped.defvjp(lambda x: (x * 2, x), lambda x, g: (jnp.clip(g, -1, 1) * x,))

TRANSFORMS: dict[str, Call] = {
    "grad": (jax.grad(lambda p, x: jnp.mean(_mlp(p, x) ** 2)), (PARAMS, X)),
    "value_and_grad": (jax.value_and_grad(lambda x: jnp.sum(jax.nn.softmax(x) ** 2)), (X,)),
    "vmap of grad": (jax.vmap(jax.grad(lambda x: jnp.sum(jnp.tanh(x) ** 3))), (X,)),
    "jacfwd": (jax.jacfwd(lambda x: jnp.sin(x) * x.sum()), (V,)),
    "jacrev": (jax.jacrev(lambda x: jnp.sin(x) * x.sum()), (V,)),
    "hessian": (jax.hessian(lambda x: jnp.sum(jnp.exp(-(x**2)))), (V,)),
    "jvp": (lambda x: jax.jvp(lambda v: jnp.sin(v) ** 2, (x,), (x,)), (X,)),
    "vjp": (lambda x: jax.vjp(lambda v: jnp.cumsum(v**2), x)[1](x), (V,)),
    "checkpoint": (jax.grad(lambda x: jax.checkpoint(lambda v: jnp.sin(jnp.sin(v)))(x).sum()), (X,)),
    "custom_vjp": (jax.grad(lambda x: clipped(x).sum()), (X,)),
    "grad of scan": (jax.grad(lambda x: lax.scan(lambda c, a: (c * a + 1, c), x[0], x)[0].sum()), (X,)),
    "grad of cond": (jax.grad(lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x).sum()), (X,)),
    "grad of max pool": (
        jax.grad(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME").sum()),
        (IMAGE,),
    ),
    "grad of conv": (
        jax.grad(
            lambda k: lax.conv_general_dilated(
                IMAGE, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ).sum()
        ),
        (normal(3, 3, 2, 4),),
    ),
    "grad of gather": (jax.grad(lambda x: (x[np.array([0, 1, 1])] ** 2).sum()), (X,)),
    "grad of sort": (jax.grad(lambda x: (jnp.sort(x) * jnp.arange(4)).sum()), (X,)),
    "vmap in axes": (jax.vmap(lambda a, b: a @ b, in_axes=(1, None), out_axes=1), (X, normal(3, 2))),
    "vmap of vmap": (jax.vmap(jax.vmap(lambda a, i: a[i], (0, None)), (None, 0)), (X, np.array([0, 3], np.int32))),
    "vmap of dynamic_slice": (
        jax.vmap(lambda a, i: lax.dynamic_slice(a, (i,), (2,))),
        (X, np.array([0, 3, 1], np.int32)),
    ),
    "vmap of scatter": (jax.vmap(lambda a, i: a.at[i].add(1.0)), (X, np.array([0, 3, 1], np.int32))),
    "jit of jit": (jax.jit(lambda x: jax.jit(lambda v: v * 2)(x) + jax.jit(lambda v: v * 2)(x)), (X,)),
    "linearize": (lambda x: jax.linearize(jnp.sin, x)[1](x), (X,)),
    "attention": (lambda x: jax.nn.dot_product_attention(x, x, x, is_causal=True), (normal(2, 5, 4, 8),)),
    "grad of attention": (jax.grad(lambda x: jax.nn.dot_product_attention(x, x, x).sum()), (normal(1, 3, 2, 4),)),
}

WIDE: dict[str, Call] = {
    "int64": (
        lambda a: (a * a, a // 3, a % 7, a << 3, jnp.sum(a), jnp.max(a), a.astype(jnp.float64), jnp.sort(a)),
        (whole(-(2**40), 2**40, 6, dtype=np.int64),),
    ),
    "uint64": (
        lambda a: (a + a, a // 3, a % 7, a >> 3, jnp.max(a), jnp.argmax(a), jnp.sort(a), a > 5, a.astype(jnp.float64)),
        (RNG.integers(0, 2**64 - 1, 6, dtype=np.uint64),),
    ),
    "float64": (
        lambda a: (
            jnp.exp(a),
            jnp.sin(a),
            a @ a.T,
            jnp.linalg.inv(a @ a.T + jnp.eye(3)),
            jax.nn.gelu(a),
            jax.nn.softmax(a),
            jnp.var(a),
            jnp.argsort(a),
        ),
        (X.astype(np.float64),),
    ),
    "complex128": (lambda a: (jnp.exp(a), a @ a.T, jnp.abs(a), jnp.fft.fft(a)), (Z.astype(np.complex128),)),
    "draws": (
        lambda w: (
            jax.random.normal(jax.random.wrap_key_data(w), (3,)),
            jax.random.randint(jax.random.wrap_key_data(w), (3,), 0, 2**40),
        ),
        (KEY,),
    ),
    "conv": (
        lambda a, k: lax.conv_general_dilated(a, k, (1, 1), "SAME"),
        (normal(1, 2, 5, 5, dtype=np.float64), normal(3, 2, 3, 3, dtype=np.float64)),
    ),
}

NARROW: dict[str, Callable[[Any], Any]] = {
    "arithmetic": lambda a: (a + a, a * a, a - 1, jnp.abs(a), jnp.sign(a), jnp.maximum(a, 0), a > 0, -a),
    "reductions": lambda a: (a.sum(), a.max(1), a.min(0), jnp.argmax(a, 1), jnp.cumsum(a, 1), a.prod(1)),
    "moves": lambda a: (
        a.T,
        a[::-1],
        jnp.pad(a, 1),
        jnp.where(a > 0, a, 0),
        jnp.concatenate([a, a]),
        a.at[0].set(1),
        a[jnp.array([1, 0])],
        jnp.sort(a, 1),
        jnp.roll(a, 1),
        a.at[jnp.array([0, 0])].add(a[:2]),
    ),
    "products": lambda a: (a @ a.T, jnp.einsum("ij,ij->i", a, a), jnp.outer(a[0], a[1])),
    "control": lambda a: (
        lax.scan(lambda c, r: (c + r, c), a[0], a),
        lax.cond(a[0, 0] > 0, lambda v: v, lambda v: v + v, a),
        lax.while_loop(lambda c: c[1] < 3, lambda c: (c[0] + c[0], c[1] + 1), (a, 0))[0],
    ),
    "converted": lambda a: (a.astype(jnp.float32), a.astype(jnp.int32), a.astype(bool), (a > 0).astype(a.dtype)),
}

DTYPES = [np.int8, np.uint8, np.int16, np.uint16, np.uint32, np.float16, ml_dtypes.bfloat16]
