"""Matrix factorisations as loops over plain JAX: they become ONNX Loops of a constant number of nodes.

Accuracy is that of the textbook algorithms in the type of the operand, real or complex: Cholesky, LU with partial
pivoting, Householder QR and substitution are backward stable. Eigenvalues and singular values are in ``jacobi``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..registry import Refusal, decomposes, refuses


def batched(function: Callable[..., Any], rank: int = 2) -> Callable[..., Any]:
    """Maps a function of matrices over leading axes."""

    @functools.wraps(function)
    def mapped(x: Any, *rest: Any, **params: Any) -> Any:
        step: Callable[..., Any] = functools.partial(function, **params)
        for _ in range(x.ndim - rank):
            step = jax.vmap(step)
        return step(x, *rest)

    return mapped


def static(*matrices: Any) -> None:
    """Refuses matrices whose own size is not known; how many there are does not matter."""
    if any(not isinstance(d, int) for a in matrices for d in a.shape[-2:]):
        raise Refusal("a matrix factorisation of a dynamic size")


def _real(x: Any, what: str) -> None:
    if is_complex(x):
        raise Refusal(f"{what} of complex matrices has no ONNX form here")


def is_complex(x: Any) -> bool:
    """Whether an array holds complex numbers."""
    return bool(jnp.issubdtype(x.dtype, jnp.complexfloating))


def adjoint(x: Any) -> Any:
    """The conjugate transpose of matrices."""
    turned = jnp.swapaxes(x, -1, -2)
    return jnp.conj(turned) if is_complex(x) else turned


def conj(x: Any) -> Any:
    """The conjugate; of real numbers themselves."""
    return jnp.conj(x) if is_complex(x) else x


def squares(x: Any) -> Any:
    """The squares of the absolute values."""
    return x.real * x.real + x.imag * x.imag if is_complex(x) else x * x


def _unit(n: int, k: Any, dtype: Any) -> Any:
    return (jnp.arange(n) == k).astype(dtype)


def _row(a: Any, k: Any) -> Any:
    return lax.dynamic_index_in_dim(a, k, 0, keepdims=False)


def _column(a: Any, k: Any) -> Any:
    return lax.dynamic_index_in_dim(a, k, 1, keepdims=False)


@decomposes("cholesky", note="a loop over columns")
def cholesky(x: Any, *, symmetrize_input: bool = True, **_: Any) -> Any:
    static(x)
    if symmetrize_input:
        x = (x + adjoint(x)) * 0.5
    return batched(_cholesky)(x)


def _cholesky(a: Any) -> Any:
    n = a.shape[-1]
    rows = jnp.arange(n)

    def column(k: Any, factor: Any) -> Any:
        rest = _column(a, k) - factor @ conj(_row(factor, k))
        new = jnp.where(rows >= k, rest / jnp.sqrt(_row(rest, k).real).astype(a.dtype), 0)
        return factor + new[:, None] * _unit(n, k, a.dtype)[None, :]

    factor = lax.fori_loop(0, n, column, jnp.zeros_like(a))
    failed = jnp.any(jnp.isnan(factor))
    return jnp.where(failed, jnp.tril(jnp.full_like(a, jnp.nan)), factor)


@decomposes("triangular_solve", note="substitution, a loop over rows")
def triangular_solve(
    a: Any, b: Any, *, left_side: bool, lower: bool, transpose_a: bool, conjugate_a: bool, unit_diagonal: bool, **_: Any
) -> Any:
    static(a, b)
    if conjugate_a:
        a = conj(a)
    if transpose_a:
        a, lower = jnp.swapaxes(a, -1, -2), not lower
    if not left_side:
        # x a = b is the transpose of a' x' = b'.
        a, b, lower = jnp.swapaxes(a, -1, -2), jnp.swapaxes(b, -1, -2), not lower
    x = batched(_substitute)(a, b, lower=lower, unit_diagonal=unit_diagonal)
    return x if left_side else jnp.swapaxes(x, -1, -2)


def _substitute(a: Any, b: Any, *, lower: bool, unit_diagonal: bool) -> Any:
    n = a.shape[-1]
    triangle = jnp.tril(a, -1) if lower else jnp.triu(a, 1)
    diagonal = jnp.ones(n, a.dtype) if unit_diagonal else jnp.diagonal(a)

    def row(step: Any, x: Any) -> Any:
        k = step if lower else n - 1 - step
        new = (_row(b, k) - _row(triangle, k) @ x) / _row(diagonal, k)
        return x + _unit(n, k, a.dtype)[:, None] * new[None, :]

    return lax.fori_loop(0, n, row, jnp.zeros_like(b))


@decomposes("lu", note="partial pivoting, a loop over columns")
def lu(x: Any, **_: Any) -> Any:
    static(x)
    return batched(_lu)(x)


def _lu(a: Any) -> Any:
    m, n = a.shape
    rows, columns = jnp.arange(m), jnp.arange(n)

    def column(k: Any, state: Any) -> Any:
        a, pivots, order = state
        size = jnp.where(rows >= k, _pivot_size(_column(a, k)), -1)
        pivot = jnp.argmax(size).astype(jnp.int32)
        swapped = jnp.where(rows == k, pivot, jnp.where(rows == pivot, k, rows))
        a, order = a[swapped], order[swapped]
        pivots = jnp.where(jnp.arange(pivots.shape[0]) == k, pivot, pivots)
        divisor = _row(_column(a, k), k)
        factors = jnp.where(rows > k, _column(a, k) / jnp.where(divisor == 0, 1, divisor), 0)
        upper = jnp.where(columns > k, _row(a, k), 0)
        below = (rows > k)[:, None] & (columns == k)[None, :]
        return jnp.where(below, factors[:, None], a - factors[:, None] * upper[None, :]), pivots, order

    start = (a, jnp.zeros(min(m, n), jnp.int32), jnp.arange(m, dtype=jnp.int32))
    return list(lax.fori_loop(0, min(m, n), column, start))


def _pivot_size(x: Any) -> Any:
    """What LAPACK compares pivots by."""
    return jnp.abs(x.real) + jnp.abs(x.imag) if is_complex(x) else jnp.abs(x)


@decomposes("lu_pivots_to_permutation")
def lu_pivots_to_permutation(pivots: Any, *, permutation_size: int, **_: Any) -> Any:
    def one(p: Any) -> Any:
        rows = jnp.arange(permutation_size, dtype=jnp.int32)

        def swap(k: Any, order: Any) -> Any:
            other = _row(p, k)
            return order[jnp.where(rows == k, other, jnp.where(rows == other, k, rows))]

        return lax.fori_loop(0, p.shape[0], swap, rows)

    return batched(one, 1)(pivots)


@decomposes("geqrf", note="Householder, a loop over columns")
def geqrf(x: Any, **_: Any) -> Any:
    static(x)
    return batched(_geqrf)(x)


def _geqrf(a: Any) -> Any:
    """LAPACK's form: R on and above the diagonal, the Householder vectors below it, and their factors."""
    m, n = a.shape
    rows = jnp.arange(m)

    def column(k: Any, state: Any) -> Any:
        a, taus = state
        x = _column(a, k)
        head = _row(x, k)
        tail = jnp.where(rows > k, x, 0)
        rest = jnp.sum(squares(tail))
        beta = (-jnp.where(head.real >= 0, 1, -1) * jnp.sqrt(squares(head) + rest)).astype(a.dtype)
        trivial = (rest == 0) & (head.imag == 0) if is_complex(a) else rest == 0
        tau = jnp.where(trivial, 0, (beta - head) / jnp.where(beta == 0, 1, beta))
        divisor = jnp.where(trivial, 1, head - beta)
        v = jnp.where(rows == k, 1, tail / divisor)
        updated = a - conj(tau) * v[:, None] * (conj(v) @ a)[None, :]
        here = (jnp.arange(n) == k)[None, :]
        column = jnp.where(rows > k, v, jnp.where(rows == k, jnp.where(trivial, head, beta), x))
        kept = jnp.where(here, column[:, None], jnp.where((jnp.arange(n) > k)[None, :], updated, a))
        return kept, taus + tau * _unit(taus.shape[0], k, a.dtype)

    return list(lax.fori_loop(0, min(m, n), column, (a, jnp.zeros(min(m, n), a.dtype))))


@decomposes("householder_product")
def householder_product(a: Any, taus: Any, **_: Any) -> Any:
    static(a)
    if taus.shape[-1] == 0:
        return jnp.broadcast_to(jnp.eye(a.shape[-2], a.shape[-1], dtype=a.dtype), a.shape)
    return batched(_householder_product)(a, taus)


def _householder_product(a: Any, taus: Any) -> Any:
    m, n = a.shape
    rows, many = jnp.arange(m), taus.shape[0]

    def reflect(step: Any, q: Any) -> Any:
        k = many - 1 - step
        x = _column(a, k)
        v = jnp.where(rows > k, x, jnp.where(rows == k, 1, 0))
        return q - _row(taus, k) * v[:, None] * (conj(v) @ q)[None, :]

    return lax.fori_loop(0, many, reflect, jnp.eye(m, n, dtype=a.dtype))


@decomposes("qr", note="Householder, a loop over columns")
def qr(x: Any, *, full_matrices: bool, pivoting: bool = False, **_: Any) -> Any:
    static(x)
    if pivoting:
        raise Refusal("QR with column pivoting has no ONNX form here")
    return batched(orthogonal_factor)(x, full_matrices=full_matrices)


def orthogonal_factor(x: Any, *, full_matrices: bool) -> Any:
    m, n = x.shape
    packed, taus = _geqrf(x)
    columns = m if full_matrices else min(m, n)
    padded = packed[:, :columns] if columns <= n else jnp.pad(packed, ((0, 0), (0, columns - n)))
    return [_householder_product(padded, taus), jnp.triu(packed[:columns])]


@decomposes("tridiagonal_solve")
def tridiagonal_solve(lower: Any, main: Any, upper: Any, b: Any, **_: Any) -> Any:
    """Thomas' algorithm: one pass down, one up."""
    static(b)
    step: Any = _thomas
    for _axis in range(main.ndim - 1):
        step = jax.vmap(step)
    return step(lower, main, upper, b)


def _thomas(lower: Any, main: Any, upper: Any, b: Any) -> Any:
    def down(state: Any, row: Any) -> Any:
        c, d = state
        low, diagonal, up, right = row
        scale = diagonal - low * c
        new = (up / scale, (right - low * d) / scale)
        return new, new

    def up(x: Any, row: Any) -> Any:
        c, d = row
        x = d - c * x
        return x, x

    zero = jnp.zeros((), main.dtype)
    _, (c, d) = lax.scan(down, (zero, jnp.zeros(b.shape[1:], b.dtype)), (lower, main, upper, b))
    _, x = lax.scan(up, jnp.zeros(b.shape[1:], b.dtype), (c, d), reverse=True)
    return x


@decomposes("symmetric_product")
def symmetric_product(a: Any, c: Any, *, alpha: Any, beta: Any, **_: Any) -> Any:
    return alpha * a @ jnp.swapaxes(a, -1, -2) + beta * c


@decomposes("hessenberg", note="Householder, a loop over columns")
def hessenberg(x: Any, **_: Any) -> Any:
    static(x)
    _real(x, "a Hessenberg reduction")
    return batched(_hessenberg)(x)


def _hessenberg(a: Any) -> Any:
    """LAPACK's form: the reflectors below the first subdiagonal, their factors apart."""
    n = a.shape[-1]
    rows = jnp.arange(n)

    def column(k: Any, state: Any) -> Any:
        a, taus = state
        x = _column(a, k)
        head, tail = _row(x, jnp.minimum(k + 1, n - 1)), jnp.where(rows > k + 1, x, 0)
        rest = jnp.sum(tail * tail)
        trivial = rest == 0
        beta = -jnp.where(head >= 0, 1, -1).astype(a.dtype) * jnp.sqrt(head * head + rest)
        tau = jnp.where(trivial, 0, (beta - head) / jnp.where(beta == 0, 1, beta))
        v = jnp.where(rows == k + 1, 1, tail / jnp.where(trivial, 1, head - beta))
        left = a - tau * v[:, None] * (v @ a)[None, :]
        both = left - tau * (left @ v)[:, None] * v[None, :]
        packed = jnp.where(rows > k + 1, v, jnp.where(rows == k + 1, jnp.where(trivial, head, beta), x))
        moved = jnp.where((rows > k)[None, :], both, a)
        return jnp.where((rows == k)[None, :], packed[:, None], moved), taus + tau * _unit(max(n - 1, 0), k, a.dtype)

    return list(lax.fori_loop(0, max(n - 1, 0), column, (a, jnp.zeros(max(n - 1, 0), a.dtype))))


refuses("schur", "tridiagonal", "geqp3", "ormqr", reason="this factorisation has no ONNX form here")
refuses("cholesky_update", reason="the rank-one update of a factor has no ONNX form here")
