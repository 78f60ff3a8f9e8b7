"""Products of few queries with keys and values that lie as ``[batch, length, heads, width]``.

XLA:CPU has all of the batch, heads included, come first, and copies all keys and values for that, element by element.
With few queries it is far cheaper to leave them where they are, and to multiply each query with the keys of all heads:
queries that are zero for the other heads, or results of which those of other heads are left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...core.forms import Form, Signature
from . import costs
from .geometry import why_prescribed
from .products import product

MOST_ROWS = 64
"""Queries times heads; with more, the products of other heads' queries and keys take longer than a copy."""

FEW_ROWS_FACTOR = 2.5
"""A product of few rows beside what its size lets expect."""


@dataclasses.dataclass(frozen=True)
class _Side:
    """One operand of a product: its shape, and which of its dimensions are contracted, and of the batch."""

    shape: tuple[int, ...]
    contract: tuple[int, ...]
    batch: tuple[int, ...]

    @property
    def free(self) -> tuple[int, ...]:
        """The dimensions that are neither."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.contract + self.batch)

    def size(self, axes: Sequence[int]) -> int:
        """How many elements some of its dimensions have together."""
        return math.prod(self.shape[axis] for axis in axes)


def _sides(shapes: Sequence[Sequence[int]], dimension_numbers: Any) -> list[_Side]:
    contract, batch = dimension_numbers
    return [_Side(tuple(s), tuple(c), tuple(b)) for s, c, b in zip(shapes, contract, batch, strict=True)]


def _heads(many: _Side) -> int | None:
    """Which dimension of the batch lies behind all others of it and more, in front of another; None where none does."""
    lead = len(many.batch) - 1
    inside = [index for index, axis in enumerate(many.batch) if axis >= lead]
    if len(inside) != 1 or many.batch[inside[0]] == lead:
        return None
    behind = many.batch[inside[0]] + 1
    return inside[0] if behind < len(many.shape) else None


def per_head(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A batched product of few rows with an operand whose batch does not come first, which is left as it is."""
    operands = lhs, rhs
    sides = _sides([lhs.shape, rhs.shape], params["dimension_numbers"])
    first = 0 if lhs.size <= rhs.size else 1
    few, many = sides[first], sides[1 - first]
    index = _heads(many)
    assert index is not None
    axis = many.batch[index]
    lead = sorted((i for i in range(len(many.batch)) if i != index), key=lambda i: many.batch[i])
    heads, width = many.shape[axis : axis + 2]
    is_contracted = axis + 1 in many.contract
    pairs = [i for i, place in enumerate(many.contract) if place != axis + 1]
    joined = operands[1 - first].reshape(*many.shape[:axis], heads * width, *many.shape[axis + 2 :])
    contract = [many.contract[i] - (many.contract[i] > axis) for i in pairs]

    order = [few.batch[i] for i in lead] + [few.batch[index], *few.free] + [few.contract[i] for i in pairs]
    if is_contracted:
        order.append(few.contract[many.contract.index(axis + 1)])
        contract.append(axis)
    rows = lax.transpose(operands[first], order)
    if is_contracted:
        rows = _spread(rows, len(lead), heads)
    ends = tuple(range(rows.ndim - len(contract), rows.ndim))
    precision = params["precision"]
    precision = precision[::-1] if first == 1 and isinstance(precision, tuple) else precision
    dtype = params["preferred_element_type"] or lhs.dtype
    out = _product(rows, joined, (ends, contract), len(lead), dtype=dtype, precision=precision)
    if not is_contracted:
        free = [a for a in range(len(many.shape) - 1) if a not in (*range(len(lead)), *contract)]
        out = _own_part(out, len(lead), len(lead) + 1 + len(few.free) + free.index(axis), heads)
    return _in_order(out, [*lead, index], len(few.free), len(many.free), is_swapped=first == 1)


def _product(
    rows: jax.Array, joined: jax.Array, contract: tuple[Sequence[int], Sequence[int]], lead: int, **options: Any
) -> jax.Array:
    """A product whose first ``lead`` dimensions are the batch; of one element, XLA would copy it into another order."""
    batch = tuple(range(lead))
    if math.prod(joined.shape[:lead]) != 1:
        return product(rows, joined, contract, (batch, batch), **options)
    left, right = ([axis - lead for axis in axes] for axes in contract)
    out = product(lax.squeeze(rows, batch), lax.squeeze(joined, batch), (left, right), **options)
    return lax.expand_dims(out, batch)


def _spread(rows: jax.Array, axis: int, heads: int) -> jax.Array:
    """``[..., heads, ..., width]``, ``heads`` at ``axis``, to ``[..., heads, ..., heads * width]``, mostly zeros."""
    own = _is_own(rows.ndim + 1, axis, rows.ndim - 1, heads)
    spread = jnp.where(own, rows[..., None, :], jnp.zeros((), rows.dtype))
    return spread.reshape(*rows.shape[:-1], heads * rows.shape[-1])


def _own_part(out: jax.Array, axis: int, place: int, heads: int) -> jax.Array:
    """Of ``heads * width`` elements at ``place`` the ``width`` that belong to the head at ``axis``."""
    out = out.reshape(*out.shape[:place], heads, out.shape[place] // heads, *out.shape[place + 1 :])
    own = _is_own(out.ndim, axis, place, heads)
    return jnp.where(own, out, jnp.zeros((), out.dtype)).sum(place, dtype=out.dtype)


def _is_own(rank: int, axis: int, other: int, heads: int) -> jax.Array:
    """Where the indices along two dimensions are the same."""
    shapes = [[heads if dimension == place else 1 for dimension in range(rank)] for place in (axis, other)]
    mine, others = (jnp.arange(heads).reshape(shape) for shape in shapes)
    return mine == others


def _in_order(out: jax.Array, batch: Sequence[int], few: int, many: int, *, is_swapped: bool) -> jax.Array:
    """The result with the batch in the order of the primitive's parameters, and the first operand's rows first."""
    places = [list(batch).index(i) for i in range(len(batch))]
    rows = list(range(len(batch), len(batch) + few))
    columns = list(range(len(batch) + few, len(batch) + few + many))
    return lax.transpose(out, places + (columns + rows if is_swapped else rows + columns))


def _few_and_many(signature: Signature) -> tuple[_Side, _Side]:
    sides = _sides([operand.shape for operand in signature.operands], signature.params["dimension_numbers"])
    first = 0 if signature.operands[0].size <= signature.operands[1].size else 1
    return sides[first], sides[1 - first]


def _applies(signature: Signature) -> str | None:
    few, many = _few_and_many(signature)
    if any(operand.dtype not in ("float32", "float64") for operand in (*signature.operands, *signature.results)):
        return f"its elements are {signature.operands[0].dtype}, not float32"
    if any(operand.constant for operand in signature.operands):
        return "one operand is a constant, which is brought into order once"
    index = _heads(many)
    if index is None:
        return "no dimension of the batch lies in the middle of the larger operand"
    if many.shape[many.batch[index]] * few.size(few.free) > MOST_ROWS:
        return f"it has more than {MOST_ROWS} rows of all heads"
    return why_prescribed(signature)


def _cost(signature: Signature) -> float:
    few, many = _few_and_many(signature)
    index = _heads(many)
    assert index is not None
    heads = many.shape[many.batch[index]]
    batch = many.size(many.batch) // heads
    rows, depth, columns = heads * few.size(few.free), many.size(many.contract), many.size(many.free)
    if many.batch[index] + 1 in many.contract:
        depth *= heads
    else:
        columns *= heads
    spreading = costs.loop(4.0 * signature.results[0].size * heads)
    return FEW_ROWS_FACTOR * costs.dot(rows, depth, columns, batch) + spreading


FORMS = (Form("per-head", "dot_general", per_head, _applies, _cost),)
