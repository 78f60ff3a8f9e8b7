"""Reshaping, broadcasting, slicing, joining, reductions and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import primitives
from support import applies, check, declines

F = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4)), jnp.float32)
I = jnp.asarray(np.random.default_rng(0).integers(-9, 9, (2, 3, 4)), jnp.int32)  # noqa: E741
V = jnp.asarray([1.0, -0.0, jnp.nan, 3.0])
S = jnp.asarray(2.5, jnp.float32)


def bind(name, *args, **params):
    """An operation that JAX itself would leave out."""
    return getattr(primitives, f"{name}_p").bind(*args, **params)


def pad(x, *widths):
    return lax.pad(x, jnp.zeros((), x.dtype), [(width, width, 0) for width in widths * (x.ndim // len(widths))])


def broadcast(x, shape, *dims):
    return lax.broadcast_in_dim(x, shape, dims)


def test_before_and_after():
    check(
        "simplify",
        lambda x: jnp.transpose(jnp.transpose(x.reshape(6, 4)[None].reshape(2, 3, 4), (2, 0, 1)), (1, 2, 0))[:, :, 0:4],
        F,
        before="""
            program(a:f32[2,3,4]):
              b:f32[6,4] = reshape[new_sizes=(6,4)] a
              c:f32[1,6,4] = broadcast_in_dim[broadcast_dimensions=(1,2) shape=(1,6,4)] b
              d:f32[2,3,4] = reshape[new_sizes=(2,3,4)] c
              e:f32[4,2,3] = transpose[permutation=(2,0,1)] d
              f:f32[2,3,4] = transpose[permutation=(1,2,0)] e
              return f
        """,
        after="""
            program(a:f32[2,3,4]):
              return a
        """,
    )


RESHAPING = [
    ("reshape-nothing", lambda x: bind("reshape", x, new_sizes=(2, 3, 4), dimensions=None, sharding=None), (F,), []),
    ("reshape-nothing", lambda x: bind("transpose", x, permutation=(0, 1, 2)), (F,), []),
    ("reshape-nothing", lambda x: jnp.transpose(x[:1, :1], (1, 0, 2)), (F,), None),
    ("reshape-nothing", lambda x: bind("squeeze", x, dimensions=()), (F,), []),
    ("reshape-back", lambda x: x[:, None].reshape(2, 3, 4), (F,), []),
    ("reshape-back", lambda x: lax.squeeze(x[:, None, :, None], (1, 3)), (F,), []),
    ("reshape-reshape", lambda x: x.reshape(24).reshape(6, 4), (F,), ["reshape"]),
    ("reshape-reshape", lambda x: x.reshape(24)[None], (F,), ["reshape"]),
    ("reshape-reshape", lambda x: lax.squeeze(x.reshape(24, 1), (1,)), (F,), ["reshape"]),
    ("reshape-reshape", lambda x: x[None].reshape(6, 4), (F,), ["reshape"]),
    ("reshape-reshape", lambda x: lax.squeeze(lax.squeeze(x[:1, :, :1], (0,)), (1,)), (F,), ["slice", "squeeze"]),
    ("reshape-reshape", lambda x: lax.squeeze(x[None, :, None], (0,)), (F,), ["broadcast_in_dim"]),
    ("reshape-reshape", lambda x: x.reshape(1, 24).T, (F,), ["reshape"]),
    ("transpose-transpose", lambda x: x.transpose(2, 0, 1).transpose(2, 1, 0), (F,), ["transpose"]),
    ("broadcast-broadcast", lambda v: broadcast(broadcast(v, (3, 4), 1), (2, 3, 5, 4), 1, 3), (V,), None),
    ("broadcast-broadcast", lambda v: broadcast(v[:, None], (2, 4, 3), 1, 2), (V,), ["broadcast_in_dim"]),
    ("broadcast-reshape", lambda v: broadcast(v.reshape(1, 1, 4), (2, 3, 4), 0, 1, 2), (V,), ["broadcast_in_dim"]),
    ("broadcast-reshape", lambda x: broadcast(x.reshape(2, 1, 3, 4), (2, 5, 3, 4), 0, 1, 2, 3), (F,), None),
    ("scalar-in-final-shape", lambda s: broadcast(s, (2, 3)).reshape(6), (S,), ["broadcast_in_dim"]),
    ("scalar-in-final-shape", lambda s: broadcast(s, (2, 3)).T, (S,), ["broadcast_in_dim"]),
    ("scalar-in-final-shape", lambda s: broadcast(s, (2, 3))[:, 1:], (S,), ["broadcast_in_dim"]),
    ("scalar-in-final-shape", lambda s: broadcast(broadcast(s, (2, 3)), (4, 2, 3), 1, 2), (S,), ["broadcast_in_dim"]),
    ("scalar-in-final-shape", lambda s: broadcast(s, (1, 1)).reshape(()), (S,), []),
    ("transpose-broadcast", lambda v: broadcast(v, (2, 3, 4), 2).transpose(1, 2, 0), (V,), ["broadcast_in_dim"]),
    ("broadcast-by-operation", lambda x, s: x + broadcast(s, (2, 3, 4)), (F, S), ["add"]),
    ("broadcast-by-operation", lambda x, v: broadcast(v[None, None], (2, 3, 4), 0, 1, 2) < x, (F, V), None),
]

NOT_RESHAPING = [
    ("reshape-nothing", lambda x: x.transpose(1, 0, 2), (F,)),
    ("reshape-back", lambda x: x.transpose(2, 0, 1).reshape(2, 3, 4), (F,)),
    ("reshape-reshape", lambda x: x.transpose(1, 0, 2).reshape(6, 4), (F,)),
    ("reshape-reshape", lambda x: lax.reshape(x.reshape(4, 6), (6, 4), (1, 0)), (F,)),
    ("reshape-reshape", lambda x: broadcast(x.reshape(24), (2, 24), 1), (F,)),
    ("broadcast-reshape", lambda x: broadcast(x.reshape(6, 4), (2, 6, 4), 1, 2), (F,)),
    ("broadcast-reshape", lambda x: broadcast(x[:1, 0].reshape(4), (3, 4), 1), (F,)),
    ("transpose-broadcast", lambda x: broadcast(x, (2, 3, 5, 4), 0, 1, 3).transpose(1, 0, 2, 3), (F,)),
    ("broadcast-by-operation", lambda v, w: broadcast(v, (2, 4), 1) + broadcast(w, (2, 4), 1), (V, V)),
]

SLICING = [
    ("slice-nothing", lambda x: lax.slice(x, (0, 0, 0), (2, 3, 4)), (F,), []),
    ("slice-slice", lambda x: x[:, 1:, ::2][:, :1, 1:], (F,), ["slice"]),
    ("slice-slice", lambda x: x[:, ::2, 1:][1:, 0:2, 0:3:2], (F,), ["slice"]),
    ("slice-concatenate", lambda x: jnp.concatenate([x, x + 1], 1)[:, 4:6, ::3], (F,), ["add", "slice"]),
    ("slice-pad", lambda x: pad(x, 1)[1:3, 1:3:2, 2:5], (F,), None),
    ("slice-broadcast", lambda v: broadcast(v, (2, 3, 4), 2)[:1, ::2], (V,), ["broadcast_in_dim"]),
    ("slice-broadcast", lambda v: broadcast(v[:1], (3,), 0)[:2], (V,), ["slice", "broadcast_in_dim"]),
    ("dynamic-slice-nothing", lambda x, i: lax.dynamic_slice(x, (i, i, i), (2, 3, 4)), (F, 1), []),
    ("dynamic-slice-known", lambda x: lax.dynamic_slice(x, (1, 7, -1), (1, 2, 3)), (F,), ["slice"]),
    ("update-everything", lambda x, y, i: lax.dynamic_update_slice(x, y, (i, i, i)), (F, F + 1, 1), []),
    ("concatenate-one", lambda x: bind("concatenate", x, dimension=0), (F,), []),
    ("concatenate-flat", lambda x: jnp.concatenate([jnp.concatenate([x, x], 1), x, x[:, :0]], 1), (F,), None),
    ("concatenate-slices", lambda x: jnp.concatenate([x[:, :1], x[:, 1:2], x[:, 2:]], 1), (F,), []),
    ("concatenate-slices", lambda x: jnp.concatenate([x[..., 2:], x[..., :1], x[..., 1:2]], 2), (F,), None),
    ("pad-nothing", lambda x: bind("pad", x, 0.0, padding_config=((0, 0, 0),) * 3), (F,), []),
    ("pad-pad", lambda x: lax.pad(lax.pad(x, 0.0, ((1, 0, 0),) * 3), 0.0, ((0, 2, 0),) * 3), (F,), ["pad"]),
    ("reverse-nothing", lambda x: lax.rev(x[:1], (0,)), (F,), ["slice"]),
    ("reverse-back", lambda x: lax.rev(lax.rev(x, (0, 2)), (2, 0)), (F,), []),
]

NOT_SLICING = [
    ("slice-nothing", lambda x: x[:, ::2], (F,)),
    ("slice-concatenate", lambda x: jnp.concatenate([x, x], 1)[:, 2:4], (F,)),
    ("slice-pad", lambda x: pad(x, 1)[0:3], (F,)),
    ("slice-pad", lambda x: lax.pad(x, 0.0, ((0, 0, 1), (0, 0, 0), (0, 0, 0)))[1:3], (F,)),
    ("slice-broadcast", lambda v: broadcast(v, (2, 4), 1)[:, :2], (V,)),
    ("dynamic-slice-nothing", lambda x, i: lax.dynamic_slice(x, (i, i, i), (2, 3, 3)), (F, 1)),
    ("dynamic-slice-known", lambda x, i: lax.dynamic_slice(x, (0, i, 0), (1, 2, 3)), (F, 1)),
    ("update-everything", lambda x, y, i: lax.dynamic_update_slice(x, y, (i, i, i)), (F, F[:1], 1)),
    ("gather-range", lambda x: x[np.array([1, 0])], (F,)),
    ("gather-range", lambda x: x[np.array([0, 0])], (F,)),
    ("gather-range", lambda x: x[:, np.array([0, 1, 1])], (F,)),
    ("gather-range", lambda x, i: x[i], (F, np.arange(2))),
    ("gather-range", lambda x: x.at[np.array([1, 2])].get(mode="fill"), (F,)),
    ("concatenate-flat", lambda x: (y := jnp.concatenate([x, x], 1), jnp.concatenate([y, x], 1)), (F,)),
    ("concatenate-flat", lambda x: jnp.concatenate([jnp.concatenate([x, x], 0), jnp.concatenate([x, x], 0)], 1), (F,)),
    ("concatenate-slices", lambda x: jnp.concatenate([x[:, :1], x[:, 2:]], 1), (F,)),
    ("concatenate-slices", lambda x: jnp.concatenate([x[:1, :1], x[1:, 1:2]], 0), (F,)),
    ("pad-pad", lambda x: lax.pad(lax.pad(x, 0.0, ((1, 0, 0),) * 3), 1.0, ((0, 2, 0),) * 3), (F,)),
    ("pad-pad", lambda x: lax.pad(lax.pad(x, 0.0, ((-1, 0, 0),) * 3), 0.0, ((1, 2, 0),) * 3), (F,)),
    ("reverse-back", lambda x: lax.rev(lax.rev(x, (0, 2)), (2,)), (F,)),
]

REDUCTIONS = [
    ("reduce-nothing", lambda x: x[:, :1].max(1), (F,), ["slice", "squeeze"]),
    ("reduce-nothing", lambda x: x[:, :1].sum(1), (I,), ["slice", "squeeze"]),
    ("reduce-reduce", lambda x: x.max(1).max(0), (F,), ["reduce_max"]),
    ("reduce-reduce", lambda x: (x > 0).all(2).all(0), (F,), ["gt", "reduce_and"]),
    ("count-count", lambda x: x.sum(0).sum(1), (I,), ["reduce_sum"]),
    ("reduce-broadcast", lambda v: broadcast(v, (2, 4, 3), 1).max((0, 2)), (V,), []),
    ("reduce-broadcast", lambda v: broadcast(v, (2, 4, 3), 1).min(0), (V,), ["broadcast_in_dim"]),
    ("scan-once", lambda x: lax.scan(lambda c, y: (c + y, c * 2), x[0], x[1:]), (F,), None),
    ("scan-never", lambda x: lax.scan(lambda c, y: (c + y, c * 2), x[0], x[2:]), (F,), None),
]

NOT_REDUCTIONS = [
    ("reduce-nothing", lambda x: x[:, :1].sum(1), (F,)),  # 0.0 + -0.0 is 0.0
    ("reduce-nothing", lambda x: x.max(1), (F,)),
    ("reduce-reduce", lambda x: x.max(1).min(0), (F,)),
    ("count-count", lambda x: x.sum(1).sum(0), (F,)),  # another order rounds differently
    ("reduce-broadcast", lambda v: broadcast(v, (2, 4), 1).max((0, 1)), (V,)),
    ("reduce-broadcast", lambda v: broadcast(v, (0, 4), 1).max(0, initial=0.0), (V,)),
    ("scan-once", lambda x: lax.scan(lambda c, y: (c + y, c), x[0], x), (F,)),
]


@pytest.mark.parametrize(("rule", "fn", "args", "left"), [*RESHAPING, *SLICING, *REDUCTIONS])
def test_rule(rule, fn, args, left):
    applies(rule, fn, *args, left=left)


@pytest.mark.parametrize(("rule", "fn", "args"), [*NOT_RESHAPING, *NOT_SLICING, *NOT_REDUCTIONS])
def test_what_it_must_not_do(rule, fn, args):
    declines(rule, fn, *args)


GATHERS = [
    ("gather-range", lambda x: x[jnp.arange(2)], []),
    ("gather-range", lambda x: x[:, np.array([0, 2])], ["slice"]),
    ("gather-range", lambda x: x.at[:, :, np.array([3])].get(mode="clip"), ["slice"]),
    ("gather-slice", lambda x: lax.gather(x, np.array([1, 2]), ROW, (1, 1, 4), mode="fill"), ["slice", "squeeze"]),
    ("gather-slice", lambda x: lax.gather(x, np.array([7, -1]), BLOCK, (1, 2, 3), mode="clip"), ["slice"]),
]

ROW = lax.GatherDimensionNumbers(offset_dims=(0,), collapsed_slice_dims=(0, 1), start_index_map=(0, 1))
BLOCK = lax.GatherDimensionNumbers(offset_dims=(0, 1, 2), collapsed_slice_dims=(), start_index_map=(2, 0))


@pytest.mark.parametrize(("rule", "fn", "left"), GATHERS)
def test_gathers_at_known_places(rule, fn, left):
    applies(rule, fn, F, left=left, first="inline,fold-constants")


@pytest.mark.parametrize(
    ("rule", "fn", "left"),
    [
        ("reshape-back", lambda x: x[:, None].reshape(x.shape), []),
        ("reshape-reshape", lambda x: x.reshape(-1).reshape(x.shape[0], 6, 2), ["reshape"]),
        ("transpose-transpose", lambda x: x.transpose(2, 0, 1).transpose(1, 2, 0), []),
        ("scalar-in-final-shape", lambda x: jnp.broadcast_to(x.sum(), x.shape).reshape(-1), None),
        ("slice-slice", lambda x: x[:, 1:][:, :, 1:], ["slice"]),
        ("slice-concatenate", lambda x: jnp.concatenate([x, x * 2], 1)[:, :2], None),
        ("slice-pad", lambda x: pad(x, 0, 1, 0)[:, 1:3], None),
        ("concatenate-slices", lambda x: jnp.concatenate([x[:, :1], x[:, 1:]], 1), []),
        ("concatenate-flat", lambda x: jnp.concatenate([jnp.concatenate([x, x]), x]), ["concatenate"]),
        ("broadcast-reshape", lambda x: jnp.broadcast_to(x[0, 0].reshape(1, 1, 4), x.shape), None),
        ("reduce-reduce", lambda x: x.max(1).max(0), ["reduce_max"]),
    ],
)
def test_symbolic_sizes(rule, fn, left):
    first = "inline,fold-constants,simplify{only=gather-slice}"  # what x[:, 1:] is with a symbolic size
    applies(rule, fn, F, left=left, dynamic="b, ...", first=first)


@pytest.mark.parametrize("rule", ["slice-concatenate", "gather-range", "dynamic-slice-known"])
def test_unknown_offsets(rule):
    def f(x):
        parts = jnp.concatenate([x, x])
        return parts[x.shape[0] :], parts[: x.shape[0]], x[jnp.asarray([0])], lax.dynamic_slice(x, (0, 0, 0), (1, 1, 1))

    declines(rule, f, F, dynamic="b, ...")


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_arrays_without_elements(shape):
    def f(x):
        y = jnp.concatenate([x, x, x[:0]])
        return x.reshape(-1).reshape(shape), x.T.T, y[:0], jnp.pad(jnp.pad(x, 1), 1), x[:, ::-1][:, ::-1], x[::2][::3]

    applies("transpose-transpose", f, jnp.zeros(shape), left=None)


def test_a_scan_of_one_turn():
    check(
        "simplify",
        lambda x: lax.scan(lambda c, y: (c + y, c), np.float32(1), x),
        V[:1],
        before="""
            program(a:f32[1]):
              b:f32[], c:f32[1] = scan[length=1 num_carry=1 num_consts=0] 1.0:f32[] a
                jaxpr(d:f32[], e:f32[]):
                  f:f32[] = add d e
                  return f, d
              return b, c
        """,
        after="""
            program(a:f32[1]):
              b:f32[] = squeeze[dimensions=(0)] a
              c:f32[] = add 1.0:f32[] b
              d:f32[1] = broadcast_in_dim[shape=(1)] 1.0:f32[]
              return c, d
        """,
    )


def test_effects_of_a_single_turn_stay():
    def f(x):
        return lax.scan(lambda c, y: (c + y, jax.debug.print("{}", c)), np.float32(0), x)

    declines("scan-once", f, V[:1])
