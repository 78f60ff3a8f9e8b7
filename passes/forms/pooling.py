"""Pooling as a few shifted slices, combined element by element, one dimension after the other.

XLA:CPU runs overlapping windows as scalar loops. Windows that do not overlap it turns into reshape and reduce by
itself, which is as good.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives

from ...core.forms import Form, Signature, direct_form
from . import costs
from .geometry import balanced, dilated, window_count

MAX_SLICES = 64
"""Along one dimension; more make too large a program."""

DOUBLING_WINDOW = 8
"""From this length on, windows of stride 1 are combined from windows of half their length."""

TERM_SECONDS = 0.8e-9
"""Per window element and output of the primitive itself."""

Combine = Callable[[Any, Any], Any]

REDUCERS: Mapping[str, Combine] = {
    "mul": lax.mul,
    "add": lax.add,
    "max": lax.max,
    "min": lax.min,
    "and": lax.bitwise_and,
    "or": lax.bitwise_or,
}
"""Reducers of the general ``reduce_window`` that may be applied in any order."""


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of one dimension: ``count`` of ``length`` elements, ``dilation`` apart, every ``stride``."""

    length: int
    stride: int
    dilation: int
    count: int


def max_of_slices(operand: jax.Array, **params: Any) -> jax.Array:
    """``reduce_window_max``."""
    return combine_windows(operand, lax.max, lowest(operand.dtype), params)


def min_of_slices(operand: jax.Array, **params: Any) -> jax.Array:
    """``reduce_window_min``."""
    return combine_windows(operand, lax.min, highest(operand.dtype), params)


def sum_of_slices(operand: jax.Array, **params: Any) -> jax.Array:
    """``reduce_window_sum``; 16-bit floats are added up in 32 bits."""
    narrow = jnp.issubdtype(operand.dtype, jnp.floating) and operand.dtype.itemsize < 4
    wide = operand.astype(jnp.float32) if narrow else operand
    return combine_windows(wide, operator.add, jnp.zeros((), wide.dtype), params).astype(operand.dtype)


def slices_of_any(operand: jax.Array, init: jax.Array, **params: Any) -> list[jax.Array]:
    """The general ``reduce_window`` of one operand, where its reducer is a single associative operation."""
    combine = REDUCERS[_reducer(params) or ""]
    return [combine(init, combine_windows(operand, combine, init, params))]


def combine_windows(operand: jax.Array, combine: Combine, fill: Any, params: Mapping[str, Any]) -> jax.Array:
    """Pads with ``fill``, then combines each window, one dimension after the other.

    The barrier keeps XLA from pushing the slices through the padding, which would give each a padding of its own.
    """
    config = [
        (low, high, base - 1) for (low, high), base in zip(params["padding"], params["base_dilation"], strict=True)
    ]
    if any(entry != (0, 0, 0) for entry in config):
        operand = lax.optimization_barrier(lax.pad(operand, fill, config))
    for axis, windows in enumerate(_windows(operand.shape, params)):
        operand = _combine_axis(operand, axis, windows, combine)
    return operand


def _windows(padded: Sequence[int], params: Mapping[str, Any]) -> list[Windows]:
    keys = ("window_dimensions", "window_strides", "window_dilation")
    return [
        Windows(length, stride, dilation, window_count(size, dilated(length, dilation), stride))
        for size, length, stride, dilation in zip(padded, *(params[key] for key in keys), strict=True)
    ]


def _combine_axis(operand: jax.Array, axis: int, windows: Windows, combine: Combine) -> jax.Array:
    if windows.length == 1 and windows.stride == 1:
        return operand
    if windows.length >= DOUBLING_WINDOW and windows.stride == 1:
        return _combine_by_doubling(operand, axis, windows, combine)
    reach = (windows.count - 1) * windows.stride + 1
    starts = [tap * windows.dilation for tap in range(windows.length)]
    return balanced(combine, [lax.slice_in_dim(operand, s, s + reach, windows.stride, axis) for s in starts])


def _combine_by_doubling(operand: jax.Array, axis: int, windows: Windows, combine: Combine) -> jax.Array:
    """Windows of ``n`` elements from those of the powers of two that make up ``n``."""
    parts, power, length, done = [], operand, 1, 0
    while done < windows.length:
        if windows.length & length:
            start = done * windows.dilation
            parts.append(lax.slice_in_dim(power, start, start + windows.count, axis=axis))
            done += length
        if done < windows.length:
            shift, size = length * windows.dilation, power.shape[axis]
            lower = lax.slice_in_dim(power, 0, size - shift, axis=axis)
            power = combine(lower, lax.slice_in_dim(power, shift, size, axis=axis))
            length *= 2
    return balanced(combine, parts)


def lowest(dtype: Any) -> jax.Array:
    """What no number of this type is below."""
    return jnp.array(-jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min, dtype)


def highest(dtype: Any) -> jax.Array:
    """What no number of this type is above."""
    return jnp.array(jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max, dtype)


def _reducer(params: Mapping[str, Any]) -> str | None:
    """Name of the one operation that a general reducer consists of, or None."""
    jaxpr = params["jaxpr"]
    if params["consts"] or len(jaxpr.eqns) != 1 or len(jaxpr.invars) != 2:
        return None
    (eqn,) = jaxpr.eqns
    if set(map(id, eqn.invars)) != set(map(id, jaxpr.invars)) or list(eqn.outvars) != list(jaxpr.outvars):
        return None
    return str(eqn.primitive.name) if eqn.primitive.name in REDUCERS else None


def _applies(signature: Signature) -> str | None:
    params = signature.params
    dtype = jnp.dtype(signature.operands[0].dtype)
    if not (jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)):
        return f"it has elements of type {dtype}"
    if max(params["window_dimensions"]) > MAX_SLICES:
        return f"its window is longer than {MAX_SLICES}"
    apart = all(map(operator.le, params["window_dimensions"], params["window_strides"]))
    if apart and max(params["window_dilation"]) == 1:
        return "its windows do not overlap"
    return None


def _is_padded(params: Mapping[str, Any]) -> bool:
    return any(map(any, params["padding"])) or max(params["base_dilation"]) > 1


def _general_applies(signature: Signature) -> str | None:
    if len(signature.operands) != 2:
        return "it reduces several arrays at once"
    if _reducer(signature.params) is None:
        return "its reducer is not a single associative operation"
    if _is_padded(signature.params):
        return "it pads with an initial value, which XLA uses only where it is neutral"
    return _applies(signature)


def _direct_cost(signature: Signature) -> float:
    terms = int(math.prod(signature.params["window_dimensions"]))
    return costs.kernel(0.0) + signature.results[0].size * (terms + 4) * TERM_SECONDS / 2


def _cost(signature: Signature) -> float:
    operand, result = signature.operands[0], signature.results[0]
    params = signature.params
    padding = math.prod(
        (dilated(size, base) + low + high) / size
        for size, base, (low, high) in zip(operand.shape, params["base_dilation"], params["padding"], strict=True)
    )
    padded = operand.bytes * max(padding, 0.0)
    terms = sum(_operations(n, s) for n, s in zip(params["window_dimensions"], params["window_strides"], strict=True))
    width = operand.shape[-1] if params["window_dimensions"][-1] == 1 else 8
    pad = costs.loop(operand.bytes + padded) if padding != 1.0 else 0.0
    work = max(padded, result.bytes) / jnp.dtype(operand.dtype).itemsize
    return pad + costs.loop(padded + result.bytes, work * terms, width=width)


def _operations(length: int, stride: int) -> int:
    """Combinations per element along one dimension."""
    if length >= DOUBLING_WINDOW and stride == 1:
        return length.bit_length() + length.bit_count()
    return length - 1


def _forms(primitive: Any, name: str, fn: Callable[..., Any], applies: Any, numerics: Any) -> tuple[Form, ...]:
    return direct_form(primitive, _direct_cost), Form(name, primitive.name, fn, applies, _cost, numerics)


FORMS = (
    *_forms(primitives.reduce_window_max_p, "slices", max_of_slices, _applies, "exact"),
    *_forms(primitives.reduce_window_min_p, "slices", min_of_slices, _applies, "exact"),
    *_forms(primitives.reduce_window_sum_p, "slices", sum_of_slices, _applies, "reassociating"),
    *_forms(primitives.reduce_window_p, "slices", slices_of_any, _general_applies, "reassociating"),
)
