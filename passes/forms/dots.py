"""Matrix products: 16-bit operands, constant operands that lie the wrong way, and many small ones."""

from __future__ import annotations

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives

from ...core.forms import Form, Signature, direct_form
from . import costs, heads
from .costs import DOT_MINIMUM
from .geometry import balanced, why_prescribed
from .products import product

CONVERSION_SECONDS = 1.2e-9
"""Bringing one 16-bit element to 32 bits, as XLA:CPU does it for an operand that is not computed by a vector loop."""

WIDEST_OPERAND = 2**28
"""Bytes that a widened constant may take; a larger model would rather keep its memory."""

MOST_DEPTH = 8
MOST_OUTPUTS = 128
"""Of one product of a batch that is written out."""

LEAST_BATCH = 16
"""Fewer products than this are not worth it."""

TRANSPOSED_ROWS = (2, 16)
"""For how many rows a constant that lies the wrong way is slower; for one row and for many it makes no difference."""

TURNED_SECONDS = 0.5e-9
MOVED_SECONDS = 0.2e-9
MOVED_ELEMENTS = 2**18
FAR_MOVED_SECONDS = 0.8e-9
"""Bringing the batch of an operand to the front, per element, as XLA does it and with the rest kept in order; and
either of more elements than stay in the cache."""

LEAST_LENGTHWISE = 2**18
WIDEST_LENGTHWISE = 4
ACROSS_FACTOR = 1.1
"""From how many elements on a constant is read faster along its contracted dimension, for how many columns per element
of depth at most, and how much."""

SMALL_PRODUCT_SECONDS = 3e-9
SMALL_STEP_SECONDS = 0.2e-9
ODD_PRODUCT_SECONDS = 350e-9
"""One product of a batch, and each of its multiply-adds; those of 4 to 7 rows, depth and columns take a slow path."""

SHORT_ROW = 8
SHORT_ROW_SECONDS = 0.18e-9
LONG_ROW_SECONDS = 0.05e-9
"""One multiply-add of a product that is written out, by how many columns it has."""


def widened(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A product of 16-bit floats in 32 bits; the widening of a constant operand is done once."""
    dtype = lhs.dtype if params["preferred_element_type"] is None else params["preferred_element_type"]
    contract, batch = params["dimension_numbers"]
    return product(lhs, rhs, contract, batch, dtype=dtype, precision=params["precision"])


def turned(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A product of a matrix with a constant one, whose contracted dimension is brought to the front."""
    (_, (axis,)), _ = params["dimension_numbers"]
    (contract, _), batch = params["dimension_numbers"]
    return lax.dot_general(
        lhs,
        jnp.moveaxis(rhs, axis, 0),
        ((contract, (0,)), batch),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )


def lengthwise(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A product of one row with a constant matrix, whose contracted dimension is brought to the end.

    Each result is then one stretch of memory, instead of one element out of every row.
    """
    ((contract, (axis,)), batch) = params["dimension_numbers"]
    return lax.dot_general(
        lhs,
        jnp.moveaxis(rhs, axis, 1),
        ((contract, (1,)), batch),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )


def batch_first(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A batched product whose operands are copied so that the batch comes first and the rest keeps its order.

    XLA:CPU turns the matrices over as well, element by element; stretches of memory stay whole in this copy.
    """
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = params["dimension_numbers"]
    left, left_contract = _batch_moved_first(lhs, lhs_batch, lhs_contract)
    right, right_contract = _batch_moved_first(rhs, rhs_batch, rhs_contract)
    batch = tuple(range(len(lhs_batch)))
    return lax.dot_general(
        left,
        right,
        ((left_contract, right_contract), (batch, batch)),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )


def _batch_moved_first(operand: jax.Array, batch: Any, contract: Any) -> tuple[jax.Array, tuple[int, ...]]:
    """The operand, and where its contracted dimensions are then; the barrier keeps XLA from undoing it."""
    order = (*batch, *(axis for axis in range(operand.ndim) if axis not in batch))
    if order == tuple(range(operand.ndim)):
        return operand, tuple(contract)
    moved: jax.Array = lax.optimization_barrier(lax.transpose(operand, order))
    return moved, tuple(order.index(axis) for axis in contract)


def written_out(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """Many small products as one loop: a sum, over the short depth, of columns times rows."""
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = params["dimension_numbers"]
    dtype = jnp.dtype(lhs.dtype if params["preferred_element_type"] is None else params["preferred_element_type"])
    wide = jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4 else dtype
    left, left_shape = _as_matrices(lhs, lhs_batch, lhs_contract)
    right, right_shape = _as_matrices(rhs, rhs_batch, rhs_contract)
    left, right = left.astype(wide), right.astype(wide)
    terms = [left[:, :, None, k] * right[:, None, :, k] for k in range(left.shape[-1])]
    batch = [lhs.shape[axis] for axis in lhs_batch]
    return balanced(operator.add, terms).astype(dtype).reshape(*batch, *left_shape, *right_shape)


def _as_matrices(operand: jax.Array, batch: Any, contract: Any) -> tuple[jax.Array, list[int]]:
    """``[batch, free, depth]``, and the sizes of the free dimensions."""
    free = [axis for axis in range(operand.ndim) if axis not in (*batch, *contract)]
    sizes = [operand.shape[axis] for axis in free]
    ordered = lax.transpose(operand, (*batch, *free, *contract))
    count = math.prod(operand.shape[axis] for axis in batch)
    return ordered.reshape(count, math.prod(sizes), -1), sizes


def matrix_sizes(signature: Signature) -> tuple[int, int, int, int]:
    """Batch, rows, depth, columns."""
    lhs, rhs = signature.operands
    (lhs_contract, _), (lhs_batch, _) = signature.params["dimension_numbers"]
    batch = math.prod(lhs.shape[axis] for axis in lhs_batch)
    depth = math.prod(lhs.shape[axis] for axis in lhs_contract)
    return batch, lhs.size // (batch * depth), depth, rhs.size // (batch * depth)


def _why_not_float(signature: Signature, *, integers: bool = False) -> str | None:
    dtypes = [jnp.dtype(o.dtype) for o in (*signature.operands, *signature.results)]
    kinds = (jnp.floating, jnp.integer) if integers else (jnp.floating,)
    for kind in kinds:
        if all(jnp.issubdtype(dtype, kind) for dtype in dtypes):
            return why_prescribed(signature)
    return f"it has operands of type {signature.operands[0].dtype} and {signature.operands[1].dtype}"


def _widened_applies(signature: Signature) -> str | None:
    lhs, rhs = signature.operands
    if not all(jnp.dtype(o.dtype).itemsize == 2 for o in (lhs, rhs)):
        return f"its operands are {lhs.dtype} and {rhs.dtype}, not of 16 bits"
    if not (lhs.constant or rhs.constant):
        return "neither operand is a constant, and XLA widens the others itself"
    if any(o.constant and 2 * o.bytes > WIDEST_OPERAND for o in (lhs, rhs)):
        return "its constant would take too much memory"
    return _why_not_float(signature)


def _turned_applies(signature: Signature) -> str | None:
    lhs, rhs = signature.operands
    (_, contract), (batch, _) = signature.params["dimension_numbers"]
    if batch or len(contract) != 1 or len(rhs.shape) != 2:
        return "it is not a product with one matrix"
    if not rhs.constant or contract[0] == 0:
        return "its second operand is no constant that lies the wrong way"
    rows = lhs.size // lhs.shape[signature.params["dimension_numbers"][0][0][0]]
    if not TRANSPOSED_ROWS[0] <= rows <= TRANSPOSED_ROWS[1]:
        return f"{rows} rows are as fast this way"
    return _why_not_float(signature)


def _lengthwise_applies(signature: Signature) -> str | None:
    lhs, rhs = signature.operands
    (_, contract), (batch, _) = signature.params["dimension_numbers"]
    if batch or len(contract) != 1 or len(rhs.shape) != 2:
        return "it is not a product with one matrix"
    if not rhs.constant or contract[0] == 1:
        return "its second operand is no constant that lies the other way"
    depth = lhs.shape[signature.params["dimension_numbers"][0][0][0]]
    if lhs.size != depth:
        return "it does not have one row"
    if rhs.size < LEAST_LENGTHWISE:
        return f"a matrix of {rhs.size} elements stays in the cache"
    if rhs.size > WIDEST_LENGTHWISE * depth * depth:
        return "its rows are long enough"
    return _why_not_float(signature)


def _batch_first_applies(signature: Signature) -> str | None:
    _, batches = signature.params["dimension_numbers"]
    if not _scattered_elements(signature):
        return "its batch dimensions come first" if batches[0] else "it has no batch"
    return _why_not_float(signature)


def _scattered_elements(signature: Signature) -> int:
    """How many elements lie in operands whose batch dimensions do not come first."""
    _, batches = signature.params["dimension_numbers"]
    operands = zip(signature.operands, batches, strict=True)
    return sum(o.size for o, batch in operands if not o.constant and tuple(batch) != tuple(range(len(batch))))


def _written_applies(signature: Signature) -> str | None:
    batch, rows, depth, columns = matrix_sizes(signature)
    if batch < LEAST_BATCH:
        return f"{batch} products are fewer than {LEAST_BATCH}"
    if rows == 1:
        return "its products have one row"
    if depth > MOST_DEPTH or rows * columns > MOST_OUTPUTS:
        return f"its products of depth {depth} with {rows * columns} outputs are too large"
    return _why_not_float(signature, integers=True)


def _is_accumulated(signature: Signature) -> bool:
    """Whether it is a product of bfloat16 matrices, and no vectors, that the library adds up in float32 itself."""
    _, rows, _, columns = matrix_sizes(signature)
    dtypes = [o.dtype for o in (*signature.operands, *signature.results)]
    return dtypes == ["bfloat16", "bfloat16", "float32"] and min(rows, columns) > 1


def _direct_cost(signature: Signature) -> float:
    seconds = _product_cost(signature) + _moving_seconds(signature, TURNED_SECONDS)
    if _turned_applies(signature) is None:
        return 1.5 * seconds
    return ACROSS_FACTOR * seconds if _lengthwise_applies(signature) is None else seconds


def _product_cost(signature: Signature) -> float:
    """What the primitive takes besides bringing the batch to the front."""
    batch, rows, depth, columns = matrix_sizes(signature)
    if batch >= LEAST_BATCH and max(rows, depth, columns) < DOT_MINIMUM:
        odd = all(4 <= side <= 7 for side in (rows, depth, columns))
        product_seconds = SMALL_PRODUCT_SECONDS + SMALL_STEP_SECONDS * rows * depth * columns
        seconds = batch * (ODD_PRODUCT_SECONDS if odd else product_seconds)
    elif _is_accumulated(signature):
        return costs.bfloat16_dot(rows, depth, columns, batch)
    else:
        seconds = costs.dot(rows, depth, columns, batch)
    for operand in signature.operands:
        if operand.dtype in ("bfloat16", "float16"):
            seconds += CONVERSION_SECONDS * operand.size
    return seconds


def _batch_first_cost(signature: Signature) -> float:
    return _product_cost(signature) + _moving_seconds(signature, MOVED_SECONDS)


def _moving_seconds(signature: Signature, each: float) -> float:
    elements = _scattered_elements(signature)
    return elements * (each if elements <= MOVED_ELEMENTS else FAR_MOVED_SECONDS)


def _widened_cost(signature: Signature) -> float:
    batch, rows, depth, columns = matrix_sizes(signature)
    conversion = sum(CONVERSION_SECONDS * o.size for o in signature.operands if not o.constant)
    return costs.dot(rows, depth, columns, batch) + conversion


def _turned_cost(signature: Signature) -> float:
    batch, rows, depth, columns = matrix_sizes(signature)
    return costs.dot(rows, depth, columns, batch)


def _written_cost(signature: Signature) -> float:
    batch, rows, depth, columns = matrix_sizes(signature)
    step = SHORT_ROW_SECONDS if columns < SHORT_ROW else LONG_ROW_SECONDS
    return costs.kernel(signature.bytes) + step * batch * rows * depth * columns


FORMS = (
    direct_form(primitives.dot_general_p, _direct_cost),
    Form("widened", "dot_general", widened, _widened_applies, _widened_cost),
    Form("turned", "dot_general", turned, _turned_applies, _turned_cost),
    Form("batch-first", "dot_general", batch_first, _batch_first_applies, _batch_first_cost),
    Form("lengthwise", "dot_general", lengthwise, _lengthwise_applies, _turned_cost),
    Form("written-out", "dot_general", written_out, _written_applies, _written_cost),
    *heads.FORMS,
)
