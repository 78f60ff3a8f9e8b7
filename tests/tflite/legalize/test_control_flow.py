"""Loops and branches, within each other, with values of every type."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

STEP = 2

X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
YES, NO = np.bool_(True), np.bool_(False)


def _branch_in_scan(x):
    def step(carry, row):
        return lax.cond(row.sum() > 0, lambda c: c + row, lambda c: c - row, carry), carry

    return lax.scan(step, jnp.zeros(6), x)


def _choice_in_scan(x):
    def step(carry, row):
        branches = [lambda c: c, lambda c: c + row, lambda c: lax.cond(c[0] > 0, lambda: c * row, lambda: c - row)]
        return lax.switch((row.sum() > 0).astype(jnp.int32) + 1, branches, carry), carry

    return lax.scan(step, jnp.zeros(6), x)


CASES = {
    "branch-in-scan": (_branch_in_scan, X),
    "choice-in-scan": (_choice_in_scan, X),
    "branch-in-branch": (
        lambda p, q, x, y: lax.cond(p, lambda: lax.cond(q, lambda: x * 2, lambda: y - 1), lambda: x + y),
        *(YES, NO, X, X + 1),
    ),
    "loop-in-branch-in-loop": (
        lambda x: lax.fori_loop(
            0, 2, lambda i, c: lax.cond(i > 0, lambda c: lax.fori_loop(0, 3, lambda j, d: d + x * c, c), jnp.sin, c), x
        ),
        X,
    ),
    "boolean-carry": (
        lambda b, x: lax.while_loop(
            lambda c: c[1].sum() < 20,
            lambda c: (~c[0], lax.cond(c[0], lambda t: t + 2, lambda t: t + 1, c[1])),
            (b, x),
        ),
        *(YES, X),
    ),
    "reverse": (lambda x: lax.scan(lambda c, t: (c + t, c * t), jnp.zeros(6), x, reverse=True), X),
    "batched-while": (
        jax.vmap(lambda n: lax.while_loop(lambda c: c < n, lambda c: c * 2 + 1, jnp.int32(1))),
        np.array([3, 50, 7], np.int32),
    ),
    "nested": (lambda x: lax.fori_loop(0, 3, lambda i, c: lax.fori_loop(0, i, lambda j, d: d + j, c), x), X),
    "no-rounds": (lambda x: lax.scan(lambda c, t: (c + t, c), jnp.zeros(6), x[:0]), X),
    "index-out-of-range": (lambda i, x: lax.switch(i, [jnp.sin, jnp.cos, jnp.tanh], x), np.int32(9), X),
    "bytes": (lambda x: lax.fori_loop(0, 5, lambda i, c: c + x, x), np.array([100, -100, 3], np.int8)),
    "words": (
        lambda x: lax.scan(lambda c, t: (c * t + 1, c > t), jnp.uint32(7), x),
        np.array([2**31, 5, 2**32 - 1], np.uint32),
    ),
    "complex": (lambda x: lax.fori_loop(0, 3, lambda i, c: c * x + 1, x), (X + 1j * X).astype(np.complex64)),
    "sort-in-loop": (lambda x: lax.fori_loop(0, 2, lambda i, c: jnp.sort(c, -1) + i, x), X),
    "gradient": (jax.grad(lambda x: lax.scan(lambda c, t: (jnp.tanh(c + t), c.sum()), jnp.zeros(6), x)[1].sum()), X),
    "associative": (lambda x: lax.associative_scan(lambda a, b: a * b, x, reverse=True, axis=1), X),
}


def test_control_flow(case, agrees):
    fn, *args = case
    agrees(fn, *args)


def test_choices_beside_loops_and_other_choices(agrees):
    """The converters number the subgraphs of a STABLEHLO_CASE as if there were no others."""

    def fn(i, x):
        looped = lax.fori_loop(0, 3, lambda j, c: jnp.sin(c) + x, x)
        chosen = lax.switch(i, [lambda a, b: a * b, lambda a, b: a + b, lambda a, b: a - b], looped, x)
        return lax.switch(i, [lambda c: lax.fori_loop(0, 2, lambda j, d: d * x, c), jnp.cos, jnp.tanh], chosen)

    for index in (-1, 1, 9):
        agrees(fn, np.int32(index), X)


def test_branches_that_give_constants(agrees):
    agrees(lambda p, x: lax.cond(p, lambda: (jnp.ones(3), x), lambda: (jnp.arange(3.0), -x)), NO, X)
    agrees(lambda i: lax.switch(i, [lambda k=k: jnp.float32(k) for k in range(5)]), np.int32(3))
