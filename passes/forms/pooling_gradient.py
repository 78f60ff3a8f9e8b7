"""The gradient of max pooling without a scatter.

One loop finds which element of each window was taken, as the primitive does; a second one adds up, for each element,
what the windows that took it send back. Elements that lie ``stride`` apart are reached by the same taps, so each such
phase is a sum of shifted slices.

``select_and_gather_add``, its forward-mode counterpart, has no form: which of equal elements XLA follows depends on the
order in which it visits a window, and that is not fixed.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import primitives

from ...core.forms import Form, Signature, direct_form
from . import costs
from .geometry import balanced, window_count
from .transposed import MAX_PHASES, interleave

MAX_TAPS = 64
"""Larger windows make too large a program."""

TERM_SECONDS = 4e-9
"""Per window element of the primitive itself."""

Pairs = Sequence[tuple[int, int]]


def send_back(source: jax.Array, operand: jax.Array, *, select_prim: Any, **params: Any) -> jax.Array:
    """``select_and_scatter_add``: adds each window's ``source`` to the element of ``operand`` that it selects.

    Going through a window in order, the selected element stays as long as ``select_prim(selected, next)`` holds.
    """
    chosen = _selected_taps(operand, select_prim, params)
    window, strides, padding = params["window_dimensions"], params["window_strides"], params["padding"]
    counts = [-(-size // step) for size, step in zip(operand.shape, strides, strict=True)]
    margins = [
        (max(0, -((low - length + 1) // step)), max(0, count + (step - 1 + low) // step - windows))
        for length, (low, _), step, count, windows in zip(window, padding, strides, counts, source.shape, strict=True)
    ]
    chosen, source = _padded(chosen, -1, margins), _padded(source, 0, margins)
    phases = []
    for remainders in itertools.product(*map(range, strides)):
        terms = []
        for number, shifts in _taps_of_phase(remainders, window, strides, padding):
            starts = [shift + low for shift, (low, _) in zip(shifts, margins, strict=True)]
            limits = [start + count for start, count in zip(starts, counts, strict=True)]
            sent = lax.slice(source, starts, limits)
            terms.append(jnp.where(lax.slice(chosen, starts, limits) == number, sent, jnp.zeros_like(sent)))
        phases.append(balanced(operator.add, terms) if terms else jnp.zeros(counts, source.dtype))
    return lax.slice(interleave(phases, strides), (0,) * operand.ndim, operand.shape)


def _selected_taps(operand: jax.Array, select_prim: Any, params: Mapping[str, Any]) -> jax.Array:
    """For each window, the number of the tap that it selects.

    Padding takes part, with the value that nothing is below: so does it in what JAX lowers the primitive to.
    """
    padded = _padded(operand, _start(select_prim), params["padding"])
    best, index = None, jnp.zeros((), jnp.int32)
    for number, tap in enumerate(itertools.product(*map(range, params["window_dimensions"]))):
        value = _slice(padded, tap, params)
        if best is None:
            best, index = value, jnp.zeros(value.shape, jnp.int32)
            continue
        stays = select_prim.bind(best, value)
        best, index = jnp.where(stays, best, value), jnp.where(stays, index, jnp.int32(number))
    result: jax.Array = lax.optimization_barrier(index)
    return result


def _start(select_prim: Any) -> float:
    """What every number is preferred to."""
    return -np.inf if select_prim.name == "ge" else np.inf


def _padded(values: jax.Array, fill: float, padding: Pairs) -> jax.Array:
    config = [(low, high, 0) for low, high in padding]
    padded: jax.Array = lax.optimization_barrier(lax.pad(values, jnp.asarray(fill, values.dtype), config))
    return padded


def _slice(padded: jax.Array, tap: Sequence[int], params: Mapping[str, Any]) -> jax.Array:
    """What tap number ``tap`` of every window sees."""
    strides = params["window_strides"]
    counts = map(window_count, padded.shape, params["window_dimensions"], strides)
    limits = [start + (count - 1) * step + 1 for start, count, step in zip(tap, counts, strides, strict=True)]
    return lax.slice(padded, tap, limits, strides)


def _taps_of_phase(
    remainders: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Pairs
) -> Iterator[tuple[int, list[int]]]:
    """The taps by which windows reach the elements that leave ``remainders`` modulo the strides.

    With each tap comes, per dimension, the number of the window that reaches element ``remainder`` by it.
    """
    for number, tap in enumerate(itertools.product(*map(range, window))):
        offsets = [r + low - t for r, t, (low, _) in zip(remainders, tap, padding, strict=True)]
        if all(offset % step == 0 for offset, step in zip(offsets, strides, strict=True)):
            yield number, [offset // step for offset, step in zip(offsets, strides, strict=True)]


def _applies(signature: Signature) -> str | None:
    params = signature.params
    dtype = jnp.dtype(signature.operands[0].dtype)
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize > 4:
        return f"it has elements of type {dtype}"
    if params["select_prim"].name not in ("ge", "le"):
        return f"it selects by {params['select_prim'].name}"
    if math.prod(params["window_dimensions"]) > MAX_TAPS:
        return f"its window has more than {MAX_TAPS} elements"
    if math.prod(params["window_strides"]) > MAX_PHASES:
        return f"it has more than {MAX_PHASES} phases"
    return None


def _taps(signature: Signature) -> int:
    return int(math.prod(signature.params["window_dimensions"]))


def _direct_cost(signature: Signature) -> float:
    return costs.WAKE_SECONDS + signature.operands[0].size * (_taps(signature) + 4) * TERM_SECONDS


def _cost(signature: Signature) -> float:
    source, operand = signature.operands
    finding = costs.loop(operand.bytes + source.bytes, 4.0 * source.size * _taps(signature))
    sending = costs.loop(source.bytes + operand.bytes, 3.0 * source.size * _taps(signature))
    phases = int(math.prod(signature.params["window_strides"]))
    return finding + sending + costs.loop(2 * operand.bytes) + phases * costs.WAKE_SECONDS


FORMS = (
    direct_form(primitives.select_and_scatter_add_p, _direct_cost),
    Form("send-back", "select_and_scatter_add", send_back, _applies, _cost),
)
