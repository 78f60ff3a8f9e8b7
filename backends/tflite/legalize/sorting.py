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


def ranks(key: Array, many: int | None = None, *, largest: bool = False) -> Array:
    """Where the smallest numbers of the last axis are, in order; or the largest ones."""
    upside = key if largest else -1 - key
    return lax.top_k(upside, key.shape[-1] if many is None else many)[1]


def take_last(x: Array, places: Array) -> Array:
    """``take_along_axis`` on the last axis, at places that exist."""
    many, length = math.prod(x.shape[:-1]), x.shape[-1]
    rows = lax.broadcasted_iota(np.int32, (many, 1), 0) * np.int32(length)
    flat = rows + places.reshape(many, -1)
    return take_rows(x.reshape(-1), flat).reshape(places.shape)


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
    dimension, keys = node.params["dimension"], node.params["num_keys"]
    moved = [jnp.moveaxis(x, dimension, -1) for x in operands]
    order: Any = None
    for x in reversed(moved[:keys]):
        key = ordered(x)
        order = ranks(key) if order is None else take_last(order, ranks(take_last(key, order)))
    return [jnp.moveaxis(take_last(x, order), -1, dimension) for x in moved]


def _top_k(node: Node, x: Array) -> list[Array]:
    """By the places alone: where only the values are read, the converter would make a sort of it."""
    axis = int(node.params.get("axis", -1)) % x.ndim
    moved = jnp.moveaxis(x, axis, -1)
    places = ranks(ordered(moved), node.params["k"], largest=True)
    return [jnp.moveaxis(take_last(moved, places), -1, axis), jnp.moveaxis(places, -1, axis)]


def _why_not_top_k(node: Node) -> str | None:
    value = node.inputs[0]
    is_last = int(node.params.get("axis", -1)) in (-1, len(value.shape) - 1)
    if is_last and node.outputs[1].uses and not node.outputs[0].uses and value.dtype in (np.int32, np.int64):
        return "its places are read, of integers along the last axis"
    return None


def _approximate_top_k(node: Node, x: Array) -> list[Array]:
    """The exact one: JAX promises a recall, not which elements it misses."""
    params = node.params
    axis = params["reduction_dimension"] % x.ndim
    moved = jnp.moveaxis(x, axis, -1)
    places = ranks(ordered(moved), params["k"], largest=params["is_max_k"])
    return [jnp.moveaxis(take_last(moved, places), -1, axis), jnp.moveaxis(places, -1, axis)]


def _extremum(node: Node, x: Array) -> Array:
    """The place of the first NaN, where there is one: TFLite compares, and so passes over it."""
    (axis,), dtype = node.params["axes"], node.params["index_dtype"]
    if x.dtype in (np.bool_, np.int64):
        order = x.astype(np.int32) if x.dtype == np.bool_ else x
        moved = jnp.moveaxis(order, axis, -1)
        return ranks(moved, 1, largest=node.name == "argmax")[..., 0].astype(dtype)
    function = lax.argmax if node.name == "argmax" else lax.argmin
    key = ordered(x)
    if node.name == "argmin":  # where NaN is smallest, for once
        key = jnp.where(x != x, np.int32(np.iinfo(np.int32).min), key)
    return function(key, axis, dtype)


def _why_not_extremum(node: Node) -> str | None:
    is_plain = node.inputs[0].dtype == np.int32 and node.params["index_dtype"] in (np.int32, np.int64)
    return "TFLite has it for int32" if is_plain else None


RULES = (
    node_lowering("sort-by-places", "sort", _sort, None, "exact"),
    node_lowering("places-of-the-largest", "top_k", _top_k, _why_not_top_k, "exact"),
    node_lowering("exact-top-k", "approx_top_k", _approximate_top_k),
    node_lowering("order-of-bits", "eq_to le_to lt_to", _total_order, None, "exact"),
    node_lowering("places-of-extrema", "argmax argmin", _extremum, _why_not_extremum, "exact"),
)
