"""`split-transposed`: transposed convolutions as ordinary ones whose channels are moved into space.

With a stride of s, each s-th pixel of the result along an axis sees the same taps of the kernel. One convolution of the
small image gives all of these phases as channels, DEPTH_TO_SPACE puts them where they belong, and no product is lost.
XNNPACK's convolutions are twice as fast as its transposed ones, and seven times where the result has few channels.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...core.graph import Graph
from ...core.node import Node, Value
from ...core.pass_ import GraphPass, PassContext
from ...core.program import Program
from ...core.rewrite import Numerics
from .legalize.convolution import Shape, channels_last, shape_of
from .operators import operator

Array = np.ndarray[Any, Any]

RULE = "phases"
"""The name under which the new operations are recorded."""

MOST_STRIDE = 4
"""Of larger ones, the phases are more slices than are cheap."""

MOST_WORK = 1.5
"""More than this times the products of the transposed convolution: its image is so small that the rim counts."""


@dataclasses.dataclass(frozen=True)
class SplitTransposed(GraphPass):
    """Computes transposed convolutions by phases, with the bias and the ReLU behind them.

    Taken are those of two dimensions with constant kernels whose sides are multiples of the stride.
    """

    name: ClassVar[str] = "split-transposed"
    numerics: ClassVar[Numerics] = "reassociating"

    def has_work(self, program: Program, context: PassContext) -> bool:
        """Always: a convolution may stand in any body."""
        return True

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Looks at every convolution."""
        changed, pending, seen = False, [graph], {id(graph)}
        while pending:
            region = pending.pop()
            for node in region.nodes():
                if not node.alive:  # a bias or a ReLU that was taken along
                    continue
                if node.name == "conv_general_dilated" and why_not(node) is None:
                    _replace(region, node)
                    changed = True
                elif node.name != "composite":  # in whose bodies the same operations stand again
                    inner = [body for body in node.regions.values() if id(body) not in seen]
                    seen.update(map(id, inner))
                    pending.extend(inner)
        return changed


def why_not(node: Node) -> str | None:
    """Why a convolution is left alone."""
    shape, params = shape_of(node), node.params
    if tuple(map(tuple, params["dimension_numbers"])) != tuple(map(tuple, channels_last(shape.rank))):
        return "its channels are not last"
    if shape.rank != 2 or len(set(shape.lhs_dilation)) != 1 or not 2 <= shape.lhs_dilation[0] <= MOST_STRIDE:
        return "it is not transposed, with one stride for two dimensions"
    if any(step != 1 for step in (*shape.strides, *shape.rhs_dilation, shape.groups, shape.batch_groups)):
        return "it has groups or further strides"
    if any(value.dtype != np.float32 for value in (*node.inputs, *node.outputs)) or not node.inputs[1].is_const:
        return "it is not of float32 with a constant kernel"
    if not all(isinstance(size, int) and size for size in (*shape.image, *shape.out)):
        return "its sizes are not known"
    stride = shape.lhs_dilation[0]
    if any(size % stride for size in (*shape.kernel, *shape.out)):
        return "its kernel or its result does not divide into phases"
    axes = [_Axis.of(shape, axis) for axis in range(2)]
    if math.prod(axis.rows for axis in axes) > MOST_WORK * math.prod(size // stride for size in shape.out):
        return "its image is too small"
    return None


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Where the phases of one axis are read.

    Pixel ``stride * m + p`` of the result is the sum over j of pixel ``m + shifts[p] + j`` of the image times tap
    ``taps[p] + stride * j`` of the kernel.

    Attributes:
      taps: by phase, the first tap.
      shifts: by phase, the first pixel of the image for the first pixel of the result.
      size: pixels of the result in a phase.
    """

    taps: tuple[int, ...]
    shifts: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, shape: Shape, axis: int) -> _Axis:
        stride, low = shape.lhs_dilation[axis], shape.padding[axis][0]
        phases = range(stride)
        return cls(
            tuple((low - p) % stride for p in phases),
            tuple(-((low - p) // stride) for p in phases),
            shape.out[axis] // stride,
        )

    @property
    def first(self) -> int:
        """The first pixel that any phase reads."""
        return min(self.shifts)

    @property
    def rows(self) -> int:
        """Pixels of a convolution that holds all phases."""
        return self.size + max(self.shifts) - self.first


def _replace(graph: Graph, node: Node) -> None:
    bias, relu, last = _behind(node)
    shape, kernel = shape_of(node), node.inputs[1].numpy()

    def apply(image: jax.Array) -> jax.Array:
        return by_phases(image, kernel, shape, bias=bias, relu=relu)

    new = graph.splice(apply, node.inputs[0], before=last, rule=RULE)[0]
    graph.replace(last.outputs[0], new)
    graph.erase_dead(last)


def _behind(node: Node) -> tuple[Array | None, bool, Node]:
    """The bias and the ReLU that alone read a convolution, and the last of the three operations."""
    bias, last = None, node
    user = _only_user(last, "add")
    if user is not None:
        other = user.inputs[1] if user.inputs[0] is last.outputs[0] else user.inputs[0]
        bias = _per_channel(other, node.outputs[0].shape)
        last = last if bias is None else user
    user = _only_user(last, "max")
    if user is None:
        return bias, False, last
    other = user.inputs[1] if user.inputs[0] is last.outputs[0] else user.inputs[0]
    is_relu = other.is_const and not np.any(other.numpy())
    return bias, is_relu, user if is_relu else last


def _only_user(node: Node, name: str) -> Node | None:
    users = list(node.outputs[0].uses)
    return users[0][0] if len(users) == 1 and users[0][0].name == name else None


def _per_channel(value: Value, shape: Any) -> Array | None:
    """A constant of one number per channel, as a vector."""
    if value.producer is not None and value.producer.name == "broadcast_in_dim":
        source = value.producer.inputs[0]
        along_last = value.producer.params["broadcast_dimensions"][-1:] == (len(shape) - 1,)
        return _vector(source, shape[-1]) if source.shape and along_last else None
    return _vector(value, shape[-1])


def _vector(value: Value, channels: int) -> Array | None:
    is_vector = value.is_const and value.shape[-1:] == (channels,) and math.prod(value.shape) == channels
    return value.numpy().reshape(-1) if is_vector else None


def by_phases(
    image: jax.Array, kernel: Array, shape: Shape, *, bias: Array | None = None, relu: bool = False
) -> jax.Array:
    """A transposed convolution, channels last, by one convolution that is not.

    Args:
      image: `[batch, height, width, in]`.
      kernel: `[height, width, in, out]`.
      shape: of the transposed convolution, which `why_not` has nothing against.
      bias: `[out]`, added to the result.
      relu: whether what is negative becomes 0.
    """
    stride, channels = shape.lhs_dilation[0], kernel.shape[-1]
    axes = [_Axis.of(shape, axis) for axis in range(2)]
    phases = [(p, q) for p in range(stride) for q in range(stride)]
    parts = [kernel[axes[0].taps[p] :: stride, axes[1].taps[q] :: stride] for p, q in phases]
    reach = parts[0].shape[:2]
    padding = [
        (-axis.first, axis.first + axis.rows + taps - 1 - size)
        for axis, taps, size in zip(axes, reach, shape.image, strict=True)
    ]
    together: Any = np.concatenate(parts, -1)
    whole = lax.conv_general_dilated(image, together, (1, 1), padding, dimension_numbers=channels_last(2))
    whole = whole if bias is None else whole + np.tile(bias, len(phases))
    whole = jnp.maximum(whole, 0) if relu else whole
    if any(axis.rows != axis.size for axis in axes):
        cut = []
        for number, (p, q) in enumerate(phases):
            part = whole[..., number * channels : (number + 1) * channels]
            for axis, phase, dimension in ((axes[0], p, 1), (axes[1], q, 2)):
                start = axis.shifts[phase] - axis.first
                part = lax.slice_in_dim(part, start, start + axis.size, axis=dimension)
            cut.append(part)
        whole = jnp.concatenate(cut, -1)
    result: jax.Array = operator("depth_to_space", _depth_to_space)(whole, block_size=stride)
    return result


def _depth_to_space(x: jax.Array, *, block_size: int) -> jax.Array:
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, block_size, block_size, channels // block_size**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * block_size, width * block_size, -1)
