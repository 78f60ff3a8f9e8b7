"""Conversions from floats to integers, with XLA's limits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ....core.node import Node
from .rule import lowering

_LIMITS = {np.dtype(np.int32): 2.0**31, np.dtype(np.int64): 2.0**63}
"""The first float that is too large."""


def _to_integer(x: jax.Array, *, new_dtype: Any, **_: Any) -> jax.Array:
    """Numbers beyond the range become its ends, and NaN 0; in TFLite's kernel they become whatever the machine says."""
    limit = _LIMITS[np.dtype(new_dtype)]
    inside = jnp.where(lax.abs(x) < np.float32(limit), x, np.float32(0))
    number = lax.convert_element_type(inside, new_dtype)
    info = np.iinfo(new_dtype)
    number = jnp.where(x >= np.float32(limit), jnp.asarray(info.max, new_dtype), number)
    return jnp.where(x <= np.float32(-limit), jnp.asarray(info.min, new_dtype), number)


def _why_not_to_integer(node: Node) -> str | None:
    value, target = node.inputs[0], np.dtype(node.params["new_dtype"])
    if value.dtype != np.float32 or target not in _LIMITS:
        return f"it converts {value.dtype} to {target}"
    return "its operand is known to be in range" if is_limited(value) else None


def is_limited(value: Any, depth: int = 6) -> bool:
    """Whether a float is known to be finite and far from the ends of the integers, from what made it."""
    if value.is_const:
        array = value.numpy()
        return bool(np.isfinite(array).all() and (np.abs(array) < 2**30).all())
    node = value.producer
    if node is None or depth == 0:
        return False
    if node.name in ("broadcast_in_dim", "reshape", "squeeze", "floor", "ceil", "round", "transpose", "slice", "copy"):
        return is_limited(node.inputs[0], depth - 1)
    if node.name in ("sin", "cos", "tanh", "logistic", "sign", "erf"):
        return True
    if node.name == "convert_element_type":
        return bool(node.inputs[0].dtype == np.bool_)
    if node.name == "select_n":
        test = node.inputs[0].producer
        return bool(test is not None and test.name == "lt" and _keeps_magnitudes(node))
    return bool(node.name == "iota")


def _keeps_magnitudes(node: Node) -> bool:
    """Whether a selection takes x only where ``abs(x) < limit``, and a small constant elsewhere."""
    which, other, kept = node.inputs
    test = which.producer
    if test is None or (not other.is_const and not _is_small_constant(other)):
        return False
    size = test.inputs[0].producer
    return bool(size is not None and size.name == "abs" and size.inputs[0] is kept)


def _is_small_constant(value: Any) -> bool:
    node = value.producer
    return bool(node is not None and node.name == "broadcast_in_dim" and node.inputs[0].is_const)


RULES = (
    lowering("limited-conversion", "convert_element_type", _to_integer, _why_not_to_integer, "exact", any_size=True),
)
