"""Windows: cumulative operations by doubling, windows of any function, and the gradients of pooling."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ....core import _compat
from ....core.node import Node
from .rule import node_lowering

Array = jax.Array
Combine = Callable[[Array, Array], Array]


# -- cumulative operations -------------------------------------------------------------------------------------------


def _lowest(dtype: Any) -> Any:
    return -np.inf if jnp.issubdtype(dtype, jnp.floating) else np.iinfo(dtype).min


def _highest(dtype: Any) -> Any:
    return np.inf if jnp.issubdtype(dtype, jnp.floating) else np.iinfo(dtype).max


def _log_sum_exp(x: Array, y: Array) -> Array:
    """Both may be -inf; then so is the result."""
    large, small = jnp.maximum(x, y), jnp.minimum(x, y)
    gap = jnp.where(small == -np.inf, np.float32(-np.inf), small - large)
    return jnp.where(large == np.inf, large, large + lax.log1p(lax.exp(gap)))


_CUMULATIVE: dict[str, tuple[Combine, Callable[[Any], Any]]] = {
    "cumsum": (lambda x, y: x + y, lambda dtype: 0),
    "cumprod": (lambda x, y: x * y, lambda dtype: 1),
    "cummax": (lax.max, _lowest),
    "cummin": (lax.min, _highest),
    "cumlogsumexp": (_log_sum_exp, _lowest),
}


def _cumulative(node: Node, x: Array) -> Array:
    """Partial results over 1, 2, 4, ... elements (Hillis and Steele, 1986)."""
    axis, reverse = node.params["axis"], node.params["reverse"]
    combine, neutral = _CUMULATIVE[node.name]
    length = x.shape[axis]
    shape = x.shape
    x = x.reshape(int(np.prod(shape[:axis])), length, int(np.prod(shape[axis + 1 :])))
    filler = jnp.asarray(neutral(x.dtype), x.dtype)
    step = 1
    while step < length:
        edges = (-step, step, 0) if reverse else (step, -step, 0)
        x = combine(x, lax.pad(x, filler, ((0, 0, 0), edges, (0, 0, 0))))
        step *= 2
    return x.reshape(shape)


def _why_not_cumulative(node: Node) -> str | None:
    if node.name == "cumsum" and len(node.inputs[0].shape) <= 6:
        return "TFLite has it"
    return None


# -- windows -----------------------------------------------------------------------------------------------------------


def _cells(x: Array, filler: Array, params: Any, base_dilation: Sequence[int]) -> list[Array]:
    """For each element of the window, what all windows see there, in the shape of the result."""
    edges = [(int(low), int(high), d - 1) for (low, high), d in zip(params["padding"], base_dilation, strict=True)]
    padded = lax.pad(x, filler, edges)
    window, strides = params["window_dimensions"], params["window_strides"]
    dilation = params.get("window_dilation") or (1,) * x.ndim
    reach = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    out = [max((n - r) // s + 1, 0) for n, r, s in zip(padded.shape, reach, strides, strict=True)]
    cells = []
    for tap in itertools.product(*map(range, window)):
        starts = [t * d for t, d in zip(tap, dilation, strict=True)]
        limits = [b + (n - 1) * s + 1 for b, n, s in zip(starts, out, strides, strict=True)]
        cells.append(lax.slice(padded, starts, limits, strides))
    return cells


def _general_window(node: Node, *operands: Array) -> list[Array]:
    """Windows of any associative function: their elements are combined in order, without those outside."""
    count, params = len(operands) // 2, node.params
    arrays, starts, base = operands[:count], operands[count:], params["base_dilation"]
    cells = zip(*(_cells(x, start, params, base) for x, start in zip(arrays, starts, strict=True)), strict=True)
    inside = _cells(jnp.ones(arrays[0].shape, np.bool_), jnp.zeros((), np.bool_), params, base)
    results = [jnp.broadcast_to(start, node.outputs[0].shape) for start in starts]
    for cell, exists in zip(cells, inside, strict=True):
        combined = elementwise(params["jaxpr"], params.get("consts", ()), [*results, *cell])
        results = [jnp.where(exists, new, old) for new, old in zip(combined, results, strict=True)]
    return results


MOST_CELLS = 256
"""Elements of a window of a function that TFLite does not have."""


def _why_not_general_window(node: Node) -> str | None:
    cells = int(np.prod(node.params["window_dimensions"]))
    return f"its window has {cells} elements, more than {MOST_CELLS}" if cells > MOST_CELLS else None


def _reduce(node: Node, *operands: Array) -> list[Array]:
    """A reduction by any function: halves are combined until one element is left, in order."""
    count = len(operands) // 2
    arrays, starts = operands[:count], operands[count:]
    axes = node.params["dimensions"]
    body, consts = node.params["jaxpr"], node.params.get("consts", ())

    def combine(x: Sequence[Array], y: Sequence[Array]) -> list[Array]:
        return jax.tree.leaves(elementwise(body, consts, [*x, *y]))

    kept = [a for a in range(arrays[0].ndim) if a not in axes]
    lines = [lax.transpose(x, (*axes, *kept)).reshape(-1, *(x.shape[a] for a in kept)) for x in arrays]
    start = [jnp.broadcast_to(s, line.shape[1:]) for s, line in zip(starts, lines, strict=True)]
    if not lines[0].shape[0]:
        return start
    while lines[0].shape[0] > 1:
        many = lines[0].shape[0]
        even = many - many % 2
        left = [line[0:even:2] for line in lines]
        right = [line[1:even:2] for line in lines]
        joined = combine(left, right)
        lines = [jnp.concatenate([j, line[even:]]) if many % 2 else j for j, line in zip(joined, lines, strict=True)]
    return combine(start, [line[0] for line in lines])


def _open(body: Any, consts: Any) -> tuple[Any, Any]:
    return (body.jaxpr, body.consts) if hasattr(body, "consts") else (body, consts)


def elementwise(body: Any, consts: Any, arrays: Sequence[Array]) -> list[Array]:
    """A function of scalars, given as a jaxpr, on arrays of one shape."""
    body, consts = _open(body, consts)

    def scalars(*values: Array) -> list[Array]:
        return _compat.eval_jaxpr(body, consts, *values)

    shape = arrays[0].shape
    results: list[Array] = jax.vmap(scalars)(*(x.reshape(-1) for x in arrays))
    return [r.reshape(shape) for r in results]


_BITWISE: dict[str, tuple[Callable[[Array, Array], Array], int]] = {
    "reduce_and": (lax.bitwise_and, -1),
    "reduce_or": (lax.bitwise_or, 0),
    "reduce_xor": (lax.bitwise_xor, 0),
}


def _reduce_bits(node: Node, x: Array) -> Array:
    """Halves are combined until one element is left."""
    combine, start = _BITWISE[node.name]
    axes = node.params["axes"]
    kept = [a for a in range(x.ndim) if a not in axes]
    line = lax.transpose(x, (*axes, *kept)).reshape(-1, *(x.shape[a] for a in kept))
    neutral = jnp.full(line.shape[1:], start, x.dtype) if x.dtype != np.bool_ else jnp.full(line.shape[1:], start != 0)
    if not line.shape[0]:
        return neutral
    while line.shape[0] > 1:
        if line.shape[0] % 2:
            line = jnp.concatenate([line, neutral[None]])
        half = line.shape[0] // 2
        line = combine(line[:half], line[half:])
    return line[0]


def _why_not_bits(node: Node) -> str | None:
    if node.inputs[0].dtype == np.bool_ and node.name != "reduce_xor":
        return "TFLite has it for booleans"
    return None


# -- gradients of pooling --------------------------------------------------------------------------------------------


def _chosen(node: Node, operand: Array) -> tuple[list[Array], Array]:
    """The cells of all windows, and which of them is selected: the first extreme one."""
    greater = str(node.params["select_prim"]) == "ge"
    filler = jnp.asarray(_lowest(operand.dtype) if greater else _highest(operand.dtype), operand.dtype)
    cells = _cells(operand, filler, node.params, (1,) * operand.ndim)
    best, place = cells[0], jnp.zeros(cells[0].shape, np.int32)
    for k, cell in enumerate(cells[1:], 1):
        better = cell > best if greater else cell < best
        best, place = jnp.where(better, cell, best), jnp.where(better, np.int32(k), place)
    return cells, place


def _select_and_scatter_add(node: Node, source: Array, operand: Array) -> Array:
    """Each window's number goes back to the element that the window selected."""
    _, place = _chosen(node, operand)
    params, total = node.params, None
    zero = jnp.zeros((), source.dtype)
    for k, tap in enumerate(itertools.product(*map(range, params["window_dimensions"]))):
        part = jnp.where(place == np.int32(k), source, zero)
        edges = []
        for axis, at in enumerate(tap):
            low, stride = int(params["padding"][axis][0]), params["window_strides"][axis]
            reach = (part.shape[axis] - 1) * stride + 1
            begin = at - low
            edges.append((begin, operand.shape[axis] - begin - reach, stride - 1))
        back = lax.pad(part, zero, edges)
        total = back if total is None else total + back
    assert total is not None
    return total


def _select_and_gather_add(node: Node, tangents: Array, operand: Array) -> Array:
    """What lies in one array where a window of the other selects."""
    _, place = _chosen(node, operand)
    cells = _cells(tangents, jnp.zeros((), tangents.dtype), node.params, (1,) * operand.ndim)
    result = cells[0]
    for k, cell in enumerate(cells[1:], 1):
        result = jnp.where(place == np.int32(k), cell, result)
    return result


RULES = (
    node_lowering("doubling", tuple(_CUMULATIVE), _cumulative, _why_not_cumulative),
    node_lowering("window-by-cells", "reduce_window", _general_window, _why_not_general_window),
    node_lowering("reduction-by-halves", "reduce", _reduce),
    node_lowering("bits-by-halves", "reduce_and reduce_or reduce_xor", _reduce_bits, _why_not_bits, "exact"),
    node_lowering("gradient-of-pooling", "select_and_scatter_add", _select_and_scatter_add),
    node_lowering("derivative-of-pooling", "select_and_gather_add", _select_and_gather_add),
)
