"""Windowed reductions and their gradients."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import numpy as np
import onnx_ir as ir
from jax import lax
from jax.extend.core import jaxpr_as_fun

from .. import dims
from ..context import Context
from ..operand import Operand, is_bool, is_complex, is_float, is_integer, stored_type
from ..registry import Refusal, lowers
from .shape import permute, reshape_to, typed

_T = ir.DataType

#: Gradients of pooling are unrolled over the positions of the window; more of them make an unreasonable file.
_LARGEST_WINDOW = 1024


class _Window:
    """The parameters of a window operation."""

    def __init__(self, params: Any, rank: int) -> None:
        self.size = tuple(params["window_dimensions"])
        self.strides = tuple(params["window_strides"])
        self.padding = tuple(params["padding"])
        self.base = tuple(params.get("base_dilation") or (1,) * rank)
        self.dilation = tuple(params.get("window_dilation") or (1,) * rank)

    def moves(self, axis: int) -> bool:
        """Whether anything happens along an axis."""
        return not (
            self.size[axis] == 1 and self.strides[axis] == 1 and self.padding[axis] == (0, 0) and self.base[axis] == 1
        )

    def fits_pool(self, axes: list[int]) -> bool:
        """Whether ONNX's pooling operators take the padding: known, and smaller than the window."""
        return all(isinstance(p, int) and 0 <= p < self.size[k] for k in axes for p in self.padding[k])


@lowers("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def reduce_window(ctx: Context, eqn: Any, x: Operand) -> Operand:
    window = _Window(eqn.params, x.rank)
    axes = [k for k in range(x.rank) if window.moves(k)]
    if not axes:
        return x
    if is_complex(x.dtype) and eqn.primitive != "reduce_window_sum":
        raise Refusal(f"{eqn.primitive} of complex numbers has no ONNX form here")
    pooled = None
    if dims.size(eqn.aval.shape) != 0 and all(b == 1 for b in window.base) and window.fits_pool(axes):
        pooled = _pool(ctx, eqn, x, window, axes)
    return _by_doubling(ctx, eqn, x, window) if pooled is None else pooled


def _pool(ctx: Context, eqn: Any, x: Operand, window: _Window, axes: list[int]) -> Operand | None:
    """MaxPool or AveragePool, when they have a kernel that is exact for the type."""
    name, dtype = eqn.primitive, np.dtype(x.dtype)
    single = is_float(dtype) and dtype != np.float64
    if name == "reduce_window_sum":
        if not single:
            return None
    elif not (is_float(dtype) or (is_integer(dtype) and dtype.itemsize <= 4)):
        return None
    source, shape = _channels_first(ctx, x, axes)
    value = ctx.value(source)
    exact = None
    if is_integer(dtype) and not (name == "reduce_window_max" and dtype.itemsize == 1):  # of which there is a kernel
        exact, value = _T.DOUBLE, ctx.build.cast(value, _T.DOUBLE)
    if name == "reduce_window_min":
        value = ctx.op("Neg", value)
    attributes = _attributes(window, axes)
    if name == "reduce_window_sum":
        value = ctx.op("AveragePool", value, count_include_pad=1, **attributes)
        value = ctx.op("Mul", value, ctx.const(math.prod(window.size[k] for k in axes), dtype))
    else:
        value = ctx.op("MaxPool", value, **attributes)
        if ctx.strict_nan and is_float(dtype):
            nan = ctx.build.cast(ctx.op("IsNaN", ctx.value(source), to=_T.BOOL), _T.FLOAT)
            nan = ctx.build.cast(ctx.op("MaxPool", nan, **attributes), _T.BOOL)
            value = ctx.op("Where", nan, ctx.const(np.nan, dtype), value, typed=(1, 2))
    if name == "reduce_window_min":
        value = ctx.op("Neg", value)
    if exact is not None:
        value = ctx.build.cast(value, stored_type(dtype))
    others = [k for k in range(x.rank) if k not in axes]
    out = tuple(eqn.aval.shape)
    spaced = tuple(out[k] for k in axes)
    result = ctx.result(value, typed((*shape[:2], *spaced), x.dtype))
    result = reshape_to(ctx, typed((*(out[k] for k in others), *spaced), x.dtype), result)
    order = [*others, *axes]
    return permute(ctx, result, tuple(order.index(k) for k in range(x.rank)))


def _channels_first(ctx: Context, x: Operand, axes: list[int]) -> tuple[Operand, Any]:
    """The array as (batch, channels, *spatial axes)."""
    others = [k for k in range(x.rank) if k not in axes]
    moved = permute(ctx, ctx.filled(x), (*others, *axes))
    lead = tuple(x.shape[k] for k in others)
    if len(lead) == 2:
        two = lead
    elif len(lead) < 2:
        two = (*(1,) * (2 - len(lead)), *lead)
    else:
        two = (lead[0], dims.size(lead[1:]))
    shape = (*two, *(x.shape[k] for k in axes))
    return reshape_to(ctx, typed(shape, x.dtype), moved), shape


def _attributes(window: _Window, axes: list[int]) -> dict[str, Any]:
    attributes: dict[str, Any] = {"kernel_shape": [window.size[k] for k in axes]}
    if any(window.strides[k] != 1 for k in axes):
        attributes["strides"] = [window.strides[k] for k in axes]
    pads = [window.padding[k][side] for side in (0, 1) for k in axes]
    if any(pads):
        attributes["pads"] = pads
    if any(window.dilation[k] != 1 for k in axes):
        attributes["dilations"] = [window.dilation[k] for k in axes]
    return attributes


def _by_doubling(ctx: Context, eqn: Any, x: Operand, window: _Window) -> Operand:
    """Any associative window reduction: windows of 1, 2, 4, ... elements combined along each axis."""
    combine: Any
    if eqn.primitive == "reduce_window_sum":
        combine, start = lax.add, np.zeros((), x.dtype)
    else:
        low = eqn.primitive == "reduce_window_max"
        combine = lax.max if low else lax.min
        if is_bool(x.dtype):
            start = np.array(not low)
        elif is_float(x.dtype):
            start = np.array(-np.inf if low else np.inf, x.dtype)
        else:
            info = np.iinfo(np.dtype(x.dtype))
            start = np.array(info.min if low else info.max, x.dtype)
    shape = tuple(eqn.aval.shape)

    def function(a: Any) -> Any:
        return windowed([a], [start], lambda p, q: [combine(p[0], q[0])], window, shape)[0]

    return ctx.trace_and_lower(function, x)[0]


def windowed(arrays: list[Any], initial: list[Any], combine: Any, window: _Window, shape: Any) -> list[Any]:
    """Reduces windows of several arrays at once with an associative function."""
    config = [(low, high, base - 1) for (low, high), base in zip(window.padding, window.base, strict=True)]
    if any(c != (0, 0, 0) for c in config):
        arrays = [lax.pad(a, i, config) for a, i in zip(arrays, initial, strict=True)]
    for axis, (size, dilation) in enumerate(zip(window.size, window.dilation, strict=True)):
        arrays = _slide(arrays, axis, size, dilation, combine)
    starts = [0] * len(shape)
    limits = [(n - 1) * s + 1 if n != 0 else 0 for n, s in zip(shape, window.strides, strict=True)]
    if dims.size(shape) == 0:
        return [lax.full(shape, 0, a.dtype) for a in arrays]
    return [lax.slice(a, starts, limits, window.strides) for a in arrays]


def _slide(arrays: list[Any], axis: int, size: int, dilation: int, combine: Any) -> list[Any]:
    """Windows of ``size`` elements, ``dilation`` apart, at every position of an axis."""
    if size == 1:
        return arrays
    total = arrays[0].shape[axis] - (size - 1) * dilation
    done, covered, power, width = None, 0, arrays, 1

    def cut(items: list[Any], start: Any, length: Any) -> list[Any]:
        return [lax.slice_in_dim(a, start, start + length, axis=axis) for a in items]

    while True:
        if size & width:
            part = cut(power, covered * dilation, total)
            done = part if done is None else combine(done, part)
            covered += width
        if width * 2 > size:
            return done  # type: ignore[return-value]
        length = power[0].shape[axis] - width * dilation
        power = combine(cut(power, 0, length), cut(power, width * dilation, length))
        width *= 2


@lowers("reduce_window")
def reduce_window_general(ctx: Context, eqn: Any, *operands: Operand) -> list[Operand]:
    """A window reduction with the program's own function."""
    many = len(operands) // 2
    window = _Window(eqn.params, operands[0].rank)
    body = eqn.params["jaxpr"]
    if not hasattr(body, "consts"):
        from jax.extend.core import ClosedJaxpr

        body = ClosedJaxpr(body, eqn.params.get("consts", ()))
    step = jaxpr_as_fun(body)
    for _ in range(operands[0].rank):
        step = jax.vmap(step)
    shape = tuple(eqn.aval.shape)

    def function(*values: Any) -> Any:
        arrays, initial = list(values[:many]), list(values[many:])
        results = windowed(arrays, initial, lambda p, q: list(step(*p, *q)), window, shape)
        return step(*(lax.broadcast(i, shape) for i in initial), *results)

    return ctx.trace_and_lower(function, *operands)


def _positions(window: _Window) -> list[tuple[int, ...]]:
    if math.prod(window.size) > _LARGEST_WINDOW:
        raise Refusal(f"the gradient of a pooling over more than {_LARGEST_WINDOW} elements")
    return list(itertools.product(*(range(n) for n in window.size)))


def _select(operand: Any, window: _Window, shape: Any, better: Any, filler: Any) -> tuple[Any, list[Any]]:
    """For every window the number of the position that wins (the first of equals), and the elements by position."""
    config = [(low, high, base - 1) for (low, high), base in zip(window.padding, window.base, strict=True)]
    padded = lax.pad(operand, filler, config)
    best: Any = None
    winner: Any = None
    pieces = []
    for number, position in enumerate(_positions(window)):
        start = [p * d for p, d in zip(position, window.dilation, strict=True)]
        stop = [s + (n - 1) * t + 1 for s, n, t in zip(start, shape, window.strides, strict=True)]
        piece = lax.slice(padded, start, stop, window.strides)
        pieces.append(piece)
        if best is None:
            best, winner = piece, lax.full(shape, 0, np.int32)
            continue
        wins = better(piece, best)
        best = lax.select(wins, piece, best)
        winner = lax.select(wins, lax.full(shape, number, np.int32), winner)
    return winner, pieces


def _extreme(low: bool, dtype: Any) -> Any:
    if is_float(dtype):
        return np.array(-np.inf if low else np.inf, dtype)
    info = np.iinfo(np.dtype(dtype))
    return np.array(info.min if low else info.max, dtype)


def _comparison(name: str, dtype: Any) -> tuple[Any, Any]:
    """The function with which a later element wins, and the value that never does."""
    if name.startswith("g"):
        return lax.gt, _extreme(True, dtype)
    if name.startswith("l"):
        return lax.lt, _extreme(False, dtype)
    raise Refusal(f"a selection by {name}")


def _scattered(values: list[Any], window: _Window, shape: Any, zero: Any) -> Any:
    """Adds up what each window sends to each of its positions: interior padding spreads windows by their stride."""
    total: Any = None
    full = [n + low + high for n, (low, high) in zip(shape, window.padding, strict=True)]
    for position, value in zip(_positions(window), values, strict=True):
        config = []
        for k, (p, d) in enumerate(zip(position, window.dilation, strict=True)):
            extent = (value.shape[k] - 1) * window.strides[k] + 1
            config.append((p * d, full[k] - p * d - extent, window.strides[k] - 1))
        spread = lax.pad(value, zero, config)
        total = spread if total is None else total + spread
    return lax.slice(
        total,
        [low for low, _ in window.padding],
        [low + n for n, (low, _) in zip(shape, window.padding, strict=True)],
    )


@lowers("select_and_scatter_add")
def select_and_scatter_add(ctx: Context, eqn: Any, source: Operand, operand: Operand) -> Operand:
    """The gradient of max pooling: each window sends its value to the position of its extremum."""
    window = _Window(eqn.params, operand.rank)
    better, filler = _comparison(eqn.params["select_prim"].name, operand.dtype)
    many = len(_positions(window))

    def function(s: Any, x: Any) -> Any:
        winner, _ = _select(x, window, s.shape, better, filler)
        zero = np.zeros((), s.dtype)
        sent = [lax.select(winner == k, s, lax.full_like(s, 0)) for k in range(many)]
        return _scattered(sent, window, x.shape, zero)

    return ctx.trace_and_lower(function, source, operand)[0]


@lowers("select_and_scatter")
def select_and_scatter(ctx: Context, eqn: Any, operand: Operand, source: Operand, initial: Operand) -> Operand:
    """The general form, where it selects by an order and scatters by adding."""
    select, scatter = (eqn.params[k] for k in ("select_jaxpr", "scatter_jaxpr"))
    if [e.primitive.name for e in scatter.eqns] not in (["add"], ["add_any"]) or len(select.eqns) != 1:
        raise Refusal("a select_and_scatter that does not select by an order and add")
    window = _Window(eqn.params, operand.rank)
    better, filler = _comparison(select.eqns[0].primitive.name, operand.dtype)
    many = len(_positions(window))

    def function(x: Any, s: Any, start: Any) -> Any:
        winner, _ = _select(x, window, s.shape, better, filler)
        sent = [lax.select(winner == k, s, lax.full_like(s, 0)) for k in range(many)]
        return _scattered(sent, window, x.shape, np.zeros((), s.dtype)) + start

    return ctx.trace_and_lower(function, operand, source, initial)[0]


@lowers("select_and_gather_add")
def select_and_gather_add(ctx: Context, eqn: Any, tangents: Operand, operand: Operand) -> Operand:
    """The derivative of max pooling: each window takes the tangent at the position of its extremum."""
    window = _Window(eqn.params, operand.rank)
    better, filler = _comparison(eqn.params["select_prim"].name, operand.dtype)
    shape = tuple(eqn.aval.shape)

    def function(t: Any, x: Any) -> Any:
        winner, _ = _select(x, window, shape, better, filler)
        _, pieces = _select(t, window, shape, lambda a, b: a != a, np.zeros((), t.dtype))
        total = lax.full(shape, 0, t.dtype)
        for number, piece in enumerate(pieces):
            total = lax.select(winner == number, piece, total)
        return total

    return ctx.trace_and_lower(function, tangents, operand)[0]
