"""Primitives whose NumPy result has the very bits of XLA's.

Each function takes the equation's parameters, its operands as NumPy arrays and the type of its result. It returns None
where the bits could differ; then the operation is left to XLA. The reasons to do so:

* XLA:CPU takes subnormal float32, float64 and bfloat16 numbers for zero, on the way in and on the way out;
* NumPy leaves open which zero ``maximum(0.0, -0.0)`` is, and what integer division by zero, or a shift by too much, is;
* sums, products and transcendental functions are rounded differently.

Data movement has no such cases, so it is exact for every dtype.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = np.ndarray[Any, Any]
Params = Mapping[str, Any]
Function = Callable[[Params, Sequence[Array], Any], Array | None]


def evaluate(primitive: str, params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
    """The result of a primitive with one result of type ``aval``, or None where NumPy may not give XLA's bits."""
    function = FUNCTIONS.get(primitive)
    if function is None:
        return None
    with np.errstate(all="ignore"):
        result = function(params, operands, aval)
    if result is None or result.shape != aval.shape or result.dtype != aval.dtype:
        return None
    return np.asarray(result)


# -- moving data -------------------------------------------------------------------------------------------------------


def _identity(params: Params, operands: Sequence[Array], aval: Any) -> Array:
    return operands[0]


def _reshape(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
    return operands[0].reshape(aval.shape) if params.get("dimensions") is None else None


def _squeeze(params: Params, operands: Sequence[Array], aval: Any) -> Array:
    return operands[0].reshape(aval.shape)


def _transpose(params: Params, operands: Sequence[Array], aval: Any) -> Array:
    return operands[0].transpose(params["permutation"])


def _broadcast(params: Params, operands: Sequence[Array], aval: Any) -> Array:
    shape = [1] * len(aval.shape)
    for dimension, size in zip(params["broadcast_dimensions"], operands[0].shape, strict=True):
        shape[dimension] = size
    return np.broadcast_to(operands[0].reshape(shape), aval.shape)


def _slice(params: Params, operands: Sequence[Array], aval: Any) -> Array:
    starts, limits = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    return operands[0][tuple(map(slice, starts, limits, strides))]


def _dynamic_slice(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
    operand, *starts = operands
    if len(starts) != operand.ndim:
        return None
    return operand[_clamped(starts, operand.shape, params["slice_sizes"])]


def _dynamic_update_slice(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
    operand, update, *starts = operands
    if len(starts) != operand.ndim:
        return None
    result = operand.copy()
    result[_clamped(starts, operand.shape, update.shape)] = update
    return result


def _clamped(starts: Sequence[Array], shape: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    """XLA moves a slice that would reach over an edge inside."""
    begins = [min(max(int(start), 0), size - length) for start, size, length in zip(starts, shape, sizes, strict=True)]
    return tuple(slice(begin, begin + length) for begin, length in zip(begins, sizes, strict=True))


def _concatenate(params: Params, operands: Sequence[Array], aval: Any) -> Array:
    return np.concatenate(operands, axis=params["dimension"])


def _reverse(params: Params, operands: Sequence[Array], aval: Any) -> Array:
    return np.flip(operands[0], params["dimensions"])


def _pad(params: Params, operands: Sequence[Array], aval: Any) -> Array:
    """Padding may be negative, which crops, and between the elements."""
    operand, value = operands
    result = np.full(aval.shape, value, aval.dtype)
    inside, source = [], []
    for size, total, (low, _, interior) in zip(operand.shape, aval.shape, params["padding_config"], strict=True):
        positions = low + np.arange(size) * (interior + 1)
        kept = np.flatnonzero((positions >= 0) & (positions < total))
        inside.append(positions[kept])
        source.append(kept)
    result[np.ix_(*inside)] = operand[np.ix_(*source)]
    return result


def _iota(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
    if operands or not is_plain(aval.dtype) or aval.dtype == bool:
        return None
    size = aval.shape[params["dimension"]]
    largest = 2 / float(jnp.finfo(aval.dtype).eps) if is_float(aval.dtype) else np.iinfo(aval.dtype).max
    if size - 1 > largest:
        return None
    shape = [1] * len(aval.shape)
    shape[params["dimension"]] = size
    return np.broadcast_to(np.arange(size).astype(aval.dtype).reshape(shape), aval.shape)


def _select(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
    which, *cases = operands
    if not which.ndim:
        return cases[min(max(int(which), 0), len(cases) - 1)]
    return np.where(which, cases[1], cases[0]) if which.dtype == bool else None


def _gather(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
    """Whole slices along one axis, all indices in bounds: what ``table[indices]`` is."""
    operand, indices = operands
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    if numbers.operand_batching_dims or len(numbers.start_index_map) != 1 or indices.shape[-1:] != (1,):
        return None
    axis = numbers.start_index_map[0]
    if numbers.collapsed_slice_dims != (axis,) or any(
        size != length for dim, (size, length) in enumerate(zip(operand.shape, sizes, strict=True)) if dim != axis
    ):
        return None
    places = indices[..., 0]
    if params["mode"] == jax.lax.GatherScatterMode.CLIP and operand.shape[axis]:
        places = np.clip(places, 0, operand.shape[axis] - 1)
    elif ((places < 0) | (places >= operand.shape[axis])).any():
        return None
    taken = np.take(operand, places, axis=axis)
    batch = iter(range(axis, axis + places.ndim))
    offset = iter([d for d in range(taken.ndim) if not axis <= d < axis + places.ndim])
    return taken.transpose([next(offset if d in numbers.offset_dims else batch) for d in range(taken.ndim)])


def _bitcast(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
    (operand,) = operands
    if not (is_plain(operand.dtype) and is_plain(aval.dtype)) or bool in (operand.dtype, aval.dtype):
        return None
    return np.ascontiguousarray(operand).view(aval.dtype) if operand.dtype.itemsize == aval.dtype.itemsize else None


# -- arithmetic --------------------------------------------------------------------------------------------------------


def is_plain(dtype: Any) -> bool:
    """Booleans, integers of whole bytes, and the floats with which XLA:CPU and NumPy compute alike."""
    return isinstance(dtype, np.dtype) and (dtype.kind in "biuf" or dtype == jnp.bfloat16)


def is_float(dtype: Any) -> bool:
    """Whether a dtype is a real floating-point one."""
    return bool(jnp.issubdtype(dtype, np.floating))


@functools.cache
def _smallest_normal(dtype: Any) -> float | None:
    """The smallest normal number where XLA:CPU flushes smaller ones; None where it does not."""
    flushes = dtype in (np.float32, np.float64, jnp.bfloat16)
    return float(jnp.finfo(dtype).smallest_normal) if flushes else None


def may_be_flushed(array: Array) -> bool:
    """Whether ``array`` holds a number that is subnormal, or was perhaps rounded up from there."""
    limit = _smallest_normal(array.dtype)
    if limit is None:
        return False
    size = np.abs(array)
    return bool(((size <= array.dtype.type(limit)) & (size > 0)).any())


def _elementwise(function: Callable[..., Any]) -> Function:
    """For functions that are rounded correctly, or need no rounding, in both."""

    def compute(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
        if not all(is_plain(x.dtype) for x in operands) or any(map(may_be_flushed, operands)):
            return None
        result = function(*operands)
        if result is None:
            return None
        result = np.asarray(result)
        return None if may_be_flushed(result) else result

    return compute


def _maximum_or_minimum(function: Callable[[Array, Array], Any]) -> Callable[[Array, Array], Any]:
    def compute(x: Array, y: Array) -> Any:
        both_zero = is_float(x.dtype) and ((x == 0) & (y == 0)).any()
        return None if both_zero else function(x, y)

    return compute


def _divide(x: Array, y: Array) -> Any:
    """Integers are divided towards zero."""
    if is_float(x.dtype):
        return np.divide(x, y)
    if _overflows(x, y):
        return None
    quotient = np.floor_divide(x, y)
    inexact_and_negative = (quotient * y != x) & ((x < 0) != (y < 0))
    return quotient + inexact_and_negative.astype(quotient.dtype)


def _remainder(x: Array, y: Array) -> Any:
    return None if not is_float(x.dtype) and _overflows(x, y) else np.fmod(x, y)


def _overflows(x: Array, y: Array) -> bool:
    """Division by zero, or of the least integer by -1."""
    smallest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else 0
    return bool((y == 0).any() or (smallest < 0 and ((x == smallest) & (y == -1)).any()))


def _shift(function: Callable[[Array, Array], Any], *, signed: bool) -> Callable[[Array, Array], Any]:
    def compute(x: Array, y: Array) -> Any:
        if x.dtype.kind not in "iu" or ((y < 0) | (y >= 8 * x.dtype.itemsize)).any():
            return None
        as_type = x.dtype.str.replace("u", "i") if signed else x.dtype.str.replace("i", "u")
        return np.asarray(function(x.view(as_type), y.view(as_type))).view(x.dtype)

    return compute


def _integer_pow(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
    return _elementwise(np.square)(params, operands, aval) if params["y"] == 2 else None


def _clamp(low: Array, x: Array, high: Array) -> Any:
    return None if is_float(x.dtype) else np.minimum(np.maximum(x, low), high)


def _negate(x: Array) -> Any:
    return None if x.dtype == bool else np.negative(x)


def _convert(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
    (x,) = operands
    target = aval.dtype
    if not (is_plain(x.dtype) and is_plain(target)) or may_be_flushed(x):
        return None
    if is_float(x.dtype) and target.kind in "iu":
        limits = np.iinfo(target)
        inside = (x >= float(limits.min)) & (x < float(limits.max))  # NaN is not inside
        return x.astype(target) if inside.all() else None
    result: Array = x.astype(target)
    exact_rounding = target in (np.float32, np.float64) or (x.dtype == np.float32 and is_float(target))
    if is_float(target) and x.dtype != bool and not exact_rounding and not _converts_exactly(x, target):
        return None
    return None if may_be_flushed(result) else result


def _converts_exactly(x: Array, target: Any) -> bool:
    """Whether converting loses nothing, so that no rounding, and no second rounding on the way, takes place."""
    back = x.astype(target).astype(x.dtype)
    return bool(((back == x) | (x != x)).all())


# -- reductions --------------------------------------------------------------------------------------------------------


def _reduction(function: Callable[..., Any], *, integers_only: bool) -> Function:
    def compute(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
        (x,) = operands
        if not is_plain(x.dtype) or not x.size:
            return None
        if is_float(x.dtype) and (integers_only or may_be_flushed(x) or (x == 0).any()):
            return None
        return np.asarray(function(x, axis=tuple(params["axes"]))).astype(x.dtype)

    return compute


def _integer_reduction(function: Callable[..., Any]) -> Function:
    """Sums and products of integers wrap around in either, in the operand's dtype."""
    return _reduction(lambda x, axis: function(x, axis=axis, dtype=x.dtype), integers_only=True)


def _window_sum(params: Params, operands: Sequence[Array], aval: Any) -> Array | None:
    """Sums over windows of whole numbers, axis by axis: exact in any order, and so in XLA's.

    What divides a pooled sum where windows reach over the edge is such a sum, of ones; XLA takes long for it.
    """
    (x,) = operands
    if not is_plain(x.dtype) or any(d != 1 for d in params["base_dilation"]):
        return None
    if is_float(x.dtype):
        largest = float(np.abs(x).max(initial=0)) * math.prod(params["window_dimensions"])
        if not largest <= 1 / float(jnp.finfo(x.dtype).eps) or (x != np.floor(x)).any():
            return None
    for axis, (window, stride, dilation, padding) in enumerate(
        zip(
            params["window_dimensions"],
            params["window_strides"],
            params["window_dilation"],
            params["padding"],
            strict=True,
        )
    ):
        x = _sum_along(x, axis, window, stride, dilation, padding, aval.shape[axis])
    return x


def _sum_along(
    x: Array, axis: int, window: int, stride: int, dilation: int, padding: tuple[int, int], size: int
) -> Array:
    x = np.moveaxis(x, axis, 0)
    low, high = padding
    x = np.concatenate([np.zeros((low, *x.shape[1:]), x.dtype), x, np.zeros((high, *x.shape[1:]), x.dtype)])
    total = np.zeros((size, *x.shape[1:]), x.dtype)
    for tap in range(window):
        total += x[tap * dilation : tap * dilation + (size - 1) * stride + 1 : stride] if size else 0
    return np.moveaxis(total, 0, axis)


FUNCTIONS: Mapping[str, Function] = {
    "copy": _identity,
    "copy_p": _identity,
    "stop_gradient": _identity,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "concatenate": _concatenate,
    "rev": _reverse,
    "pad": _pad,
    "iota": _iota,
    "select_n": _select,
    "gather": _gather,
    "bitcast_convert_type": _bitcast,
    "convert_element_type": _convert,
    "neg": _elementwise(_negate),
    "abs": _elementwise(np.abs),
    "floor": _elementwise(np.floor),
    "ceil": _elementwise(np.ceil),
    "is_finite": _elementwise(np.isfinite),
    "sqrt": _elementwise(np.sqrt),
    "square": _elementwise(np.square),
    "integer_pow": _integer_pow,
    "not": _elementwise(np.invert),
    "and": _elementwise(np.bitwise_and),
    "or": _elementwise(np.bitwise_or),
    "xor": _elementwise(np.bitwise_xor),
    "shift_left": _elementwise(_shift(np.left_shift, signed=False)),
    "shift_right_logical": _elementwise(_shift(np.right_shift, signed=False)),
    "shift_right_arithmetic": _elementwise(_shift(np.right_shift, signed=True)),
    "add": _elementwise(np.add),
    "add_any": _elementwise(np.add),
    "sub": _elementwise(np.subtract),
    "mul": _elementwise(np.multiply),
    "div": _elementwise(_divide),
    "rem": _elementwise(_remainder),
    "max": _elementwise(_maximum_or_minimum(np.maximum)),
    "min": _elementwise(_maximum_or_minimum(np.minimum)),
    "clamp": _elementwise(_clamp),
    "eq": _elementwise(np.equal),
    "ne": _elementwise(np.not_equal),
    "lt": _elementwise(np.less),
    "le": _elementwise(np.less_equal),
    "gt": _elementwise(np.greater),
    "ge": _elementwise(np.greater_equal),
    "reduce_max": _reduction(np.max, integers_only=False),
    "reduce_min": _reduction(np.min, integers_only=False),
    "reduce_and": _reduction(np.bitwise_and.reduce, integers_only=True),
    "reduce_or": _reduction(np.bitwise_or.reduce, integers_only=True),
    "reduce_xor": _reduction(np.bitwise_xor.reduce, integers_only=True),
    "reduce_sum": _integer_reduction(np.sum),
    "reduce_prod": _integer_reduction(np.prod),
    "reduce_window_sum": _window_sum,
}
"""By name of the primitive."""
