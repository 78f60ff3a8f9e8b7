"""Eigenvalues of general matrices: the shifted QR iteration on the complex Schur form.

LAPACK's order is followed exactly for matrices of up to two rows; of larger ones the same values may come in another
order. Eigenvectors have length one and are determined up to a factor of modulus one.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..registry import Refusal, decomposes
from .linalg import static

#: The iteration is quadratic in the size; beyond this an export would run for minutes.
_LARGEST = 64
#: Steps per eigenvalue; two or three are usual.
_STEPS = 30

Array = Any


@decomposes("eig", note=f"shifted QR up to {_LARGEST}x{_LARGEST}; order and phase may differ from LAPACK's")
def eig(x: Array, *, compute_left_eigenvectors: bool, compute_right_eigenvectors: bool, **_: Any) -> list[Array]:
    n = x.shape[-1]
    static(x)
    if compute_left_eigenvectors:
        raise Refusal("left eigenvectors have no ONNX form here")
    if n > _LARGEST:
        raise Refusal(f"eigenvalues of a matrix of size {n}; the iteration serves up to {_LARGEST}")
    real = not jnp.issubdtype(x.dtype, jnp.complexfloating)
    function = _small if n <= 2 and not compute_right_eigenvectors and real else _iterated
    step: Any = functools.partial(function, vectors=compute_right_eigenvectors)
    for _axis in range(x.ndim - 2):
        step = jax.vmap(step)
    return list(step(x))


def _complex_dtype(dtype: Any) -> Any:
    return jnp.complex64 if np.dtype(dtype) in (np.float32, np.complex64) else jnp.complex128


def _small(x: Array, vectors: bool) -> list[Array]:
    """One or two rows in closed form, in the order of LAPACK's dlanv2."""
    if x.shape[-1] == 1:
        return [x[:, 0].astype(_complex_dtype(x.dtype))]
    a, b, c, d = x[0, 0], x[0, 1], x[1, 0], x[1, 1]
    p = 0.5 * (a - d)
    z = p * p + b * c
    root = jnp.sqrt(jnp.abs(z))
    signed = p + jnp.where(p >= 0, root, -root)
    first = d + signed
    second = d - jnp.where(signed == 0, 0, b * c / jnp.where(signed == 0, 1, signed))
    upper, lower = c == 0, (b == 0) & (c != 0)
    first = jnp.where(upper, a, jnp.where(lower, d, first))
    second = jnp.where(upper, d, jnp.where(lower, a, second))
    pair = (z < 0) & ~upper & ~lower
    middle = 0.5 * (a + d)
    values = jnp.stack([jnp.where(pair, middle, first), jnp.where(pair, middle, second)])
    imaginary = jnp.where(pair, root, 0)
    return [lax.complex(values, jnp.stack([imaginary, -imaginary]))]


def _conjugate(a: Array) -> Array:
    return jnp.conj(a).T


def _norm2(v: Array) -> Array:
    return jnp.sum(v.real * v.real + v.imag * v.imag)


def _unitary_factor(a: Array) -> Array:
    """Q of the QR factorisation, by complex Householder reflections."""
    n = a.shape[0]
    rows = jnp.arange(n)

    def column(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        r, q = state
        x = lax.dynamic_index_in_dim(r, k, 1, keepdims=False)
        x = jnp.where(rows >= k, x, 0)
        head = lax.dynamic_index_in_dim(x, k, 0, keepdims=False)
        size = jnp.sqrt(_norm2(x))
        modulus = jnp.abs(head)
        phase = jnp.where(modulus == 0, 1, head / jnp.where(modulus == 0, 1, modulus))
        v = x + jnp.where(rows == k, phase * size, 0)
        weight = _norm2(v)
        factor = jnp.where(weight == 0, 0, 2 / jnp.where(weight == 0, 1, weight)).astype(r.dtype)
        r = r - factor * v[:, None] * (jnp.conj(v) @ r)[None, :]
        q = q - factor * (q @ v)[:, None] * jnp.conj(v)[None, :]
        return r, q

    _, q = lax.fori_loop(0, n - 1, column, (a, jnp.eye(n, dtype=a.dtype)))
    return q


def _schur(a: Array) -> tuple[Array, Array]:
    """Triangular T and unitary Q with A = Q T Q*: Wilkinson shifts, deflation from the last row."""
    n = a.shape[0]
    rows = jnp.arange(n)
    tolerance = jnp.finfo(a.dtype).eps

    def going(state: Any) -> Array:
        _, _, last, step = state
        return (last > 0) & (step < _STEPS * n)

    def iterate(state: Any) -> Any:
        t, q, last, step = state
        corner = lax.dynamic_slice(t, (last - 1, last - 1), (2, 2))
        p, r, s, u = corner[0, 0], corner[0, 1], corner[1, 0], corner[1, 1]
        half = 0.5 * (p - u)
        root = jnp.sqrt(half * half + r * s)
        minus, plus = half - root, half + root
        shift = u + jnp.where(jnp.abs(plus) < jnp.abs(minus), plus, minus)
        # Every tenth step takes an unusual shift, which breaks cycles.
        shift = jnp.where(step % 10 == 9, u + jnp.abs(s).astype(t.dtype), shift)
        active = rows <= last
        block = jnp.where(active[:, None] & active[None, :], t, 0) - shift * jnp.diag(active.astype(t.dtype))
        block = block + jnp.diag((~active).astype(t.dtype))
        unitary = _unitary_factor(block)
        t, q = _conjugate(unitary) @ t @ unitary, q @ unitary
        left = jnp.sum(jnp.where((rows == last)[:, None] & (rows < last)[None, :], jnp.abs(t), 0))
        scale = jnp.max(jnp.abs(t))
        done = left <= tolerance * scale
        clear = (rows == last)[:, None] & (rows < last)[None, :] & done
        return jnp.where(clear, 0, t), q, jnp.where(done, last - 1, last), step + 1

    start = (a, jnp.eye(n, dtype=a.dtype), jnp.int32(n - 1), jnp.int32(0))
    t, q, _, _ = lax.while_loop(going, iterate, start)
    return t, q


def _iterated(x: Array, vectors: bool) -> list[Array]:
    n = x.shape[-1]
    real = not jnp.issubdtype(x.dtype, jnp.complexfloating)
    a = x.astype(_complex_dtype(x.dtype))
    t, q = _schur(a) if n > 1 else (a, jnp.ones_like(a))
    values = jnp.diagonal(t)
    order = jnp.arange(n)
    if real:
        size = jnp.finfo(t.dtype).eps * 100 * (1 + jnp.max(jnp.abs(values)))
        values = lax.complex(values.real, jnp.where(jnp.abs(values.imag) < size, 0, values.imag))
        order = _positive_first(values, size)
    if not vectors:
        return [values[order]]
    columns = q @ _triangular_vectors(t)
    columns = columns / jnp.sqrt(jnp.sum(columns.real**2 + columns.imag**2, axis=0)).astype(columns.dtype)
    largest = jnp.argmax(jnp.abs(columns), axis=0)
    head = jnp.take_along_axis(columns, largest[None, :], axis=0)
    columns = columns * (jnp.conj(head) / jnp.abs(head))
    return [values[order], columns[:, order]]


def _positive_first(values: Array, size: Array) -> Array:
    """The order in which of neighbouring conjugates the one with the positive imaginary part comes first."""
    n = values.shape[0]
    order = jnp.arange(n)
    for k in range(n - 1):
        here, after = values[order[k]], values[order[k + 1]]
        swap = (here.imag < 0) & (jnp.abs(here - jnp.conj(after)) < 10 * size)
        turned = order.at[k].set(order[k + 1]).at[k + 1].set(order[k])
        order = jnp.where(swap, turned, order)
    return order


def _triangular_vectors(t: Array) -> Array:
    """Columns x with (T - t_kk) x = 0, by back substitution from x_k = 1."""
    n = t.shape[0]
    rows = jnp.arange(n)
    tiny = jnp.finfo(t.dtype).eps * (1 + jnp.max(jnp.abs(t)))
    strict = jnp.where(rows[:, None] < rows[None, :], t, 0)
    diagonal = jnp.diagonal(t)

    def row(step: Array, x: Array) -> Array:
        k = n - 1 - step
        sums = lax.dynamic_index_in_dim(strict, k, 0, keepdims=False) @ x
        gap = diagonal - lax.dynamic_index_in_dim(diagonal, k, 0, keepdims=False)
        gap = jnp.where(jnp.abs(gap) < tiny, tiny.astype(t.dtype), gap)
        new = jnp.where(rows > k, sums / gap, jnp.where(rows == k, 1, 0).astype(t.dtype))
        return jnp.where((rows == k)[:, None], new[None, :], x)

    return lax.fori_loop(0, n, row, jnp.zeros_like(t))
