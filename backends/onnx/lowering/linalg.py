"""Matrix factorisations as loops over plain JAX: they become ONNX Loops of a constant number of nodes.

Accuracy is that of the textbook algorithms in the type of the operand: Cholesky, LU with partial pivoting, Householder
QR and substitution are backward stable; eigenvalues and singular values come from Jacobi rotations. Eigenvectors and
singular vectors are determined up to their sign, and LAPACK may choose the other one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..registry import Refusal, decomposes, refuses

#: Jacobi sweeps over all pairs; convergence is quadratic, and this many serve every matrix of the sizes allowed.
_SWEEPS = 12
#: A sweep takes n rounds of n x n products, so that larger matrices would run for minutes.
_LARGEST_JACOBI = 256


def _batched(function: Callable[..., Any], rank: int = 2) -> Callable[..., Any]:
    """Maps a function of matrices over leading axes."""

    @functools.wraps(function)
    def mapped(x: Any, *rest: Any, **params: Any) -> Any:
        step: Callable[..., Any] = functools.partial(function, **params)
        for _ in range(x.ndim - rank):
            step = jax.vmap(step)
        return step(x, *rest)

    return mapped


def _static(*arrays: Any) -> None:
    if any(not isinstance(d, int) for a in arrays for d in a.shape):
        raise Refusal("a matrix factorisation of a dynamic size")


def _real(x: Any, what: str) -> None:
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise Refusal(f"{what} of complex matrices has no ONNX form here")


def _wide(x: Any) -> Any:
    return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)


def _unit(n: int, k: Any, dtype: Any) -> Any:
    return (jnp.arange(n) == k).astype(dtype)


def _row(a: Any, k: Any) -> Any:
    return lax.dynamic_index_in_dim(a, k, 0, keepdims=False)


def _column(a: Any, k: Any) -> Any:
    return lax.dynamic_index_in_dim(a, k, 1, keepdims=False)


@decomposes("cholesky", note="a loop over columns")
def cholesky(x: Any, *, symmetrize_input: bool = True, **_: Any) -> Any:
    _static(x)
    _real(x, "Cholesky")
    if symmetrize_input:
        x = (x + jnp.swapaxes(x, -1, -2)) * 0.5
    return _batched(_cholesky)(x)


def _cholesky(a: Any) -> Any:
    n = a.shape[-1]
    rows = jnp.arange(n)

    def column(k: Any, factor: Any) -> Any:
        rest = _column(a, k) - factor @ _row(factor, k)
        new = jnp.where(rows >= k, rest / jnp.sqrt(_row(rest, k)), 0)
        return factor + new[:, None] * _unit(n, k, a.dtype)[None, :]

    factor = lax.fori_loop(0, n, column, jnp.zeros_like(a))
    failed = jnp.any(jnp.isnan(factor))
    return jnp.where(failed, jnp.tril(jnp.full_like(a, jnp.nan)), factor)


@decomposes("triangular_solve", note="substitution, a loop over rows")
def triangular_solve(
    a: Any, b: Any, *, left_side: bool, lower: bool, transpose_a: bool, conjugate_a: bool, unit_diagonal: bool, **_: Any
) -> Any:
    _static(a, b)
    _real(a, "a triangular solve")
    if transpose_a:
        a, lower = jnp.swapaxes(a, -1, -2), not lower
    if not left_side:
        # x a = b is the transpose of a' x' = b'.
        a, b, lower = jnp.swapaxes(a, -1, -2), jnp.swapaxes(b, -1, -2), not lower
    x = _batched(_substitute)(a, b, lower=lower, unit_diagonal=unit_diagonal)
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
    _static(x)
    _real(x, "LU")
    return _batched(_lu)(x)


def _lu(a: Any) -> Any:
    m, n = a.shape
    rows, columns = jnp.arange(m), jnp.arange(n)

    def column(k: Any, state: Any) -> Any:
        a, pivots, order = state
        size = jnp.where(rows >= k, jnp.abs(_column(a, k)), -1)
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


@decomposes("lu_pivots_to_permutation")
def lu_pivots_to_permutation(pivots: Any, *, permutation_size: int, **_: Any) -> Any:
    def one(p: Any) -> Any:
        rows = jnp.arange(permutation_size, dtype=jnp.int32)

        def swap(k: Any, order: Any) -> Any:
            other = _row(p, k)
            return order[jnp.where(rows == k, other, jnp.where(rows == other, k, rows))]

        return lax.fori_loop(0, p.shape[0], swap, rows)

    return _batched(one, 1)(pivots)


@decomposes("geqrf", note="Householder, a loop over columns")
def geqrf(x: Any, **_: Any) -> Any:
    _static(x)
    _real(x, "QR")
    return _batched(_geqrf)(x)


def _geqrf(a: Any) -> Any:
    """LAPACK's form: R on and above the diagonal, the Householder vectors below it, and their factors."""
    m, n = a.shape
    rows = jnp.arange(m)

    def column(k: Any, state: Any) -> Any:
        a, taus = state
        x = _column(a, k)
        head = _row(x, k)
        tail = jnp.where(rows > k, x, 0)
        rest = jnp.sum(tail * tail)
        beta = -jnp.where(head >= 0, 1, -1).astype(a.dtype) * jnp.sqrt(head * head + rest)
        trivial = rest == 0
        tau = jnp.where(trivial, 0, (beta - head) / jnp.where(beta == 0, 1, beta))
        divisor = jnp.where(trivial, 1, head - beta)
        v = jnp.where(rows == k, 1, tail / divisor)
        updated = a - tau * v[:, None] * (v @ a)[None, :]
        here = (jnp.arange(n) == k)[None, :]
        column = jnp.where(rows > k, v, jnp.where(rows == k, jnp.where(trivial, head, beta), x))
        kept = jnp.where(here, column[:, None], jnp.where((jnp.arange(n) > k)[None, :], updated, a))
        return kept, taus + tau * _unit(taus.shape[0], k, a.dtype)

    return list(lax.fori_loop(0, min(m, n), column, (a, jnp.zeros(min(m, n), a.dtype))))


@decomposes("householder_product")
def householder_product(a: Any, taus: Any, **_: Any) -> Any:
    _static(a)
    _real(a, "a Householder product")
    if taus.shape[-1] == 0:
        return jnp.broadcast_to(jnp.eye(a.shape[-2], a.shape[-1], dtype=a.dtype), a.shape)
    return _batched(_householder_product)(a, taus)


def _householder_product(a: Any, taus: Any) -> Any:
    m, n = a.shape
    rows, many = jnp.arange(m), taus.shape[0]

    def reflect(step: Any, q: Any) -> Any:
        k = many - 1 - step
        x = _column(a, k)
        v = jnp.where(rows > k, x, jnp.where(rows == k, 1, 0))
        return q - _row(taus, k) * v[:, None] * (v @ q)[None, :]

    return lax.fori_loop(0, many, reflect, jnp.eye(m, n, dtype=a.dtype))


@decomposes("qr", note="Householder, a loop over columns")
def qr(x: Any, *, full_matrices: bool, pivoting: bool = False, **_: Any) -> Any:
    _static(x)
    _real(x, "QR")
    if pivoting:
        raise Refusal("QR with column pivoting has no ONNX form here")
    return _batched(_qr)(x, full_matrices=full_matrices)


def _qr(x: Any, *, full_matrices: bool) -> Any:
    m, n = x.shape
    packed, taus = _geqrf(x)
    columns = m if full_matrices else min(m, n)
    padded = packed[:, :columns] if columns <= n else jnp.pad(packed, ((0, 0), (0, columns - n)))
    return [_householder_product(padded, taus), jnp.triu(packed[:columns])]


def _rounds(n: int) -> np.ndarray[Any, Any]:
    """The permutation that brings new neighbours together; n-1 times it, and all pairs have met (Brent and Luk)."""
    players = [0, *range(2, n, 2), *range(n - 1, 0, -2)]
    turned = [players[0], players[-1], *players[1:-1]]
    slot = {}
    half = n // 2
    for k in range(half):
        slot[players[k]], slot[players[n - 1 - k]] = 2 * k, 2 * k + 1
    order = np.zeros(n, np.int64)
    for k in range(half):
        order[2 * k], order[2 * k + 1] = slot[turned[k]], slot[turned[n - 1 - k]]
    return order


def _rotations(app: Any, aqq: Any, apq: Any) -> tuple[Any, Any]:
    """Cosine and sine of the rotation that makes the off-diagonal element zero (Golub and Van Loan, 8.5.2)."""
    small = jnp.abs(apq) <= jnp.finfo(apq.dtype).tiny
    theta = (aqq - app) / (2 * jnp.where(small, 1, apq))
    sign = jnp.where(theta >= 0, 1, -1).astype(apq.dtype)
    t = sign / (jnp.abs(theta) + jnp.sqrt(theta * theta + 1))
    t = jnp.where(small, 0, t)
    c = 1 / jnp.sqrt(t * t + 1)
    return c, t * c


def _rotation_matrix(c: Any, s: Any) -> Any:
    """Block-diagonal rotations of neighbouring columns."""
    n = 2 * c.shape[0]
    even = np.arange(0, n, 2)
    main, upper, lower = (np.zeros((n // 2, n, n)) for _ in range(3))
    for k, p in enumerate(even):
        main[k, p, p] = main[k, p + 1, p + 1] = 1
        upper[k, p, p + 1], lower[k, p + 1, p] = 1, -1
    flat = (n // 2, n * n)
    cosines = c @ main.reshape(flat).astype(c.dtype)
    sines = s @ (upper + lower).reshape(flat).astype(c.dtype)
    return (cosines + sines).reshape(n, n)


def _jacobi_limit(n: int) -> None:
    if n > _LARGEST_JACOBI:
        raise Refusal(f"an eigenvalue problem of size {n}; Jacobi rotations serve up to {_LARGEST_JACOBI}")


@decomposes("eigh", note=f"Jacobi rotations up to {_LARGEST_JACOBI}x{_LARGEST_JACOBI}; signs of vectors may differ")
def eigh(x: Any, *, lower: bool = True, sort_eigenvalues: bool = True, subset_by_index: Any = None, **_: Any) -> Any:
    _static(x)
    _real(x, "an eigenvalue problem")
    n = x.shape[-1]
    _jacobi_limit(n)
    if subset_by_index is not None and tuple(subset_by_index) != (0, n):
        raise Refusal("a subset of the eigenvalues")
    triangle = jnp.tril(x) if lower else jnp.triu(x)
    other = jnp.tril(x, -1) if lower else jnp.triu(x, 1)
    vectors, values = _batched(_eigh)(triangle + jnp.swapaxes(other, -1, -2))
    return [vectors, values]


def _eigh(a: Any) -> Any:
    n = a.shape[-1]
    if n == 1:
        return jnp.ones_like(a), jnp.diagonal(a)
    size = n + n % 2
    a = jnp.pad(a, ((0, size - n), (0, size - n)))
    order = _rounds(size)

    def round_(_: Any, state: Any) -> Any:
        a, v = state
        diagonal = jnp.diagonal(a)
        c, s = _rotations(diagonal[0::2], diagonal[1::2], jnp.diagonal(a, 1)[0::2])
        j = _rotation_matrix(c, s)
        return (j.T @ a @ j)[order][:, order], (v @ j)[:, order]

    a, v = lax.fori_loop(0, _SWEEPS * (size - 1), round_, (a, jnp.eye(size, dtype=a.dtype)))
    values = jnp.diagonal(a)
    if size != n:
        # The added axis stayed a unit vector; it is sorted last and cut off.
        values = jnp.where(jnp.abs(v[n]) > 0.5, jnp.inf, values)
    rank = jnp.argsort(values)[:n]
    return v[:n][:, rank], values[rank]


@decomposes("svd", note=f"one-sided Jacobi up to {_LARGEST_JACOBI} columns; signs of vectors may differ")
def svd(x: Any, *, full_matrices: bool, compute_uv: bool, subset_by_index: Any = None, **_: Any) -> Any:
    _static(x)
    _real(x, "SVD")
    m, n = x.shape[-2:]
    _jacobi_limit(min(m, n))
    if subset_by_index is not None and tuple(subset_by_index) != (0, min(m, n)):
        raise Refusal("a subset of the singular values")
    if m < n:
        results = svd(jnp.swapaxes(x, -1, -2), full_matrices=full_matrices, compute_uv=compute_uv)
        if not compute_uv:
            return results
        s, u, vt = results
        return [s, jnp.swapaxes(vt, -1, -2), jnp.swapaxes(u, -1, -2)]
    s, u, v = _batched(_svd)(x)
    if not compute_uv:
        return [s]
    if full_matrices and m > n:
        complete = _batched(_qr)(u, full_matrices=True)[0]
        u = jnp.concatenate([u, complete[..., n:]], axis=-1)
    return [s, u, jnp.swapaxes(v, -1, -2)]


def _svd(a: Any) -> Any:
    n = a.shape[-1]
    size = n + n % 2
    u = jnp.pad(a, ((0, 0), (0, size - n)))
    v = jnp.eye(size, dtype=a.dtype)
    order = _rounds(size)

    def round_(_: Any, state: Any) -> Any:
        u, v = state
        p, q = u[:, 0::2], u[:, 1::2]
        c, s = _rotations(jnp.sum(p * p, 0), jnp.sum(q * q, 0), jnp.sum(p * q, 0))
        j = _rotation_matrix(c, s)
        return (u @ j)[:, order], (v @ j)[:, order]

    if size > 1:
        u, v = lax.fori_loop(0, _SWEEPS * (size - 1), round_, (u, v))
    values = jnp.sqrt(jnp.sum(u * u, 0))
    key = jnp.where(jnp.abs(v[n]) > 0.5, -1, values) if size != n else values
    rank = jnp.argsort(-key)[:n]
    values, u, v = values[rank], u[:, rank], v[:n][:, rank]
    return values, u / jnp.where(values == 0, 1, values), v


@decomposes("tridiagonal_solve")
def tridiagonal_solve(lower: Any, main: Any, upper: Any, b: Any, **_: Any) -> Any:
    """Thomas' algorithm: one pass down, one up."""
    _static(main, b)
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
    _static(x)
    _real(x, "a Hessenberg reduction")
    return _batched(_hessenberg)(x)


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
