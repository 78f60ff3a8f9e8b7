"""Sorts, by TFLite's TOPK_V2: of equal numbers it gives the first one first."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ....core.node import Node
from .gathering import take_rows
from .rule import node_lowering

Array = jax.Array


def ordered(x: Array) -> Array:
    """Integers in the order in which JAX sorts: both zeros are equal, and NaN is largest."""
    if x.dtype == np.bool_:
        return x.astype(np.int32)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    bits = lax.bitcast_convert_type(jnp.where(x == 0, np.float32(0), x), np.int32)
    signed = jnp.where(bits < 0, np.int32(np.iinfo(np.int32).min) - bits, bits)
    return jnp.where(x != x, np.int32(np.iinfo(np.int32).max), signed)


def ranks(lines: Array, many: int | None = None, *, largest: bool = False) -> Array:
    """Where the smallest elements of each line are, in order; or the largest ones.

    Args:
      lines: ``[lines, length]``.
    """
    flat = ordered(lines.reshape(-1))
    upside = flat if largest else -1 - flat
    return lax.top_k(upside.reshape(lines.shape), lines.shape[1] if many is None else many)[1]


def take_from(lines: Array, places: Array) -> Array:
    """``take_along_axis`` on the last of two axes, at places that exist."""
    count, length = lines.shape
    starts = lax.broadcasted_iota(np.int32, (count, 1), 0) * np.int32(length)
    return take_rows(lines.reshape(-1), starts + places)


class _Lines:
    """An array as lines along one of its axes."""

    def __init__(self, shape: tuple[int, ...], axis: int) -> None:
        self.axis = axis % len(shape)
        self.others = [size for k, size in enumerate(shape) if k != self.axis]

    def of(self, x: Array) -> Array:
        """``[lines, length]``."""
        return jnp.moveaxis(x, self.axis, -1).reshape(math.prod(self.others), x.shape[self.axis])

    def back(self, lines: Array) -> Array:
        """The array whose lines these are."""
        return jnp.moveaxis(lines.reshape(*self.others, lines.shape[1]), -1, self.axis)


def _total_order(node: Node, x: Array, y: Array) -> Array:
    """Comparisons that tell zeros apart, and order NaN of either sign: those of the bits."""
    compare = {"eq_to": lax.eq, "le_to": lax.le, "lt_to": lax.lt}[node.name]
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return compare(x, y)
    keys = []
    for value in (x, y):
        bits = lax.bitcast_convert_type(value, np.int32)
        size = bits + np.int32(np.iinfo(np.int32).min)  # without the sign bit
        keys.append(jnp.where(bits < 0, -1 - size, bits))
    return compare(*keys)


def _sort(node: Node, *operands: Array) -> list[Array]:
    lines = _Lines(operands[0].shape, node.params["dimension"])
    moved = [lines.of(x) for x in operands]
    order: Any = None
    for key in reversed(moved[: node.params["num_keys"]]):
        order = ranks(key) if order is None else take_from(order, ranks(take_from(key, order)))
    return [lines.back(take_from(x, order)) for x in moved]


def _largest(x: Array, axis: int, many: int, *, largest: bool = True) -> list[Array]:
    """Values and places of the largest elements, or of the smallest ones."""
    lines = _Lines(x.shape, axis)
    moved = lines.of(x)
    places = ranks(moved, many, largest=largest)
    return [lines.back(take_from(moved, places)), lines.back(places)]


def _top_k(node: Node, x: Array) -> list[Array]:
    """By the places alone: where only the values are read, the converter would make a sort of it."""
    return _largest(x, int(node.params.get("axis", -1)), node.params["k"])


def _why_not_top_k(node: Node) -> str | None:
    value = node.inputs[0]
    is_last = int(node.params.get("axis", -1)) in (-1, len(value.shape) - 1)
    if is_last and node.outputs[1].uses and not node.outputs[0].uses and value.dtype in (np.int32, np.int64):
        return "its places are read, of integers along the last axis"
    return None


def _approximate_top_k(node: Node, x: Array) -> list[Array]:
    """The exact one: JAX promises a recall, not which elements it misses."""
    params = node.params
    return _largest(x, params["reduction_dimension"], params["k"], largest=params["is_max_k"])


def _extremum(node: Node, x: Array) -> Array:
    """The place of the first NaN, where there is one: TFLite compares, and so passes over it."""
    (axis,), dtype = node.params["axes"], node.params["index_dtype"]
    if x.shape[axis] == 1:
        return jnp.zeros(node.outputs[0].shape, dtype)
    if x.dtype in (np.bool_, np.int64):
        return jnp.squeeze(_largest(x, axis, 1, largest=node.name == "argmax")[1], axis).astype(dtype)
    function = lax.argmax if node.name == "argmax" else lax.argmin
    key = ordered(x)
    if node.name == "argmin":  # where NaN is smallest, for once
        key = jnp.where(x != x, np.int32(np.iinfo(np.int32).min), key)
    return function(key, axis, dtype)


def _why_not_extremum(node: Node) -> str | None:
    (axis,) = node.params["axes"]
    if node.inputs[0].shape[axis] == 1:
        return None
    is_plain = node.inputs[0].dtype == np.int32 and node.params["index_dtype"] in (np.int32, np.int64)
    return "TFLite has it for int32" if is_plain else None


RULES = (
    node_lowering("sort-by-places", "sort", _sort, None, "exact"),
    node_lowering("places-of-the-largest", "top_k", _top_k, _why_not_top_k, "exact"),
    node_lowering("exact-top-k", "approx_top_k", _approximate_top_k),
    node_lowering("order-of-bits", "eq_to le_to lt_to", _total_order, None, "exact"),
    node_lowering("places-of-extrema", "argmax argmin", _extremum, _why_not_extremum, "exact"),
)
