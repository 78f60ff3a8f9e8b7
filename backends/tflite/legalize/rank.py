"""Arrays of many dimensions: TFLite's kernels take five or six, and reshapes of any.

What moves along one axis is done on three dimensions: those before it, the axis, and those after it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ....core.node import Node, Value
from .rule import node_lowering

Array = jax.Array

MOST_DIMENSIONS = 5
"""What PAD, STRIDED_SLICE, MAXIMUM and the delegate's kernels take."""

# fmt: off
ELEMENTWISE = (
    "add", "sub", "mul", "div", "rem", "pow", "max", "min", "atan2", "and", "or", "xor", "eq", "ne", "lt", "le", "gt",
    "ge", "select_n", "clamp", "add_any", "nextafter", "shift_left", "shift_right_logical", "shift_right_arithmetic",
)
"""Operations of several operands, into which the converters take the broadcasts in front of them."""
# fmt: on


def _is_small(node: Node) -> bool:
    return all(len(v.shape) <= MOST_DIMENSIONS for v in (*node.inputs, *node.outputs))


def _why_small(node: Node) -> str | None:
    return f"it has at most {MOST_DIMENSIONS} dimensions" if _is_small(node) else None


def _around(x: Array, axis: int) -> Array:
    """``[before, axis, after]``."""
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))


# -- elementwise -------------------------------------------------------------------------------------------------------


def _flattened(node: Node, *operands: Array) -> Array:
    shape = node.outputs[0].shape
    flat = [jnp.broadcast_to(x, shape).reshape(-1) if x.ndim else x for x in operands]
    done: Array = node.primitive.bind(*flat, **node.params)
    return done.reshape(shape)


def _why_not_flattened(node: Node) -> str | None:
    reason = _why_small(node)
    repeated = any(v.shape != node.outputs[0].shape or _is_broadcast(v) for v in node.inputs)
    return reason if reason is not None or repeated else "none of its operands is a broadcast"


def _is_broadcast(value: Value) -> bool:
    return value.producer is not None and value.producer.name == "broadcast_in_dim"


# -- axis by axis ------------------------------------------------------------------------------------------------------


def _slice(node: Node, x: Array) -> Array:
    starts, limits = node.params["start_indices"], node.params["limit_indices"]
    strides = node.params["strides"] or (1,) * x.ndim
    for axis, (start, limit, stride) in enumerate(zip(starts, limits, strides, strict=True)):
        if (start, limit, stride) == (0, x.shape[axis], 1):
            continue
        shape = (*x.shape[:axis], -(-(limit - start) // stride), *x.shape[axis + 1 :])
        x = lax.slice_in_dim(_around(x, axis), start, limit, stride, axis=1).reshape(shape)
    return x


def _pad(node: Node, x: Array, value: Array) -> Array:
    for axis, edges in enumerate(node.params["padding_config"]):
        if tuple(edges) == (0, 0, 0):
            continue
        done = lax.pad(_around(x, axis), value, [(0, 0, 0), edges, (0, 0, 0)])
        x = done.reshape(*x.shape[:axis], done.shape[1], *x.shape[axis + 1 :])
    return x


def _concatenate(node: Node, *operands: Array) -> Array:
    axis = node.params["dimension"]
    return lax.concatenate([_around(x, axis) for x in operands], 1).reshape(node.outputs[0].shape)


def _reverse(node: Node, x: Array) -> Array:
    for axis in node.params["dimensions"]:
        x = lax.rev(_around(x, axis), (1,)).reshape(x.shape)
    return x


def _dynamic_slice(node: Node, x: Array, *starts: Array) -> Array:
    for axis, size in enumerate(node.params["slice_sizes"]):
        if size == x.shape[axis]:
            continue
        zero = jnp.zeros((), starts[axis].dtype)
        cut = lax.dynamic_slice(_around(x, axis), (zero, starts[axis], zero), (*_sides(x, axis, size),))
        x = cut.reshape(*x.shape[:axis], size, *x.shape[axis + 1 :])
    return x


def _sides(x: Array, axis: int, size: int) -> tuple[int, int, int]:
    return math.prod(x.shape[:axis]), size, math.prod(x.shape[axis + 1 :])


def _reduce(node: Node, x: Array) -> Array:
    """Adjacent axes together, the last ones first."""
    axes = sorted(node.params["axes"])
    while axes:
        last = axes.pop()
        first = last
        while axes and axes[-1] == first - 1:
            first = axes.pop()
        shape = x.shape
        joined = x.reshape(math.prod(shape[:first]), math.prod(shape[first : last + 1]), math.prod(shape[last + 1 :]))
        done = node.primitive.bind(joined, **{**node.params, "axes": (1,)})
        x = done.reshape(*shape[:first], *shape[last + 1 :])
    return x


def _extremum(node: Node, x: Array) -> Array:
    (axis,) = node.params["axes"]
    done: Array = node.primitive.bind(_around(x, axis), **{**node.params, "axes": (1,)})
    return done.reshape(node.outputs[0].shape)


# -- moves of several axes ---------------------------------------------------------------------------------------------


def _transpose(node: Node, x: Array) -> Array:
    """Axes that stay together are one; the rest is brought to its place one axis after the other."""
    shape, order = merged_transpose(x.shape, node.params["permutation"])
    x = x.reshape(shape)
    if len(shape) <= MOST_DIMENSIONS:
        return lax.transpose(x, order).reshape(node.outputs[0].shape)
    current = list(range(len(shape)))
    for place, axis in enumerate(order):
        at = current.index(axis)
        if at != place:
            x = _moved(x, at, place)
            current.insert(place, current.pop(at))
    return x.reshape(node.outputs[0].shape)


def _moved(x: Array, at: int, place: int) -> Array:
    """The axis ``at`` in front of the one at ``place``."""
    shape = x.shape
    four = x.reshape(math.prod(shape[:place]), math.prod(shape[place:at]), shape[at], math.prod(shape[at + 1 :]))
    turned = lax.transpose(four, (0, 2, 1, 3))
    return turned.reshape(*shape[:place], shape[at], *shape[place:at], *shape[at + 1 :])


def _smaller_transpose(node: Node, x: Array) -> Array:
    """Without dimensions of size one, and with those that stay adjacent joined; often nothing is left to transpose."""
    shape, order = merged_transpose(x.shape, node.params["permutation"])
    return lax.transpose(x.reshape(shape), order).reshape(node.outputs[0].shape)


def _why_not_smaller(node: Node) -> str | None:
    """Between reshapes only: products, and other transposes, take a transpose as it is."""
    shape, order = merged_transpose(node.inputs[0].shape, node.params["permutation"])
    if len(shape) == len(node.inputs[0].shape):
        return "it has no dimensions to join"
    producer = node.inputs[0].producer
    among_reshapes = (
        producer is not None and {producer.name, *(user.name for user in node.outputs[0].users)} <= _RESHAPES
    )
    return None if order == sorted(order) or among_reshapes else "something takes it as it is"


_RESHAPES = frozenset({"reshape", "squeeze", "expand_dims", "broadcast_in_dim"})


def merged_transpose(shape: Sequence[int], permutation: Sequence[int]) -> tuple[list[int], list[int]]:
    """A transpose of fewer dimensions: without those of size one, and with axes that stay adjacent joined."""
    order = [axis for axis in permutation if shape[axis] != 1]
    groups: list[list[int]] = []
    kept = sorted(order)
    follower = dict(itertools.pairwise(kept))
    for axis in order:
        if groups and follower.get(groups[-1][-1]) == axis:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    by_place = sorted(range(len(groups)), key=lambda g: groups[g][0])
    sizes = [math.prod(shape[axis] for axis in groups[g]) for g in by_place]
    return sizes, [by_place.index(g) for g in range(len(groups))]


def _broadcast(node: Node, x: Array) -> Array:
    """Axes are repeated one after the other."""
    shape = node.params["shape"]
    current = [1] * len(shape)
    for axis, dim in enumerate(node.params["broadcast_dimensions"]):
        current[dim] = x.shape[axis]
    for axis, want in enumerate(shape):
        if current[axis] != want:
            before, after = math.prod(current[:axis]), math.prod(current[axis + 1 :])
            x = lax.broadcast_in_dim(x.reshape(before, after), (before, want, after), (0, 2))
            current[axis] = want
    return x.reshape(shape)


def _tile(node: Node, x: Array) -> Array:
    """Axes are repeated one after the other."""
    for axis, count in enumerate(node.params["reps"]):
        if count != 1:
            line = _around(x, axis)
            wide = lax.broadcast_in_dim(line, (line.shape[0], count, *line.shape[1:]), (0, 2, 3))
            x = wide.reshape(*x.shape[:axis], count * x.shape[axis], *x.shape[axis + 1 :])
    return x


def _why_not_tile(node: Node) -> str | None:
    return "TFLite has it" if len(node.inputs[0].shape) <= MOST_DIMENSIONS - 1 else None


def _why_not_broadcast(node: Node) -> str | None:
    reason = _why_small(node)
    if reason is None and not node.inputs[0].shape:
        return "it repeats a scalar"
    return reason


def _why_not_reversed(node: Node) -> str | None:
    axes = sorted(node.params["dimensions"])
    is_one_block = not axes or axes == list(range(axes[0], axes[-1] + 1))
    return _why_small(node) if is_one_block else None


def _axis_rule(name: str, primitives: str | tuple[str, ...], function: Callable[..., Any]) -> Any:
    return node_lowering(name, primitives, function, _why_small, "exact")


RULES = (
    node_lowering("flat", ELEMENTWISE, _flattened, _why_not_flattened, "exact"),
    node_lowering("broadcast-by-axes", "broadcast_in_dim", _broadcast, _why_not_broadcast, "exact"),
    node_lowering("tile-by-axes", "tile", _tile, _why_not_tile, "exact"),
    _axis_rule("slice-by-axes", "slice", _slice),
    _axis_rule("pad-by-axes", "pad", _pad),
    _axis_rule("joined-along-one-axis", "concatenate", _concatenate),
    node_lowering("reversed-by-axes", "rev", _reverse, _why_not_reversed, "exact"),
    _axis_rule("dynamic-slice-by-axes", "dynamic_slice", _dynamic_slice),
    _axis_rule("reduced-by-axes", "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or", _reduce),
    _axis_rule("extremum-along-one-axis", "argmax argmin", _extremum),
    node_lowering("transpose-without-ones", "transpose", _smaller_transpose, _why_not_smaller, "exact"),
    _axis_rule("transpose-of-groups", "transpose", _transpose),
)
