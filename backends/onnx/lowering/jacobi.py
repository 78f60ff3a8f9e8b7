"""Eigenvalues of symmetric and Hermitian matrices, and singular values, by Jacobi rotations.

They are ONNX Loops of a constant number of nodes. Vectors are determined up to their sign (complex ones up to a factor
of modulus one), and LAPACK may choose another.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..registry import Refusal, decomposes
from .linalg import adjoint, batched, conj, is_complex, orthogonal_factor, squares, static

#: Sweeps over all pairs; convergence is quadratic, and this many serve every matrix of the sizes allowed.
_SWEEPS = 12
#: A sweep takes n rounds of n x n products, so that larger matrices would run for minutes.
_LARGEST_JACOBI = 256


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


def _rotations(app: Any, aqq: Any, apq: Any) -> tuple[Any, Any, Any]:
    """Cosine, sine and phase of the rotation that makes the off-diagonal element zero (Golub and Van Loan, 8.5.2).

    A complex element is turned onto the real axis first, which is the phase of the second column.
    """
    phase = jnp.ones_like(apq)
    if is_complex(apq):
        size = jnp.abs(apq)
        phase = jnp.where(size > 0, jnp.conj(apq) / jnp.where(size > 0, size, 1), 1)
        apq = size
    small = jnp.abs(apq) <= jnp.finfo(apq.dtype).tiny
    theta = (aqq - app) / (2 * jnp.where(small, 1, apq))
    sign = jnp.where(theta >= 0, 1, -1).astype(apq.dtype)
    t = sign / (jnp.abs(theta) + jnp.sqrt(theta * theta + 1))
    t = jnp.where(small, 0, t)
    c = 1 / jnp.sqrt(t * t + 1)
    return c, t * c, phase


def _rotation_matrix(c: Any, s: Any, phase: Any) -> Any:
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
    rotation = (cosines + sines).reshape(n, n)
    if not is_complex(phase):
        return rotation
    return jnp.stack([jnp.ones_like(phase), phase], 1).reshape(n, 1) * rotation


def _jacobi_limit(n: int) -> None:
    if n > _LARGEST_JACOBI:
        raise Refusal(f"an eigenvalue problem of size {n}; Jacobi rotations serve up to {_LARGEST_JACOBI}")


@decomposes("eigh", note=f"Jacobi rotations up to {_LARGEST_JACOBI}x{_LARGEST_JACOBI}; signs of vectors may differ")
def eigh(x: Any, *, lower: bool = True, sort_eigenvalues: bool = True, subset_by_index: Any = None, **_: Any) -> Any:
    static(x)
    n = x.shape[-1]
    _jacobi_limit(n)
    if subset_by_index is not None and tuple(subset_by_index) != (0, n):
        raise Refusal("a subset of the eigenvalues")
    other = jnp.tril(x, -1) if lower else jnp.triu(x, 1)
    diagonal = jnp.tril(jnp.triu(x))
    # The diagonal of a Hermitian matrix is real; LAPACK does not look at an imaginary part.
    diagonal = diagonal.real.astype(x.dtype) if is_complex(x) else diagonal
    vectors, values = batched(_eigh)(diagonal + other + adjoint(other))
    return [vectors, values]


def _eigh(a: Any) -> Any:
    n = a.shape[-1]
    if n == 1:
        return jnp.ones_like(a), jnp.diagonal(a).real
    size = n + n % 2
    a = jnp.pad(a, ((0, size - n), (0, size - n)))
    order = _rounds(size)

    def round_(_: Any, state: Any) -> Any:
        a, v = state
        diagonal = jnp.diagonal(a).real
        j = _rotation_matrix(*_rotations(diagonal[0::2], diagonal[1::2], jnp.diagonal(a, 1)[0::2]))
        return (adjoint(j) @ a @ j)[order][:, order], (v @ j)[:, order]

    a, v = lax.fori_loop(0, _SWEEPS * (size - 1), round_, (a, jnp.eye(size, dtype=a.dtype)))
    values = jnp.diagonal(a).real
    if size != n:
        # The added axis stayed a unit vector; it is sorted last and cut off.
        values = jnp.where(jnp.abs(v[n]) > 0.5, jnp.inf, values)
    rank = jnp.argsort(values)[:n]
    return v[:n][:, rank], values[rank]


@decomposes("svd", note=f"one-sided Jacobi up to {_LARGEST_JACOBI} columns; signs of vectors may differ")
def svd(x: Any, *, full_matrices: bool, compute_uv: bool, subset_by_index: Any = None, **_: Any) -> Any:
    static(x)
    m, n = x.shape[-2:]
    _jacobi_limit(min(m, n))
    if subset_by_index is not None and tuple(subset_by_index) != (0, min(m, n)):
        raise Refusal("a subset of the singular values")
    if m < n:
        results = svd(adjoint(x), full_matrices=full_matrices, compute_uv=compute_uv)
        if not compute_uv:
            return results
        s, u, vt = results
        return [s, adjoint(vt), adjoint(u)]
    s, u, v = batched(_svd)(x)
    if not compute_uv:
        return [s]
    if full_matrices and m > n:
        complete = batched(orthogonal_factor)(u, full_matrices=True)[0]
        u = jnp.concatenate([u, complete[..., n:]], axis=-1)
    return [s, u, adjoint(v)]


def _svd(a: Any) -> Any:
    n = a.shape[-1]
    size = n + n % 2
    u = jnp.pad(a, ((0, 0), (0, size - n)))
    v = jnp.eye(size, dtype=a.dtype)
    order = _rounds(size)

    def round_(_: Any, state: Any) -> Any:
        u, v = state
        p, q = u[:, 0::2], u[:, 1::2]
        angles = _rotations(jnp.sum(squares(p), 0), jnp.sum(squares(q), 0), jnp.sum(conj(p) * q, 0))
        j = _rotation_matrix(*angles)
        return (u @ j)[:, order], (v @ j)[:, order]

    if size > 1:
        u, v = lax.fori_loop(0, _SWEEPS * (size - 1), round_, (u, v))
    values = jnp.sqrt(jnp.sum(squares(u), 0))
    key = jnp.where(jnp.abs(v[n]) > 0.5, -1, values) if size != n else values
    rank = jnp.argsort(-key)[:n]
    values, u, v = values[rank], u[:, rank], v[:n][:, rank]
    return values, u / jnp.where(values == 0, 1, values), v
