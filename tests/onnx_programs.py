"""Programs as users write them, in groups: name -> function and arguments.

Linear algebra, complex numbers, transforms of Fourier, shapes and indices, `jax.lax`, transformations, other types.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
from jax import lax
from onnx_values import CUBE, IMAGE, MASK, SPD, SQUARE, Call, K, P, V, X, Y, Z, between, names, normal, whole

LINEAR: dict[str, Call] = {
    "cholesky": (jnp.linalg.cholesky, (SPD,)),
    "inv": (jnp.linalg.inv, (SPD,)),
    "det": (jnp.linalg.det, (SQUARE,)),
    "slogdet": (jnp.linalg.slogdet, (SQUARE,)),
    "solve": (jnp.linalg.solve, (SPD, normal(4, 2))),
    "lstsq": (lambda a, b: jnp.linalg.lstsq(a, b)[0], (normal(5, 3), normal(5))),
    "pinv": (jnp.linalg.pinv, (normal(5, 3),)),
    "matrix_power": (lambda a: jnp.linalg.matrix_power(a, 5), (SQUARE,)),
    "matrix_rank": (jnp.linalg.matrix_rank, (SQUARE,)),
    "norms": (lambda a: [jnp.linalg.norm(a, k) for k in (None, "fro", "nuc", 1, -1, 2, -2, np.inf)], (SQUARE,)),
    "cond": (jnp.linalg.cond, (SPD,)),
    "eigvalsh": (jnp.linalg.eigvalsh, (SPD,)),
    "eigh rebuilt": (lambda a: (lambda w, v: (v * w) @ v.T)(*jnp.linalg.eigh(a)), (SPD,)),
    "svdvals": (lambda a: jnp.linalg.svd(a, compute_uv=False), (normal(5, 3),)),
    "svd rebuilt": (lambda a: (lambda u, s, v: (u * s) @ v)(*jnp.linalg.svd(a, full_matrices=False)), (normal(3, 5),)),
    "qr": (jnp.linalg.qr, (normal(5, 3),)),
    "tensorinv": (lambda a: jnp.linalg.tensorinv(a.reshape(2, 2, 4), 2), (SPD,)),
    "multi_dot": (lambda a, b: jnp.linalg.multi_dot([a, b, a]), (SQUARE, SPD)),
    "expm": (jsp.linalg.expm, (0.3 * SQUARE,)),
    "lu": (jsp.linalg.lu, (SQUARE,)),
    "lu_solve": (lambda a, b: jsp.linalg.lu_solve(jsp.linalg.lu_factor(a), b), (SQUARE, normal(4))),
    "cho_solve": (lambda a, b: jsp.linalg.cho_solve(jsp.linalg.cho_factor(a), b), (SPD, normal(4))),
    "solve_triangular": (lambda a, b: jsp.linalg.solve_triangular(a, b, lower=True, trans=1), (SPD, normal(4, 2))),
    "toeplitz": (jsp.linalg.toeplitz, (V,)),
    "hilbert": (lambda a: a @ jsp.linalg.hilbert(4), (SQUARE,)),
    "block_diag": (jsp.linalg.block_diag, (SQUARE, X)),
    "sqrtm": (lambda a: jsp.linalg.expm(jsp.linalg.expm(a)), (0.1 * SQUARE,)),
    "gradient of cholesky": (jax.grad(lambda a: jnp.linalg.cholesky(a).sum()), (SPD,)),
    "gradient of solve": (jax.grad(lambda a: jnp.linalg.solve(a, jnp.ones(4)).sum()), (SPD,)),
    "gradient of eigh": (jax.grad(lambda a: jnp.linalg.eigvalsh(a).sum()), (SPD,)),
    "gradient of svd": (jax.grad(lambda a: jnp.linalg.svd(a, compute_uv=False).sum()), (normal(4, 3),)),
    "batched": (jax.vmap(lambda a: jnp.linalg.solve(a, jnp.ones(4))), (np.stack([SPD, SPD + 1]),)),
}

COMPLEX_SPD = (Z @ Z.conj().T + 4 * np.eye(3)).astype(np.complex64)
COMPLEX: dict[str, Call] = {
    **{
        name: (getattr(jnp, name), (Z,))
        for name in names("""
            exp log sqrt sin cos tan sinh cosh tanh arcsin arccos arctan arcsinh arccosh arctanh
            square abs angle conj real imag reciprocal sum prod mean cumsum cumprod log1p expm1 sign
            var std negative isfinite isnan
        """)
    },
    "power": (lambda z: (z**2, z**0.5, z**-1, z ** (1 + 2j)), (Z,)),
    "arithmetic": (lambda z: (z + z.T.T, z * 2j, z / (z + 1), z == z, z != z.conj()), (Z,)),
    "matmul": (lambda z: (z @ z.T, jnp.einsum("ij,kj->ik", z, z.conj()), jnp.vdot(z, z)), (Z,)),
    "shapes": (
        lambda z: (z[::-1], jnp.pad(z, 1), jnp.roll(z, 1), jnp.tile(z, 2), z[jnp.array([0, 2])], z.ravel()),
        (Z,),
    ),
    "select": (lambda z: (jnp.where(z.real > 0, z, 0), z.at[0].set(1j), z.at[1].add(z[0])), (Z,)),
    "cholesky": (jnp.linalg.cholesky, (COMPLEX_SPD,)),
    "inv": (jnp.linalg.inv, (COMPLEX_SPD,)),
    "det": (jnp.linalg.det, (COMPLEX_SPD,)),
    "solve": (lambda a: jnp.linalg.solve(a, a[0]), (COMPLEX_SPD,)),
    "eigvalsh": (jnp.linalg.eigvalsh, (COMPLEX_SPD,)),
    "eigh": (lambda a: (lambda w, v: (v * w) @ v.conj().T)(*jnp.linalg.eigh(a)), (COMPLEX_SPD,)),
    "svdvals": (lambda a: jnp.linalg.svd(a, compute_uv=False), (Z,)),
    "svd": (lambda a: (lambda u, s, v: (u * s) @ v)(*jnp.linalg.svd(a, full_matrices=False)), (Z,)),
    "qr": (jnp.linalg.qr, (Z.T.copy(),)),
    "conv": (lambda z: jnp.convolve(z[0], z[1]), (Z,)),
    "scan": (lambda z: lax.scan(lambda c, v: (c * v, c), jnp.ones(4, jnp.complex64), z), (Z,)),
    "gradient": (lambda z: jax.grad(lambda v: jnp.sum(jnp.abs(v) ** 2))(z), (Z,)),
    "input of parts": (lambda x: lax.complex(x, x + 1), (X,)),
}

FOURIER: dict[str, Call] = {
    **{name: (getattr(jnp.fft, name), (X,)) for name in names("fft ifft rfft ihfft fft2 ifft2 rfft2 fftn rfftn")},
    **{name: (getattr(jnp.fft, name), (Z,)) for name in names("irfft hfft irfft2 irfftn")},
    "sizes": (lambda x: (jnp.fft.fft(x, 7), jnp.fft.rfft(x, 5, axis=0), jnp.fft.fft(x, norm="ortho")), (X,)),
    "shift": (lambda x: (jnp.fft.fftshift(x), jnp.fft.ifftshift(x), jnp.fft.fftfreq(5) * x[0, 0]), (X,)),
    "dct": (lambda x: (jsp.fft.dct(x, norm="ortho"), jsp.fft.idct(x, norm="ortho"), jsp.fft.dctn(x)), (X,)),
    "stft": (lambda x: jnp.abs(jsp.signal.stft(x, nperseg=8)[2]), (normal(32),)),
    "welch": (lambda x: jsp.signal.welch(x, nperseg=8)[1], (normal(32),)),
    "fftconvolve": (jsp.signal.fftconvolve, (normal(9), V)),
    "convolve2d": (jsp.signal.convolve2d, (normal(5, 5), normal(3, 3))),
    "detrend": (jsp.signal.detrend, (normal(16),)),
}

SHAPES: dict[str, Call] = {
    "stack": (
        lambda a, b: (
            jnp.stack([a, b]),
            jnp.vstack([a, b]),
            jnp.hstack([a, b]),
            jnp.dstack([a, b]),
            jnp.column_stack([a, b]),
        ),
        (X, Y),
    ),
    "split": (lambda a: (jnp.split(a, 2, 1), jnp.array_split(a, 3, 1), jnp.unstack(a)), (X,)),
    "tile": (lambda a: (jnp.tile(a, (2, 1)), jnp.repeat(a, 2, 0), jnp.repeat(a, np.array([1, 0, 2]), 0)), (X,)),
    "pads": (
        lambda a: [
            jnp.pad(a, ((1, 2), (0, 3)), mode=m)
            for m in ("constant", "edge", "reflect", "symmetric", "wrap", "linear_ramp", "mean", "maximum")
        ],
        (X,),
    ),
    "axes": (
        lambda a: (
            jnp.moveaxis(a, 0, -1),
            jnp.swapaxes(a, 0, 2),
            jnp.rollaxis(a, 2),
            a[..., None],
            jnp.expand_dims(a, (0, 2)),
        ),
        (CUBE,),
    ),
    "roll": (lambda a: (jnp.roll(a, 2), jnp.roll(a, (1, -1), (0, 1))), (X,)),
    "insert": (lambda a: (jnp.insert(a, 1, 9.0, 0), jnp.delete(a, 1, 0), jnp.resize(a, (2, 5))), (X,)),
    "grids": (
        lambda a: (
            jnp.meshgrid(a, a[:3]),
            jnp.linspace(a[0], a[1], 5),
            jnp.geomspace(1.0, 8.0, 4) * a[0],
            jnp.arange(6) * a[0],
            jnp.eye(3, 4, 1) * a[0],
            jnp.tri(4) * a[0],
        ),
        (V,),
    ),
    "indexing": (
        lambda a: (
            a[1],
            a[-1],
            a[:, 1:3],
            a[::-1, ::2],
            a[np.array([0, 2])],
            a[np.array([0, 1]), np.array([1, 3])],
            a[..., -1],
            a[None, :, 0],
            a[np.array([[0, 1], [2, 0]])],
        ),
        (X,),
    ),
    "dynamic indexing": (
        lambda a, i: (
            a[i],
            a[:, i],
            a[i, i],
            jnp.take(a, i, 0),
            jnp.take(a, i, 1, mode="wrap"),
            jnp.take(a, i, mode="clip"),
            lax.dynamic_index_in_dim(a, i[0], 0),
        ),
        (X, np.array([0, 2, 1])),
    ),
    "take along": (
        lambda a, i: (jnp.take_along_axis(a, i, 1), jnp.take_along_axis(a, i[:1], 0)),
        (X, whole(0, 3, 3, 4)),
    ),
    "updates": (
        lambda a: (
            a.at[1].set(0),
            a.at[:, 1].add(2.0),
            a.at[0, 1].multiply(3.0),
            a.at[1:].min(0.0),
            a.at[np.array([0, 2])].max(0.5),
            a.at[0].divide(2.0),
            a.at[0].power(2.0),
            a.at[9].get(mode="fill", fill_value=7.0),
        ),
        (X,),
    ),
    "put along": (lambda a, i: jnp.put_along_axis(a, i, 9.0, 1, inplace=False), (X, np.array([[0], [2], [1]]))),
    "where": (
        lambda m, a, b: (
            jnp.where(m, a, b),
            jnp.select([m, a > 0], [a, b], 7.0),
            jnp.piecewise(a, [a < 0, a >= 0], [lambda v: -v, lambda v: v * 2]),
        ),
        (MASK, X, Y),
    ),
    "where sized": (
        lambda m: (
            jnp.nonzero(m, size=5, fill_value=0),
            jnp.argwhere(m, size=5),
            jnp.flatnonzero(m, size=3),
            jnp.where(m, size=4),
        ),
        (MASK,),
    ),
    "unique": (lambda i: jnp.unique(i, size=12, fill_value=0), (K,)),
    "counts": (lambda i: (jnp.bincount(jnp.abs(i).ravel(), length=10), jnp.histogram(i, 5, (-9, 9))[0]), (K,)),
    "histogram2d": (lambda a: jnp.histogram2d(a[0], a[1], 3, [[-3, 3], [-3, 3]])[0], (X,)),
    "sorting": (
        lambda a, i: (
            jnp.sort(a, 0),
            jnp.argsort(a, 1),
            jnp.argsort(-i, stable=True),
            jnp.lexsort((a[0], i[0])),
            jnp.partition(a, 2, 1),
            jnp.argpartition(a, 2, 1).sum(1),
            lax.top_k(a, 2),
            jnp.sort(i, descending=True),
        ),
        (X, K),
    ),
    "quantiles": (
        lambda a: (
            jnp.quantile(a, 0.3),
            jnp.percentile(a, jnp.array([5.0, 50.0]), 1),
            jnp.median(a, 0),
            jnp.nanquantile(a, 0.5, method="nearest"),
        ),
        (X,),
    ),
    "interp": (lambda a, b: jnp.interp(a, jnp.sort(b), b), (X, V)),
    "triangles": (
        lambda a: (
            jnp.tril(a, -1),
            jnp.triu(a, 1),
            jnp.tril_indices(3)[0] * a[0, 0],
            jnp.diagflat(a[0]),
            jnp.fill_diagonal(a, 9.0, inplace=False),
        ),
        (X,),
    ),
    "einsum": (
        lambda a, b: (
            jnp.einsum("ij,ij->", a, b),
            jnp.einsum("ij,kj->ik", a, b),
            jnp.einsum("ij->ji", a),
            jnp.einsum("ij,ij->j", a, b),
            jnp.tensordot(a, b, ([0], [0])),
            jnp.einsum("ii", a[:, :3]),
            jnp.einsum("...j,kj->...k", a, b),
        ),
        (X, Y),
    ),
    "reductions": (
        lambda a: (
            a.sum((0, 2)),
            a.mean(1, keepdims=True),
            jnp.max(a, (1, 2)),
            jnp.prod(a, -1),
            a.std(0, ddof=1),
            jnp.sum(a, where=a > 0),
            jnp.max(a, initial=0.1, where=a > 0),
            jnp.average(a, 1, np.ones(3)),
            jnp.linalg.norm(a, axis=-1),
        ),
        (CUBE,),
    ),
    "broadcasts": (lambda a: (jnp.broadcast_to(a, (2, 3, 4)), jnp.broadcast_arrays(a, a[:1]), a[:, :1] + a[0]), (X,)),
    "packbits": (lambda m: (jnp.packbits(m), jnp.unpackbits(jnp.packbits(m), count=12)), (MASK,)),
    "floats": (
        lambda a: (a.view(jnp.int32), jnp.frexp(a), jnp.modf(a), a.astype(jnp.bfloat16), a.astype(jnp.int8)),
        (X,),
    ),
    "apply": (lambda a: (jnp.apply_along_axis(lambda v: v / v.sum(), 1, a), jnp.vectorize(jnp.sin)(a)), (X,)),
    "polynomials": (
        lambda a: (
            jnp.polyfit(a, a**2, 2),
            jnp.polyder(a),
            jnp.polyint(a),
            jnp.roots(a[:3], strip_zeros=False).real.sum(),
        ),
        (V,),
    ),
    "trapezoid": (lambda a: (jnp.trapezoid(a), jnp.trapezoid(a, dx=0.5, axis=0)), (X,)),
    "ix_": (lambda a: a[jnp.ix_(np.array([0, 2]), np.array([1, 3]))], (X,)),
    "segments": (
        lambda a, i: (
            jax.ops.segment_sum(a, i, 4),
            jax.ops.segment_max(a, i, 4),
            jax.ops.segment_min(a, i, 4),
            jax.ops.segment_prod(a, i, 4),
        ),
        (V, np.array([0, 2, 2, 1, 3])),
    ),
    "nothing": (
        lambda a: (
            a.sum(1),
            a.prod(),
            a.T @ a,
            jnp.concatenate([a, a]),
            jnp.sort(a),
            a.reshape(4, 0),
            jnp.cumsum(a, 0),
            a[..., :1],
            jnp.where(a > 0, a, 0),
            jnp.max(a, 0, initial=-1),
        ),
        (np.zeros((0, 4), np.float32),),
    ),
}

LAX: dict[str, Call] = {
    "associative_scan": (
        lambda a: (lax.associative_scan(jnp.add, a), lax.associative_scan(jnp.multiply, a, reverse=True)),
        (V,),
    ),
    "map": (lambda a: lax.map(lambda r: r * r.sum(), a), (X,)),
    "map batched": (lambda a: lax.map(lambda r: r * r.sum(), a, batch_size=2), (X,)),
    "fori": (lambda a: lax.fori_loop(0, 5, lambda i, c: c * 0.5 + a[i % 3], a[0]), (X,)),
    "while": (lambda a: lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] * 1.1 + a), (0, a)), (X,)),
    "switch": (lambda i, a: lax.switch(i, [jnp.sin, jnp.cos, lambda v: v * 2], a), (np.int32(1), X)),
    "vmap of cond": (jax.vmap(lambda a: lax.cond(a.sum() > 0, jnp.sin, jnp.cos, a)), (X,)),
    "vmap of while": (jax.vmap(lambda a: lax.while_loop(lambda c: c < 10, lambda c: c * 2, jnp.abs(a) + 0.1)), (V,)),
    "scan of scan": (lambda a: lax.scan(lambda c, r: lax.scan(lambda d, e: (d + e, d * e), c, r), 0.0, a), (X,)),
    "scan unrolled": (lambda a: lax.scan(lambda c, r: (c + r, c.sum()), jnp.zeros(4), a, unroll=2), (X,)),
    "reduce": (lambda a: lax.reduce(a, np.float32(1), lambda p, q: p * q + 0.0, (1,)), (P,)),
    "reduce of pairs": (
        lambda a, i: lax.reduce(
            (a, i),
            (-np.inf, np.int32(0)),
            lambda p, q: (jnp.maximum(p[0], q[0]), jnp.where(p[0] >= q[0], p[1], q[1])),
            (1,),
        ),
        (X, K),
    ),
    "conv": (
        lambda a, k: lax.conv_general_dilated(a, k, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        (IMAGE, normal(3, 3, 2, 4)),
    ),
    "conv_transpose": (lambda a, k: lax.conv_transpose(a, k, (2, 2), "SAME"), (IMAGE, normal(3, 3, 2, 4))),
    "patches": (lambda a: lax.conv_general_dilated_patches(a, (2, 2), (1, 1), "VALID"), (IMAGE,)),
    "local conv": (
        lambda a, k: lax.conv_general_dilated_local(a, k, (1, 1), "VALID", (2, 2)),
        (normal(1, 2, 4, 4), normal(3, 8, 3, 3)),
    ),
    "pooling": (
        lambda a: (
            lax.reduce_window(a, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
            lax.reduce_window(a, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"),
        ),
        (IMAGE,),
    ),
    "images": (
        lambda a: [jax.image.resize(a, (1, 9, 4, 2), m) for m in ("nearest", "bilinear", "bicubic", "lanczos3")],
        (IMAGE,),
    ),
    "scale_and_translate": (
        lambda a: jax.image.scale_and_translate(
            a, (1, 5, 5, 2), (1, 2), jnp.array([0.7, 1.2]), jnp.array([0.5, -1.0]), "linear"
        ),
        (IMAGE,),
    ),
    "map_coordinates": (lambda a, c: jsp.ndimage.map_coordinates(a, [c, c], 1), (X, between(0, 2, 5))),
    "bitcast": (lambda a: lax.bitcast_convert_type(a, jnp.uint8), (X,)),
    "collapse": (lambda a: (lax.collapse(a, 0, 2), lax.expand_dims(a, (1,)), lax.rev(a, (0,))), (CUBE,)),
    "dynamic_slice": (
        lambda a, i: (lax.dynamic_slice(a, (i, i), (2, 2)), lax.dynamic_update_slice(a, a[:1], (i, i))),
        (X, np.int32(2)),
    ),
    "tridiagonal": (
        lambda d: lax.linalg.tridiagonal_solve(jnp.r_[0, d[1:]], d + 9, jnp.r_[d[:-1], 0], d[:, None]),
        (V,),
    ),
    "reduce_precision": (lambda a: lax.reduce_precision(a, 5, 4), (X,)),
    "approx_max_k": (lambda a: lax.approx_max_k(a, 2), (X,)),
    "ragged_dot": (
        lambda a, b, g: lax.ragged_dot(a, b, g),
        (normal(5, 4), normal(2, 4, 3), np.array([2, 3], np.int32)),
    ),
    "optimization_barrier": (lax.optimization_barrier, (X,)),
    "argmax": (lambda a: (lax.argmax(a, 1, jnp.int32), lax.argmin(a, 0, jnp.int8)), (X,)),
    "cummax": (lambda a: (lax.cummax(a, 1), lax.cumlogsumexp(a, 0), lax.cummin(a, 0, reverse=True)), (X,)),
    "clamp": (lambda a: lax.clamp(-0.5, a, 0.5), (X,)),
}
