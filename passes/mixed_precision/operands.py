"""Products of bfloat16 as XLA:CPU takes them.

Its library multiplies matrices whose dimensions stand in one order. Of products in others XLA takes some for what the
library multiplies, finds later that they are not, and stops with "Unsupported element type" when the program runs (seen
with jaxlib 0.10.2). So they are written as products of two matrices, or batches of them, from the start.
"""

from __future__ import annotations

import math
from typing import Any

import jax
from jax import lax

from ...core.node import Node, Value

Dimensions = tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]
"""As of ``dot_general``: contracting and batch dimensions of both operands."""


def is_plain(node: Node) -> bool:
    """Whether a product has its batch dimensions first, one to add up over, and at most one other of each operand."""
    contracts, batches = node.params["dimension_numbers"]
    for value, contract, batch in zip(node.inputs, contracts, batches, strict=True):
        if tuple(batch) != tuple(range(len(batch))) or len(contract) != 1 or len(value.shape) > len(batch) + 2:
            return False
    return True


def plain_product(
    lhs: jax.Array, rhs: jax.Array, dimensions: Dimensions, precision: Any, preferred_element_type: Any
) -> jax.Array:
    """``dot_general`` by way of ``[*batch, rows, depth]`` times ``[*batch, depth, columns]``."""
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = dimensions
    rows, columns = _others(lhs.ndim, lhs_contract, lhs_batch), _others(rhs.ndim, rhs_contract, rhs_batch)
    batch = [lhs.shape[axis] for axis in lhs_batch]
    depth = math.prod(lhs.shape[axis] for axis in lhs_contract)
    row_sizes, column_sizes = [lhs.shape[axis] for axis in rows], [rhs.shape[axis] for axis in columns]
    left = lax.transpose(lhs, (*lhs_batch, *rows, *lhs_contract)).reshape(*batch, math.prod(row_sizes), depth)
    right = lax.transpose(rhs, (*rhs_batch, *rhs_contract, *columns)).reshape(*batch, depth, math.prod(column_sizes))
    count = len(batch)
    out = lax.dot_general(
        left,
        right,
        (((count + 1,), (count,)), (tuple(range(count)), tuple(range(count)))),
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return out.reshape(*batch, *row_sizes, *column_sizes)


def lies_across(node: Node) -> bool:
    """Whether the first operand has a dimension to keep behind one that is added up over, before it was transposed."""
    (contract, _), (batch, _) = node.params["dimension_numbers"]
    free = _others(len(node.inputs[0].shape), contract, batch)
    places = _places_before_transposes(node.inputs[0])
    return bool(free and contract) and max(places[axis] for axis in free) > min(places[axis] for axis in contract)


def _places_before_transposes(value: Value) -> list[int]:
    """For each dimension where it was before transposes, which XLA makes part of the product."""
    places = list(range(len(value.shape)))
    while value.producer is not None and value.producer.name in ("transpose", "convert_element_type"):
        if value.producer.name == "transpose":
            permutation = value.producer.params["permutation"]
            places = [permutation[place] for place in places]
        (value,) = value.producer.inputs
    return places


def _others(rank: int, *dimensions: tuple[int, ...]) -> list[int]:
    """The axes that are in none of ``dimensions``."""
    taken = {axis for group in dimensions for axis in group}
    return [axis for axis in range(rank) if axis not in taken]
