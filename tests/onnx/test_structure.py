"""Shapes, products, convolutions, windows, gathers, scatters, sorts and control flow against JAX."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from onnx_examples import FEW

RNG = np.random.default_rng(0)


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


@FEW
@given(st.data())
def test_views(agrees, data):
    """Broadcasting, reshaping, transposing, reversing and joining, of arrays that only broadcast, too."""
    shape = data.draw(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 3)))
    order = tuple(data.draw(st.permutations(range(3))))

    def views(x, row):
        wide = lax.broadcast_in_dim(row, shape, (2,))
        return (
            lax.transpose(x, order),
            lax.transpose(wide, order),
            lax.rev(wide, (0, 2)),
            lax.reshape(wide, (shape[0] * shape[1], shape[2])),
            lax.concatenate([x, wide, wide], 1),
            jnp.stack([x, wide], 1),
            lax.transpose(lax.transpose(x, order), order) + wide[..., ::2].sum(),
            jnp.squeeze(wide[:, :1], 1),
        )

    agrees(views, normal(*shape), normal(shape[2]))


@FEW
@given(st.data())
def test_slices_and_padding(agrees, data):
    """Strides, negative and interior padding."""
    n, m = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    start, step = data.draw(st.integers(0, n - 1)), data.draw(st.integers(1, 3))
    config = []
    for size in (n, m):
        interior = data.draw(st.integers(0, 2))
        grown = size + (size - 1) * interior
        low = data.draw(st.integers(-grown, 2))
        config.append((low, data.draw(st.integers(max(-2, -(grown + low)), 2)), interior))
    agrees(lambda x: (lax.slice(x, (start, 0), (n, m), (step, 1)), lax.pad(x, 7.0, config)), normal(n, m))
    agrees(lambda x: lax.pad(x, np.uint8(3), config), np.ones((n, m), np.uint8))


@FEW
@given(st.data())
def test_dot_general(agrees, data):
    """Any split of the axes into batch, free and summed ones, in any order."""
    kinds = data.draw(st.lists(st.sampled_from("bs"), max_size=3))
    sizes = {k: data.draw(st.integers(1, 3)) for k in range(len(kinds))}

    def axes(free):
        labels = data.draw(st.permutations([*range(len(kinds)), *(f"f{k}" for k in range(free))]))
        return labels, tuple(sizes.get(label, 2) for label in labels)

    left, x_shape = axes(data.draw(st.integers(0, 2)))
    right, y_shape = axes(data.draw(st.integers(0, 2)))
    batch = [k for k, kind in enumerate(kinds) if kind == "b"]
    summed = [k for k, kind in enumerate(kinds) if kind == "s"]
    numbers = (
        ([left.index(k) for k in summed], [right.index(k) for k in summed]),
        ([left.index(k) for k in batch], [right.index(k) for k in batch]),
    )
    dtype = data.draw(st.sampled_from([np.float32, np.int32, np.int8, np.uint8, np.float16, ml_dtypes.bfloat16]))
    x, y = (np.round(normal(*s) * 3).astype(dtype) for s in (x_shape, y_shape))
    agrees(lambda a, b: lax.dot_general(a, b, numbers), x, y, rtol=1e-2)


@pytest.mark.parametrize("dtype", [np.int8, np.float16, ml_dtypes.bfloat16])
def test_wider_accumulation(agrees, dtype):
    wide = np.int32 if dtype is np.int8 else np.float32
    x, y = (np.round(normal(3, 3) * 50).astype(dtype) for _ in range(2))
    agrees(lambda a, b: lax.dot_general(a, b, (((1,), (0,)), ((), ())), preferred_element_type=wide), x, y)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_transposed_products_of_narrow_floats(agrees, dtype):
    """The runtime crashes over a bfloat16 transpose before a product, so none is written."""
    agrees(lambda a: (a.T @ a, jnp.tanh(a).T @ a), normal(3, 4).astype(dtype), rtol=3e-2, atol=3e-2)


@FEW
@given(st.data())
def test_convolutions(agrees, data):
    """Every parameter, in one to three dimensions, in either layout; integers and groups of both kinds."""
    rank = data.draw(st.integers(1, 3))
    groups, batch_groups = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
    kernel = data.draw(st.tuples(*[st.integers(1, 3)] * rank))
    space = data.draw(st.tuples(*[st.integers(3, 5)] * rank))
    strides = data.draw(st.tuples(*[st.integers(1, 2)] * rank))
    spread = data.draw(st.tuples(*[st.integers(1, 3)] * rank))
    dilation = data.draw(st.tuples(*[st.integers(1, 2)] * rank))
    padding = data.draw(st.tuples(*[st.tuples(st.integers(-1, 3), st.integers(-1, 3))] * rank))
    letters = "DHW"[-rank:]
    layout = data.draw(
        st.sampled_from(
            [(f"N{letters}C", f"{letters}IO", f"N{letters}C"), (f"NC{letters}", f"OI{letters}", f"NC{letters}")]
        )
    )
    features, inner = 2 * groups, 2
    x_shape = (2, *space, features) if layout[0].endswith("C") else (2, features, *space)
    w_shape = (*kernel, inner, 4) if layout[0].endswith("C") else (4, inner, *kernel)
    dtype = data.draw(st.sampled_from([np.float32, np.float32, np.int32]))
    x, w = (np.round(normal(*s) * 3).astype(dtype) for s in (x_shape, w_shape))

    def conv(a, b):
        return lax.conv_general_dilated(
            a, b, strides, padding, spread, dilation, layout, feature_group_count=groups, batch_group_count=batch_groups
        )

    agrees(conv, x, w, rtol=1e-4, atol=1e-4)


@FEW
@given(st.data())
def test_windows(agrees, data):
    """Sums and extrema over windows with every parameter, for floats and integers."""
    shape = (2, 6, 5)
    window = (1, data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3)))
    strides = data.draw(st.tuples(st.just(1), st.integers(1, 3), st.integers(1, 2)))
    padding = ((0, 0), data.draw(st.tuples(st.integers(0, 2), st.integers(0, 3))), (0, 1))
    base = data.draw(st.tuples(st.just(1), st.integers(1, 2), st.just(1)))
    dilation = data.draw(st.tuples(st.just(1), st.integers(1, 2), st.just(1)))
    dtype = data.draw(st.sampled_from([np.float32, np.int32, np.float16]))
    x = np.round(normal(*shape) * 5).astype(dtype)
    low, high = (-np.inf, np.inf) if dtype is not np.int32 else (np.iinfo(dtype).min, np.iinfo(dtype).max)

    def windows(a):
        common = (window, strides, padding, base, dilation)
        return (
            lax.reduce_window(a, dtype(0), lax.add, *common),
            lax.reduce_window(a, dtype(low), lax.max, *common),
            lax.reduce_window(a, dtype(high), lax.min, *common),
            lax.reduce_window(a, dtype(1), lambda p, q: p * q, *common),
        )

    agrees(windows, np.clip(x, -2, 2), rtol=1e-3, atol=1e-3)


@FEW
@given(st.data())
def test_gradients_of_windows(agrees, data):
    """select_and_scatter_add and select_and_gather_add."""
    size, stride = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    padding = data.draw(st.sampled_from(["SAME", "VALID"]))

    def pool(a):
        return lax.reduce_window(a, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), padding)

    x = normal(1, 5, 6, 2)
    agrees(lambda a: jax.grad(lambda v: jnp.sum(pool(v) ** 2))(a), x)
    agrees(lambda a: jax.jvp(pool, (a,), (a * 2,))[1], x)


MODES = ["clip", "fill", "promise_in_bounds"]


@FEW
@given(st.data())
def test_gather(agrees, data):
    """Windows, several indexed axes, batching, every mode; indices out of bounds where the mode says what happens."""
    mode = data.draw(st.sampled_from(MODES))
    reach = 9 if mode != "promise_in_bounds" else 2
    i, j = (
        np.asarray(
            data.draw(st.lists(st.integers(-reach if reach > 2 else 0, reach), min_size=3, max_size=3)), np.int32
        )
        for _ in range(2)
    )
    x = normal(5, 4, 6)

    def gathers(a, p, q):
        g = a.at
        return (
            g[p].get(mode=mode),
            g[:, p].get(mode=mode),
            g[p, :, q].get(mode=mode),
            g[p, q].get(mode=mode),
            jax.vmap(lambda r, k: r.at[k].get(mode=mode))(a[:3], p),
            jax.vmap(lambda k: lax.dynamic_slice(a, (k, 0, k), (2, 4, 3)))(p),
        )

    agrees(gathers, x, i, j)
    agrees(lambda a, p: a.at[p].get(mode=mode), np.arange(5, dtype=np.int32), i)


@FEW
@given(st.data())
def test_scatter(agrees, data):
    """Every reduction and mode; sets only at distinct positions, for their order is not defined."""
    mode = data.draw(st.sampled_from(["clip", "drop"]))
    method = data.draw(st.sampled_from(["set", "add", "mul", "min", "max"]))
    picks = st.lists(st.integers(-7, 8), min_size=3, max_size=3, unique_by=(lambda k: k % 5))
    if method == "set" and mode == "clip":
        picks = st.just([1, 4, 2])
    i = np.asarray(data.draw(picks), np.int32)
    x, rows, cells, block = normal(5, 4), normal(3, 4), normal(3), normal(2, 3)

    def scatters(a, p, u, c):
        return (
            getattr(a.at[p], method)(u, mode=mode),
            getattr(a.at[p, 1], method)(c, mode=mode),
            a.at[:, jnp.clip(p, 0, 3)].add(c, mode=mode),
            jax.vmap(lambda r, k, v: getattr(r.at[k], method)(v, mode=mode))(a[:3], p, c),
        )

    agrees(scatters, x, i, rows, cells)
    numbers = lax.ScatterDimensionNumbers((0, 1), (), (0, 1))
    agrees(lambda a, p, u: lax.scatter_add(a, p, u, numbers, mode="drop"), x, i[:2], block)


@FEW
@given(start=st.tuples(st.integers(-3, 8), st.integers(-3, 8)), size=st.tuples(st.integers(1, 5), st.integers(1, 4)))
def test_dynamic_slices_are_clamped(agrees, start, size):
    x, u = normal(5, 4), normal(*size)
    i, j = (np.int32(s) for s in start)
    agrees(lambda a, b, p, q: (lax.dynamic_slice(a, (p, q), size), lax.dynamic_update_slice(a, b, (p, q))), x, u, i, j)


@FEW
@given(st.data())
def test_sorts(agrees, data):
    """Stable, several keys, NaN last; positions; the largest."""
    values = st.sampled_from([0.0, 1.0, -2.0, np.inf, -np.inf, np.nan, 3.5])
    x = np.asarray(data.draw(st.lists(values, min_size=12, max_size=12)), np.float32).reshape(2, 6)
    k = np.asarray(data.draw(st.lists(st.integers(0, 2), min_size=12, max_size=12)), np.int32).reshape(2, 6)
    axis = data.draw(st.integers(0, 1))

    def sorts(a, b):
        return (
            jnp.sort(a, axis),
            jnp.argsort(a, axis),
            jnp.argsort(b, axis, descending=True),
            lax.sort((b, a, b + 1), dimension=axis, num_keys=2),
            lax.sort((b, lax.iota(np.int32, 12).reshape(2, 6)), dimension=axis, num_keys=1),
            lax.top_k(a, 3),
            lax.top_k(b, 3),
            jnp.sort(b.astype(np.uint32) - 1, axis),
        )

    agrees(sorts, x, k)


@FEW
@given(st.data())
def test_reductions(agrees, data):
    values = st.sampled_from([0.5, 1.0, -2.0, 3.5, np.inf, np.nan])
    x = np.asarray(data.draw(st.lists(values, min_size=12, max_size=12)), np.float32).reshape(2, 3, 2)
    axes = data.draw(st.sampled_from([(0,), (1, 2), (0, 1, 2), ()]))
    integers = RNG.integers(0, 5, (2, 3, 2))

    def reductions(a, i, u):
        return (
            jnp.max(a, axes), jnp.min(a, axes), jnp.argmax(a, 1), jnp.argmin(a, 1), jnp.any(a > 0, axes),
            jnp.all(a > 0, axes), jnp.sum(i, axes), jnp.prod(i, axes), jnp.max(u, axes), jnp.sum(u, axes),
            lax.reduce_xor(u, (1,)), lax.reduce_or(i, (1,)), jnp.argmax(u, 0),
        )  # fmt: skip

    agrees(reductions, x, integers.astype(np.int32), integers.astype(np.uint32))
    agrees(lambda a: (jnp.sum(a, axes), jnp.prod(a, axes)), normal(2, 3, 2))
    agrees(lambda a: lax.reduce(a, np.float32(1), lambda p, q: p * q + 0.0 * p, (1,)), normal(2, 5))


@FEW
@given(axis=st.integers(0, 1), reverse=st.booleans(), dtype=st.sampled_from([np.float32, np.int32, np.int8]))
def test_cumulative(agrees, axis, reverse, dtype):
    x = np.round(normal(3, 4) * 2).astype(dtype)
    names = ["cumsum", "cumprod", "cummax", "cummin"] + (["cumlogsumexp"] if dtype is np.float32 else [])
    agrees(lambda a: [getattr(lax, n)(a, axis, reverse) for n in names], x)


@FEW
@given(reverse=st.booleans(), length=st.integers(0, 4))
def test_scan(agrees, reverse, length):
    """Carries and items as pytrees, closures, unused parts, in both directions; also over no items, or one."""
    shift = normal(3)

    def step(carry, item):
        total, count = carry
        return (total * 0.5 + item["a"] + shift, count + 1), {"s": total.sum(), "c": count, "i": item["b"]}

    def scanned(a, b):
        return lax.scan(step, (jnp.zeros(3), 0), {"a": a, "b": b}, reverse=reverse)

    agrees(scanned, normal(length, 3), np.arange(length, dtype=np.int32))
    agrees(lambda a: lax.scan(lambda c, _: (c * 2 + a, c), a, None, length=length, reverse=reverse), normal(2))


def test_while_and_cond(agrees):
    """Nested, batched, with closures; a branch number out of range is clamped."""

    def loops(x, n):
        doubled = lax.while_loop(lambda s: s.sum() < 20, lambda s: s * 2 + x, jnp.abs(x) + 1)
        batched = jax.vmap(lambda r: lax.while_loop(lambda s: s < 9, lambda s: s + r, r))(jnp.abs(x) + 1)
        counted = lax.fori_loop(0, n, lambda i, c: c + x[i % 3], 0.0)
        return doubled, batched, counted

    agrees(loops, normal(3), np.int32(4))
    for k in (-2, 0, 1, 2, 7):
        agrees(
            lambda i, x: lax.switch(i, [lambda v: v, lambda v: v * x.sum(), lambda v: v + 1], x), np.int32(k), normal(3)
        )
    agrees(lambda x: lax.cond(x.sum() > 0, lambda v: (v, 1), lambda v: (-v, 0), x), normal(3))


def test_no_elements(agrees):
    """Whether any or all of nothing hold, extrema with a start, loops over nothing."""
    agrees(
        lambda x: (
            jnp.any(x), jnp.all(x, 0), jnp.max(x, initial=-1.0), jnp.min(x, 0, initial=3.0), x.sum(0), x.prod(),
            x.mean(0),
            jax.vmap(lambda r: lax.while_loop(lambda v: v.sum() < 3, lambda v: v + 1, r))(x), jnp.allclose(x, x),
        ),
        np.zeros((0, 4), np.float32),
    )  # fmt: skip


def test_calls_are_opened(agrees, operators):
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(lambda p, t: (f(*p), t[0] * 3.0))
    x = normal(3)
    assert operators(lambda a: jax.jit(jax.checkpoint(f))(a), x) == ["Sin"]
    agrees(lambda a: jax.grad(lambda v: f(v).sum())(a), x)


@pytest.mark.parametrize("kind", ["fft", "ifft", "rfft", "irfft", "fft2", "rfft2", "irfft2", "fftn"])
def test_fourier(agrees, kind):
    x = normal(3, 6, 5)
    agrees(getattr(jnp.fft, kind), x if kind.startswith("rfft") else x + 1j * normal(3, 6, 5), rtol=1e-4, atol=1e-4)


def test_complex(agrees):
    """Arithmetic, functions, products and views of pairs."""
    z, w = (normal(3, 3) + 1j * normal(3, 3) for _ in range(2))
    for f in (jnp.exp, jnp.log, jnp.sqrt, jnp.sin, jnp.cos, jnp.tanh, jnp.abs, jnp.conj, jnp.real, jnp.angle):
        agrees(f, z.astype(np.complex64), rtol=1e-4, atol=1e-5)
    agrees(
        lambda a, b: (a + b, a * b, a / b, a @ b, a.T, a[1:], jnp.where(a.real > 0, a, b), a == b, a.sum(0),
                      a[jnp.array([0, 2])], jnp.pad(a, 1), jnp.concatenate([a, b]), a**3,
                      a.at[0].set(b[1]), jnp.cumsum(a, 0)),
        z.astype(np.complex64), w.astype(np.complex64), rtol=1e-4, atol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_random_bits(agrees, shape):
    """The same values as JAX for the same key, at every width."""
    words = np.array([17, 42], np.uint32)

    def draws(w):
        key = jax.random.wrap_key_data(w)
        return (
            [jax.random.bits(key, shape, f"uint{b}") for b in (8, 16, 32)],
            jax.random.uniform(key, shape),
            jax.random.split(key, 3),
            jax.random.fold_in(key, 5),
            jax.random.randint(key, shape, 0, 10),
            jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, shape))(jax.random.split(key, 2)),
        )

    agrees(draws, words, rtol=0, atol=0)
    agrees(lambda s: jax.random.key_data(jax.random.key(s)), np.int32(9))
    agrees(lambda w: jax.random.normal(jax.random.wrap_key_data(w), shape), words, rtol=1e-5)


def test_wide_random_bits(agrees):
    with jax.enable_x64(True):
        agrees(lambda w: jax.random.bits(jax.random.wrap_key_data(w), (4,), "uint64"), np.array([1, 2], np.uint32))


def test_sequential_threefry(agrees):
    with jax.threefry_partitionable(False):
        agrees(lambda w: jax.random.bits(jax.random.wrap_key_data(w), (7,)), np.array([1, 2], np.uint32))


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_bit_generators(agrees, kind):
    """Philox, also where the counter overflows, and keys in batches."""
    words = np.array([17, 42, 0xFFFFFFFF, 0xFFFFFFFF], np.uint32)

    def draws(w):
        key = jax.random.wrap_key_data(w, impl=kind)
        keys = jax.random.split(key, 3)
        return (
            [jax.random.bits(key, (3, 5), f"uint{b}") for b in (8, 16, 32)],
            jax.random.uniform(key, (7,)),
            keys,
            jax.random.fold_in(key, 5),
            jax.vmap(lambda k: jax.random.randint(k, (2,), 0, 99))(keys),
            lax.rng_bit_generator(w, (6,), "uint32"),
        )

    agrees(draws, words, rtol=0, atol=0)
    agrees(lambda s: jax.random.key_data(jax.random.key(s, impl=kind)), np.int32(9))


def test_gamma_samples(agrees):
    agrees(lambda w: jax.random.gamma(jax.random.wrap_key_data(w), 2.5, (3,)), np.array([3, 4], np.uint32), rtol=1e-4)


SPD = (lambda a: a @ a.swapaxes(-1, -2) + 4 * np.eye(4, dtype=np.float32))(normal(2, 4, 4))
TALL = normal(5, 3)


@pytest.mark.parametrize(
    "function",
    [
        jnp.linalg.cholesky,
        jnp.linalg.inv,
        jnp.linalg.det,
        lambda a: jnp.linalg.solve(a, a[..., :2] + 1),
        lambda a: lax.linalg.lu(a),
        jnp.linalg.eigvalsh,
        lambda a: jax.scipy.linalg.solve_triangular(a[0], a[1], trans=1, lower=True),
        lambda a: lax.linalg.hessenberg(a),
        lambda a: jax.grad(lambda v: jnp.linalg.slogdet(v)[1].sum())(a),
    ],
)
def test_linear_algebra(agrees, function):
    agrees(function, SPD, rtol=1e-3, atol=1e-4)


def test_factors_of_tall_matrices(agrees):
    agrees(
        lambda a: (jnp.linalg.qr(a), jnp.linalg.qr(a.T), jnp.linalg.svd(a, compute_uv=False)),
        TALL,
        rtol=1e-3,
        atol=1e-4,
    )
    agrees(lambda a: jnp.linalg.qr(a, mode="complete"), TALL, rtol=1e-3, atol=1e-4)

    def rebuilt(a):
        u, s, v = jnp.linalg.svd(a, full_matrices=False)
        w, q = jnp.linalg.eigh(a.T @ a)
        return (u * s) @ v, (q * w) @ q.T, jnp.linalg.pinv(a)

    agrees(rebuilt, TALL, rtol=1e-3, atol=1e-3)


def test_general_eigenvalues(agrees):
    """Two rows in LAPACK's order; of three only what does not depend on it."""
    for a in ([[2, 1], [1, 3]], [[0, 1], [-2, 1]], [[4, 0], [1, 2]], [[1, 5], [0, 7]]):
        agrees(jnp.linalg.eigvals, np.asarray(a, np.float32), rtol=1e-4, atol=1e-5)
    agrees(lambda a: jnp.sort(jnp.linalg.eigvals(a).real), normal(4, 4), rtol=1e-3, atol=1e-3)

    def residue(a):
        w, v = jnp.linalg.eig(a)
        return jnp.abs(a @ v - v * w) < 1e-3

    agrees(residue, normal(4, 4))
