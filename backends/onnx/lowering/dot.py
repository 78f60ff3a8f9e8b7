"""dot_general as MatMul."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
from jax import lax

from .. import dims, kernels
from ..context import Context
from ..dims import Shape
from ..operand import Operand, is_bool, is_complex, is_float, stored_type
from ..registry import Refusal, decomposes, lowers
from .shape import permute, reshape_to, typed

_T = ir.DataType


@lowers("dot_general")
def dot_general(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    if is_complex(eqn.aval.dtype):
        return _complex(ctx, eqn, x, y)
    x, y = _accumulated(ctx, eqn, x), _accumulated(ctx, eqn, y)
    (x_sum, y_sum), (x_batch, y_batch) = eqn.params["dimension_numbers"]
    if not x_sum:
        return _outer(ctx, eqn, x, y, x_batch, y_batch)
    x_free = [k for k in range(x.rank) if k not in x_sum and k not in x_batch]
    y_free = [k for k in range(y.rank) if k not in y_sum and k not in y_batch]
    if not x_batch and len(y_free) <= 1 and len(y_sum) == 1:
        return _unbatched(ctx, eqn, x, y, x_sum, y_sum, x_free, y_free)
    return _general(ctx, eqn, x, y, (x_batch, x_free, x_sum), (y_batch, y_free, y_sum))


def _accumulated(ctx: Context, eqn: Any, x: Operand) -> Operand:
    """The operand in the element type of the products: what the result asks for, or a wider one."""
    target = np.dtype(eqn.aval.dtype)
    if is_bool(target):
        target = np.dtype(np.int32)
    if is_float(target) and kernels.carrier("MatMul", stored_type(target)) == _T.FLOAT:
        target = np.dtype(np.float32)
    if np.dtype(x.dtype) == target:
        return x
    narrow = is_float(x.dtype) and is_float(target) and np.dtype(x.dtype).itemsize > target.itemsize
    if narrow:
        return x
    return ctx.convert(x, target)


def _finish(ctx: Context, eqn: Any, value: ir.Value, shape: Any) -> Operand:
    """The product, rounded to the element type of the result."""
    if is_bool(eqn.aval.dtype):
        value = ctx.op("Not", ctx.op("Equal", value, ctx.const(np.int32(0)), to=_T.BOOL))
    value = ctx.build.cast(value, stored_type(eqn.aval.dtype))
    return ctx.result(value, typed(shape, eqn.aval.dtype))


def _unbatched(
    ctx: Context, eqn: Any, x: Operand, y: Operand, x_sum: Any, y_sum: Any, x_free: list[int], y_free: list[int]
) -> Operand:
    """(..., K) times (K, N) or (K,): one MatMul after at most one transpose of either side."""
    if not y_free and x_sum[0] == x.rank - 2:  # a vector does as well on the left
        value = ctx.op("MatMul", ctx.full(y), ctx.full(x))
        return _finish(ctx, eqn, value, tuple(eqn.aval.shape))
    left = permute(ctx, ctx.filled(x), (*x_free, *x_sum))
    right = permute(ctx, ctx.filled(y), (*y_sum, *y_free))
    value = _product(ctx, left, right)
    result = _finish(ctx, eqn, value, tuple(eqn.aval.shape))
    wide = is_float(eqn.aval.dtype) and np.dtype(eqn.aval.dtype).itemsize >= 4
    if wide and left.rank == right.rank == 2 and result.value is value:
        ctx.remember(value, "MatMul", left, right)
    return result


def _product(ctx: Context, left: Operand, right: Operand) -> ir.Value:
    """MatMul; a vector on the right becomes a column where the runtime may see a transpose on the left.

    ONNX Runtime 1.31 fuses the two, and multiplies the vector with the matrix as it was before the transpose.
    """
    matrix, vector = ctx.value(left), ctx.value(right)
    if right.rank != 1 or left.rank < 2 or matrix.producer() is None:
        return ctx.op("MatMul", matrix, vector)
    column = ctx.value(reshape_to(ctx, typed((*right.shape, 1), right.dtype), right))
    return ctx.op("Squeeze", ctx.op("MatMul", matrix, column), ctx.ints(-1), typed=(0,))


def _outer(ctx: Context, eqn: Any, x: Operand, y: Operand, x_batch: Any, y_batch: Any) -> Operand:
    """A product without a sum: broadcasting multiplication."""
    x_free = [k for k in range(x.rank) if k not in x_batch]
    y_free = [k for k in range(y.rank) if k not in y_batch]
    left, right = permute(ctx, x, (*x_batch, *x_free)), permute(ctx, y, (*y_batch, *y_free))
    left, right = ctx.padded(left), ctx.padded(right)
    b = len(x_batch)
    left = ctx.reheld(left, left.held + (1,) * len(y_free)) if left.held else left
    right = ctx.reheld(right, (*right.held[:b], *(1,) * len(x_free), *right.held[b:])) if right.held else right
    held = dims.broadcast(left.held, right.held)
    value = ctx.op("Mul", ctx.value(left), ctx.value(right))
    if np.dtype(x.dtype) == np.dtype(eqn.aval.dtype):
        return ctx.result(value, eqn.aval, held)
    product = ctx.result(value, typed(held, x.dtype))
    finished = _finish(ctx, eqn, ctx.value(product), held)
    return Operand(tuple(eqn.aval.shape), eqn.aval.dtype, held, finished.value)


def _general(ctx: Context, eqn: Any, x: Operand, y: Operand, x_axes: Any, y_axes: Any) -> Operand:
    """Any dot_general: batch axes first, free axes merged, summed axes merged, one MatMul."""
    (x_batch, x_free, x_sum), (y_batch, y_free, y_sum) = x_axes, y_axes
    left = permute(ctx, ctx.filled(x), (*x_batch, *x_free, *x_sum))
    right = permute(ctx, ctx.filled(y), (*y_batch, *y_sum, *y_free))
    batch = tuple(x.shape[k] for k in x_batch)
    rows, columns = (tuple(v.shape[k] for k in free) for v, free in ((x, x_free), (y, y_free)))
    depth = (dims.size(tuple(x.shape[k] for k in x_sum)),)
    m: Shape = (dims.size(rows),) if batch else rows
    n: Shape = (dims.size(columns),) if batch or columns else ()
    left = reshape_to(ctx, typed((*batch, *m, *depth), x.dtype), left)
    right = reshape_to(ctx, typed((*batch, *depth, *n), y.dtype), right)
    product = _finish(ctx, eqn, _product(ctx, left, right), (*batch, *m, *n))
    return reshape_to(ctx, eqn.aval, product)


def _complex(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand:
    """Four real products."""
    numbers = eqn.params["dimension_numbers"]

    def function(a: Any, b: Any) -> Any:
        def dot(p: Any, q: Any) -> Any:
            return lax.dot_general(p, q, numbers)

        re = dot(lax.real(a), lax.real(b)) - dot(lax.imag(a), lax.imag(b))
        im = dot(lax.real(a), lax.imag(b)) + dot(lax.imag(a), lax.real(b))
        return lax.complex(re, im)

    return ctx.trace_and_lower(function, ctx.convert(x, eqn.aval.dtype), ctx.convert(y, eqn.aval.dtype))[0]


@decomposes("ragged_dot_general", note="rows in groups, each times a matrix of its own")
def ragged_dot_general(
    x: Any, w: Any, sizes: Any, *, ragged_dot_dimension_numbers: Any, preferred_element_type: Any, **params: Any
) -> Any:
    """``x[m, k]`` times ``w[group of the row, k, n]``; rows behind the last group are zeros."""
    numbers = ragged_dot_dimension_numbers
    (x_sum, w_sum), batch = numbers.dot_dimension_numbers
    usual = (x.ndim, w.ndim, list(x_sum), list(w_sum)) == (2, 3, [1], [1]) and not any(map(len, batch))
    ragged, groups = list(numbers.lhs_ragged_dimensions), list(numbers.rhs_group_dimensions)
    if not usual or ragged != [0] or groups != [0] or params.get("group_offset") is not None:
        raise Refusal("a ragged product other than of rows in groups with a matrix for each")
    ends = jnp.cumsum(sizes)
    group = jnp.sum(jnp.arange(x.shape[0])[:, None] >= ends[None, :], axis=1)
    products = lax.dot_general(x, w, (((1,), (1,)), ((), ())), preferred_element_type=preferred_element_type)
    own = group[:, None] == jnp.arange(w.shape[0])[None, :]
    return jnp.sum(jnp.where(own[:, :, None], products, 0), axis=1, dtype=products.dtype)
