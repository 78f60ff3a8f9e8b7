"""Products: batch axes first, one contracted axis; TFLite's converters pair contracted axes by their order."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ....core.node import Node
from .rule import node_lowering

Array = jax.Array

MOST_DIMENSIONS = 5
"""What BATCH_MATMUL and FULLY_CONNECTED take."""

MOST_UNROLLED = 2**20
"""Elements of the table of all products; sums of more integer products are added up in a loop."""


def _numbers(node: Node) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = node.params["dimension_numbers"]
    return tuple(lhs_contract), tuple(rhs_contract), tuple(lhs_batch), tuple(rhs_batch)


def _matrices(node: Node, lhs: Array, rhs: Array) -> tuple[Array, Array, tuple[int, ...]]:
    """``[batch, rows, depth]``, ``[batch, depth, columns]``, and the result's shape; a batch axis only if any."""
    lhs_contract, rhs_contract, lhs_batch, rhs_batch = _numbers(node)
    rows = [a for a in range(lhs.ndim) if a not in (*lhs_contract, *lhs_batch)]
    columns = [a for a in range(rhs.ndim) if a not in (*rhs_contract, *rhs_batch)]
    batch = [lhs.shape[a] for a in lhs_batch]
    many = [math.prod(batch)] if batch else []
    depth = math.prod(lhs.shape[a] for a in lhs_contract)
    left = lax.transpose(lhs, (*lhs_batch, *rows, *lhs_contract))
    left = left.reshape(*many, math.prod(lhs.shape[a] for a in rows), depth)
    right = lax.transpose(rhs, (*rhs_batch, *rhs_contract, *columns))
    right = right.reshape(*many, depth, math.prod(rhs.shape[a] for a in columns))
    shape = (*batch, *(lhs.shape[a] for a in rows), *(rhs.shape[a] for a in columns))
    return left, right, shape


def _canonical(node: Node, lhs: Array, rhs: Array) -> Array:
    left, right, shape = _matrices(node, lhs, rhs)
    return _product(left, right, node.params["preferred_element_type"]).reshape(shape)


def _product(left: Array, right: Array, dtype: Any) -> Array:
    batch = tuple(range(left.ndim - 2))
    numbers = (((left.ndim - 1,), (right.ndim - 2,)), (batch, batch))
    return lax.dot_general(left, right, numbers, preferred_element_type=dtype)


def _why_not_canonical(node: Node) -> str | None:
    lhs_contract, _, lhs_batch, rhs_batch = _numbers(node)
    leading = tuple(range(len(lhs_batch)))
    if max(len(value.shape) for value in node.inputs) > MOST_DIMENSIONS:
        return None
    if len(lhs_contract) == 1 and len(leading) <= 3 and lhs_batch == leading and rhs_batch == leading:
        return "it is a product of matrices"
    return None


def _integers(node: Node, lhs: Array, rhs: Array) -> Array:
    """Products of integers are added up by elementwise operations, which wrap around as XLA's do."""
    left, right, shape = _matrices(node, lhs, rhs)
    dtype = node.outputs[0].dtype
    left, right = left.astype(dtype), right.astype(dtype)
    depth = left.shape[-1]
    if left.size * right.shape[-1] <= MOST_UNROLLED:
        summed = jnp.sum(left[..., :, :, None] * right[..., None, :, :], axis=-2, dtype=dtype)
        return summed.reshape(shape)
    columns, rows = jnp.moveaxis(left, -1, 0), jnp.moveaxis(right, -2, 0)

    def add(k: Any, total: Array) -> Array:
        column = lax.dynamic_index_in_dim(columns, k, 0, keepdims=False)
        row = lax.dynamic_index_in_dim(rows, k, 0, keepdims=False)
        product: Array = column[..., :, None] * row[..., None, :]
        return total + product

    start = jnp.zeros((*left.shape[:-1], right.shape[-1]), dtype)
    total: Array = lax.fori_loop(np.int32(0), np.int32(depth), add, start)
    return total.reshape(shape)


def _why_not_integers(node: Node) -> str | None:
    dtypes = {np.dtype(v.dtype) for v in node.inputs}
    if jnp.issubdtype(node.outputs[0].dtype, jnp.floating):
        return "it is a product of floats"
    if dtypes == {np.dtype(np.int8)} and _why_not_canonical(node) is not None:
        return "TFLite has products of int8 matrices"
    return None


def _booleans(node: Node, lhs: Array, rhs: Array) -> Array:
    """Whether any pair is true in both: a product of zeros and ones that is not zero."""
    left, right, shape = _matrices(node, lhs, rhs)
    product = _product(left.astype(np.float32), right.astype(np.float32), np.float32)
    return (product > 0).reshape(shape)


def _why_not_booleans(node: Node) -> str | None:
    return None if node.outputs[0].dtype == np.bool_ else "it is a product of numbers"


def _empty(node: Node, lhs: Array, rhs: Array) -> Array:
    return jnp.zeros(node.outputs[0].shape, node.outputs[0].dtype)


def _why_not_empty(node: Node) -> str | None:
    return None if 0 in (*node.inputs[0].shape, *node.inputs[1].shape) else "neither operand is empty"


RULES = (
    node_lowering("empty-product", "dot_general conv_general_dilated", _empty, _why_not_empty, "exact"),
    node_lowering("product-of-booleans", "dot_general", _booleans, _why_not_booleans, "exact"),
    node_lowering("product-of-integers", "dot_general", _integers, _why_not_integers, "exact"),
    node_lowering("product-of-matrices", "dot_general", _canonical, _why_not_canonical),
)
