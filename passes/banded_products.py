"""`banded-products`: a product with a constant matrix of few numbers a row, as `jax.image.resize` makes, adds those.

XLA:CPU multiplies by all of the matrix, zeros included: resizing 64x64x128 to twice that by bilinear interpolation
takes 3.4 milliseconds, of which 0.3 are left.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core.graph import Graph
from ..core.node import Node
from ..core.pass_ import GraphPass, PassContext
from ..core.rewrite import Numerics

MOST_TAPS = 8
"""Numbers in a row of the matrix, from the first that is not zero to the last."""

LEAST_INNER = 8
"""Elements that stand together behind the axis: fewer do not fill a vector."""

TAP_SECONDS = 0.065e-9
PRODUCT_FLOPS = 150e9
KERNEL_SECONDS = 3e-6
"""What adding one tap to one element takes, what such products reach, and starting a kernel."""


@dataclasses.dataclass(frozen=True)
class Band:
    """A matrix by its bands.

    Attributes:
      starts: ``[outputs]``: the first input that each output reads.
      weights: ``[taps, outputs]``: of that one and the ones behind it.
    """

    starts: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any]

    @classmethod
    def of(cls, matrix: np.ndarray[Any, Any]) -> Band:
        """The bands of ``matrix``, ``[outputs, inputs]``, all as wide as the widest."""
        is_used = matrix != 0
        first = np.argmax(is_used, axis=1)
        last = matrix.shape[1] - 1 - np.argmax(is_used[:, ::-1], axis=1)
        taps = int(np.max(np.where(is_used.any(axis=1), last - first + 1, 1)))
        starts = np.minimum(np.where(is_used.any(axis=1), first, 0), matrix.shape[1] - taps)
        rows = np.arange(matrix.shape[0])
        return cls(starts.astype(np.int32), np.stack([matrix[rows, starts + tap] for tap in range(taps)]))


@dataclasses.dataclass(frozen=True)
class BandedProducts(GraphPass):
    """Multiplies by constant matrices whose rows hold few numbers, side by side, without their zeros.

    An infinity or NaN then reaches the outputs around it, and not, through the zeros, all of them.

    Attributes:
      least_gain: how many times faster the cost model must find it.
    """

    least_gain: float = 1.3

    name: ClassVar[str] = "banded-products"
    numerics: ClassVar[Numerics] = "reassociating"
    idempotent: ClassVar[bool] = True

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Replaces in every region; what was found is reported as ``banded`` in the details."""
        found = []
        for region in graph.walk():
            for node in region.nodes():
                if node.name != "dot_general" or why_dense(node) is not None:
                    continue
                side = 0 if node.inputs[0].is_const else 1
                matrix = _matrix(node, side)
                if _looks_dense(matrix):
                    continue
                band = Band.of(matrix)
                gain = _gain(node, side, band)
                if len(band.weights) <= MOST_TAPS and gain >= self.least_gain:
                    found.append({"where": node.where, "taps": len(band.weights), "gain": round(gain, 2)})
                    _replace(region, node, side, band)
        context.details["banded"] = found
        return bool(found)


def why_dense(node: Node) -> str | None:
    """Why a product cannot be one with bands, in a sentence, before the matrix is looked at; None where it can."""
    contract, batch = node.params["dimension_numbers"]
    sides = [side for side, value in enumerate(node.inputs) if value.is_const]
    if len(sides) != 1:
        return "not one operand is constant and the other not"
    matrix, other = node.inputs[sides[0]], node.inputs[1 - sides[0]]
    if batch[0] or len(contract[0]) != 1 or len(matrix.shape) != 2:
        return "its constant is no matrix that is multiplied along one axis"
    if not all(value.dtype == jnp.float32 for value in (matrix, other, node.outputs[0])):
        return f"it is of type {other.dtype}"
    if any(not isinstance(size, int) or size == 0 for size in (*other.shape, *matrix.shape)):
        return "its sizes are not known, or it has no elements"
    if math.prod(other.shape[contract[1 - sides[0]][0] + 1 :]) < LEAST_INNER:
        return "too few elements stand behind its axis"
    return None


def _matrix(node: Node, side: int) -> np.ndarray[Any, Any]:
    """The constant operand as ``[outputs, inputs]``."""
    matrix = node.inputs[side].numpy()
    return matrix if node.params["dimension_numbers"][0][side][0] == 1 else matrix.T


def _looks_dense(matrix: np.ndarray[Any, Any]) -> bool:
    """A look at three rows: weights are many and large, and their matrices full."""
    return any(np.count_nonzero(matrix[row]) > MOST_TAPS for row in (0, len(matrix) // 2, len(matrix) - 1))


def _gain(node: Node, side: int, band: Band) -> float:
    size = math.prod(node.outputs[0].shape)
    depth = node.inputs[side].shape[node.params["dimension_numbers"][0][side][0]]
    product = KERNEL_SECONDS + 2.0 * size * depth / PRODUCT_FLOPS
    return float(product / (KERNEL_SECONDS + TAP_SECONDS * len(band.weights) * size))


def _replace(region: Graph, node: Node, side: int, band: Band) -> None:
    axis = node.params["dimension_numbers"][0][1 - side][0]
    fn = functools.partial(banded_product, band=band, axis=axis, first=side == 0)
    (result,) = region.splice(fn, node.inputs[1 - side], before=node, rule="banded-products")
    region.replace(node.outputs[0], result)
    region.erase(node)


def banded_product(operand: jax.Array, *, band: Band, axis: int, first: bool) -> jax.Array:
    """``matrix @ operand`` along ``axis``; the new axis comes first or last."""
    total: Any = None
    for tap, weights in enumerate(band.weights):
        scale = lax.broadcast_in_dim(
            weights, (*operand.shape[:axis], len(weights), *operand.shape[axis + 1 :]), (axis,)
        )
        term = _taken(operand, band.starts + tap, axis) * scale
        total = term if total is None else total + term
    result: jax.Array = jnp.moveaxis(total, axis, 0 if first else -1)
    return result


def _taken(operand: jax.Array, positions: np.ndarray[Any, Any], axis: int) -> jax.Array:
    """``jnp.take`` at positions that are known to be inside."""
    numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(i for i in range(operand.ndim) if i != axis),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
    )
    sizes = tuple(1 if i == axis else size for i, size in enumerate(operand.shape))
    taken: jax.Array = lax.gather(
        operand,
        positions[:, None],
        numbers,
        sizes,
        indices_are_sorted=bool(np.all(np.diff(positions) >= 0)),
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )
    return taken
