"""`resize-tflite`: image resizing, which JAX writes as matrix products or gathers, as TFLite's own operators."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ...core.graph import Graph
from ...core.node import Node, Value
from ...core.pass_ import GraphPass, PassContext
from ...core.program import Program
from ...core.rewrite import Numerics
from .operators import operator

Method = Literal["linear", "nearest"]

Array = np.ndarray[Any, Any]

RULE = "resize"
"""The name under which the new operations are recorded."""

LARGEST_SIDE = 1 << 13
"""Longer sides than those of images are not looked at: matrices are compared as a whole."""


@dataclasses.dataclass(frozen=True)
class ResizeTFLite(GraphPass):
    """Recognises `jax.image.resize`, bilinear and nearest, and puts RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR there.

    Only what the operators compute with half-pixel centers is taken: larger images, and smaller ones without
    antialiasing.
    """

    name: ClassVar[str] = "resize-tflite"
    numerics: ClassVar[Numerics] = "reassociating"

    def has_work(self, program: Program, context: PassContext) -> bool:
        """Whether images could be resized at all."""
        return any(eqn.primitive.name in ("dot_general", "gather") for eqn in program.jaxpr.jaxpr.eqns)

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Looks at every result, the last ones first: what resizes two axes is more than what resizes one."""
        changed, pending, seen = False, [graph], {id(graph)}
        while pending:
            region = pending.pop()
            for node in reversed(region.nodes()):
                if node.alive and node.name in _STEPS:
                    changed |= _replace(region, node)
            for node in region.nodes():
                if node.name != "composite":  # in whose bodies the same operations stand again
                    inner = [body for body in node.regions.values() if id(body) not in seen]
                    seen.update(map(id, inner))
                    pending.extend(inner)
        return changed


@dataclasses.dataclass
class _Resampled:
    """What a value is of another: for each of its axes, the axis of the source and how that was resampled.

    Attributes:
      source: the other value.
      axes: per axis, the axis of the source.
      matrices: by axis, ``[size of the source, size]``.
      indices: by axis, positions in the source.
    """

    source: Value
    axes: list[int]
    matrices: dict[int, Array]
    indices: dict[int, Array]


def _resampled(value: Value) -> _Resampled:
    """Follows transposes, products with constant matrices and gathers of constant positions that nothing else reads."""
    result = _Resampled(value, list(range(len(value.shape))), {}, {})
    first = True
    while (node := result.source.producer) is not None and (first or len(result.source.uses) == 1):
        step = _STEPS.get(node.name)
        if step is None or not step(node, result):
            break
        first = False
    return result


def _through_transpose(node: Node, result: _Resampled) -> bool:
    permutation = node.params["permutation"]
    result.axes = [permutation[axis] for axis in result.axes]
    result.source = node.inputs[0]
    return True


def _through_product(node: Node, result: _Resampled) -> bool:
    """A product with a constant matrix: one axis of the source contracted, and another put at the end or the front."""
    contracting, batch = node.params["dimension_numbers"]
    side = 1 if node.inputs[1].is_const else 0
    matrix, source = node.inputs[side], node.inputs[1 - side]
    if not matrix.is_const or len(matrix.shape) != 2 or batch[0] or len(contracting[0]) != 1:
        return False
    if max(matrix.shape) > LARGEST_SIDE or matrix.dtype != np.float32:
        return False
    rows, contracted = contracting[side][0], contracting[1 - side][0]
    others = [axis for axis in range(len(source.shape)) if axis != contracted]
    made = (
        [*others, contracted] if side == 1 else [contracted, *others]
    )  # the source's axis behind each of the result's
    position = result.axes.index(made.index(contracted))
    if position in result.matrices or position in result.indices:
        return False
    array = matrix.numpy()
    result.matrices[position] = array if rows == 0 else array.T
    result.axes = [made[axis] for axis in result.axes]
    result.source = source
    return True


def _through_gather(node: Node, result: _Resampled) -> bool:
    """A gather of whole slices at constant positions along one axis, whose place it keeps."""
    numbers = node.params["dimension_numbers"]
    source, positions = node.inputs
    if not positions.is_const or numbers.operand_batching_dims or len(numbers.start_index_map) != 1:
        return False
    (axis,) = numbers.start_index_map
    rank = len(source.shape)
    whole = tuple(1 if k == axis else size for k, size in enumerate(source.shape))
    kept = tuple(k for k in range(rank) if k != axis)
    if numbers.collapsed_slice_dims != (axis,) or tuple(node.params["slice_sizes"]) != whole:
        return False
    if numbers.offset_dims != kept or len(positions.shape) != 2:
        return False
    position = result.axes.index(axis)
    if position in result.matrices or position in result.indices:
        return False
    result.indices[position] = positions.numpy().reshape(-1)
    result.source = source
    return True


_STEPS: dict[str, Callable[[Node, _Resampled], bool]] = {
    "transpose": _through_transpose,
    "dot_general": _through_product,
    "gather": _through_gather,
}


def _replace(graph: Graph, node: Node) -> bool:
    value = node.outputs[0]
    if value.dtype != np.float32 or not 3 <= len(value.shape) <= 4:
        return False
    found = _resampled(value)
    resampled = sorted({*found.matrices, *found.indices})
    method: Method = "linear" if found.matrices else "nearest"
    if not 1 <= len(resampled) <= 2 or (found.matrices and found.indices) or found.axes != list(range(len(found.axes))):
        return False
    if not all(isinstance(size, int) for size in value.shape):
        return False
    for axis in resampled:
        before, after = found.source.shape[axis], value.shape[axis]
        expected = weights(before, after) if method == "linear" else nearest(before, after)
        actual = found.matrices[axis] if method == "linear" else found.indices[axis]
        if actual.shape != expected.shape or not np.allclose(actual, expected, rtol=0, atol=1e-6):
            return False
    axes = _spatial(resampled, len(value.shape))
    new = graph.splice(lambda x: resized(x, axes, value.shape, method), found.source, before=node, rule=RULE)[0]
    graph.replace(value, new)
    graph.erase_dead(node)
    return True


def _spatial(resampled: list[int], rank: int) -> tuple[int, int]:
    """The two axes of the image: those that were resampled, or the one and a neighbour that is not the last."""
    if len(resampled) == 2:
        return resampled[0], resampled[1]
    (axis,) = resampled
    other = axis + 1 if axis + 1 < rank - 1 else axis - 1
    return (min(axis, other), max(axis, other)) if other >= 0 else (0, 1)


def resized(x: jax.Array, axes: tuple[int, int], shape: tuple[int, ...], method: Method) -> jax.Array:
    """``x`` with the sizes ``shape`` along two axes, by TFLite's operator; float32 of rank 3 or 4."""
    others = [axis for axis in range(x.ndim) if axis not in axes]
    order = [*others[:-1], *axes, others[-1]]
    image = jnp.transpose(x, order)
    image = image if x.ndim == 4 else image[None]
    height, width = shape[axes[0]], shape[axes[1]]

    def plainly(x: jax.Array, size: jax.Array, *, align_corners: bool, half_pixel_centers: bool) -> jax.Array:
        image: jax.Array = jax.image.resize(x, (x.shape[0], height, width, x.shape[3]), method, antialias=False)
        return image

    resize = operator("resize_bilinear" if method == "linear" else "resize_nearest_neighbor", plainly)
    size = jnp.array([height, width], jnp.int32)
    result = resize(image, size, align_corners=False, half_pixel_centers=True)
    result = result if x.ndim == 4 else result[0]
    back: jax.Array = jnp.transpose(result, np.argsort(order).tolist())
    return back


def weights(before: int, after: int) -> Array:
    """The matrix ``[before, after]`` of linear interpolation with half-pixel centers, the border repeated."""
    places = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    distance = np.abs(places[None, :] - np.arange(before)[:, None])
    return np.asarray(np.maximum(0, 1 - distance), np.float32)


def nearest(before: int, after: int) -> Array:
    """The positions ``[after]`` nearest to half-pixel centers."""
    return np.minimum(np.floor((np.arange(after) + 0.5) * before / after), before - 1).astype(np.int64)
