"""How each primitive treats the rows of a batch: one small function per family, which refuses what mixes them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

BATCH_SIZE = 1_000_003
"""A prime that no size of a model is a multiple of: what it divides has rows."""

ANY = 0
"""In place of `Rows.outer`: all elements along the axis are equal, so that any order of the rows fits."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where a value has the rows of the batch: along one axis, perhaps merged with others.

    Attributes:
      axis: the axis; its size is ``outer * batch * inner``.
      outer: how often all the rows repeat along the axis, each time with other data; or `ANY`.
      inner: how many elements of one row stand together along the axis.
    """

    axis: int
    outer: int = 1
    inner: int = 1


Where = Rows | None
"""None for a value that depends on neither the rows nor their number."""

COUNT = Rows(-1)
"""Stands for numbers that depend on how many rows there are, such as the bounds to which JAX clamps an index."""


class Dependent(Exception):
    """Rows depend on each other, or may do."""


def axes_with_rows(aval: Any) -> list[int]:
    return [axis for axis, size in enumerate(getattr(aval, "shape", ())) if size and size % BATCH_SIZE == 0]


def fits(a: Rows, b: Rows) -> bool:
    return a.axis == b.axis and (ANY in (a.outer, b.outer) or a == b)


def common(operands: Sequence[Where]) -> Where:
    """The place of the rows in operands that are combined element by element."""
    found: Where = None
    for rows in operands:
        if rows is None:
            continue
        if found is not None and not fits(found, rows):
            raise Dependent("it combines rows that stand in a different order")
        if found is None or found.outer == ANY:
            found = rows
    return found


def elementwise(eqn: Any, operands: list[Where]) -> list[Where]:
    return [common(operands)] * len(eqn.outvars)


def _each_by_itself(eqn: Any, operands: list[Where]) -> list[Where]:
    return list(operands)


def _size(eqn: Any, operand: int, rows: Rows) -> int:
    return int(eqn.invars[operand].aval.shape[rows.axis])


def _only(operands: Sequence[Where], position: int = 0) -> Rows:
    """The rows of one operand, where no other may have any."""
    rows = operands[position]
    if rows is None or any(other is not None for index, other in enumerate(operands) if index != position):
        raise Dependent("it picks by what is in the rows")
    return rows


def _broadcast(eqn: Any, operands: list[Where]) -> list[Where]:
    shape, dimensions = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    rows = operands[0]
    if rows is not None:
        return [dataclasses.replace(rows, axis=dimensions[rows.axis])]
    return [_repeated(shape)]


def _repeated(shape: Sequence[int]) -> Rows:
    axes = [axis for axis, size in enumerate(shape) if size and size % BATCH_SIZE == 0]
    if len(axes) != 1:
        raise Dependent("it relates rows to each other")
    return Rows(axes[0], 1 if shape[axes[0]] == BATCH_SIZE else ANY)


def _iota(eqn: Any, operands: list[Where]) -> list[Where]:
    rows = _repeated(eqn.params["shape"])
    if rows.axis == eqn.params["dimension"]:
        raise Dependent("it numbers the rows")
    return [rows]


def _reshape(eqn: Any, operands: list[Where]) -> list[Where]:
    rows = _only(operands)
    old, new = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    axes = axes_with_rows(eqn.outvars[0].aval)
    if len(axes) != 1:
        raise Dependent("it relates rows to each other")
    (axis,) = axes
    if rows.outer == ANY:
        if math.prod(old[: rows.axis]) != math.prod(new[:axis]) or old[rows.axis] != new[axis]:
            raise Dependent("it moves rows into each other")
        return [Rows(axis, ANY)]
    before = math.prod(old[: rows.axis]) * rows.outer
    outer, remainder = divmod(before, math.prod(new[:axis]))
    inner, rest = divmod(new[axis], BATCH_SIZE * max(outer, 1))
    if remainder or rest or not outer:
        raise Dependent("it moves rows into each other")
    return [Rows(axis, outer, inner)]


def _transpose(eqn: Any, operands: list[Where]) -> list[Where]:
    rows = _only(operands)
    return [dataclasses.replace(rows, axis=eqn.params["permutation"].index(rows.axis))]


def _without(rows: Rows, axes: Sequence[int]) -> Rows:
    if rows.axis in axes:
        raise Dependent("it works across the rows")
    return dataclasses.replace(rows, axis=rows.axis - sum(axis < rows.axis for axis in axes))


def _dropping(parameter: str) -> Callable[[Any, list[Where]], list[Where]]:
    """Reductions, and whatever else loses the axes of a parameter; initial values have no rows."""

    def rule(eqn: Any, operands: list[Where]) -> list[Where]:
        rows = common(operands)
        assert rows is not None
        return [_without(rows, eqn.params[parameter])] * len(eqn.outvars)

    return rule


def _along(parameter: str) -> Callable[[Any, list[Where]], list[Where]]:
    """Primitives that work along one axis, on operands of one shape along the others."""

    def rule(eqn: Any, operands: list[Where]) -> list[Where]:
        rows = common(operands)
        assert rows is not None
        _without(rows, [eqn.params[parameter]])
        return [rows] * len(eqn.outvars)

    return rule


def _reverse(eqn: Any, operands: list[Where]) -> list[Where]:
    rows = _only(operands)
    _without(rows, eqn.params["dimensions"])
    return [rows]


def _pad(eqn: Any, operands: list[Where]) -> list[Where]:
    rows = _only(operands)
    if tuple(eqn.params["padding_config"][rows.axis]) != (0, 0, 0):
        raise Dependent("it changes the number of rows")
    return [rows]


def _slice(eqn: Any, operands: list[Where]) -> list[Where]:
    rows, params = _only(operands), eqn.params
    strides = params["strides"] or (1,) * len(params["start_indices"])
    bounds = params["start_indices"][rows.axis], params["limit_indices"][rows.axis], strides[rows.axis]
    if bounds != (0, _size(eqn, 0, rows), 1):
        raise Dependent("it takes some of the rows")
    return [rows]


def _dynamic_slice(eqn: Any, operands: list[Where]) -> list[Where]:
    rows = _only(operands)
    if eqn.params["slice_sizes"][rows.axis] != _size(eqn, 0, rows):
        raise Dependent("it takes some of the rows")
    return [rows]


def _dynamic_update_slice(eqn: Any, operands: list[Where]) -> list[Where]:
    if any(rows is not None for rows in operands[2:]):
        raise Dependent("it picks by what is in the rows")
    rows = common(operands[:2])
    if rows is None or None in operands[:2] or _size(eqn, 1, rows) != _size(eqn, 0, rows):
        raise Dependent("it changes some of the rows")
    return [rows]


def _convolution(eqn: Any, operands: list[Where]) -> list[Where]:
    numbers, rows = eqn.params["dimension_numbers"], _only(operands)
    if rows.axis != numbers.lhs_spec[0] or eqn.params["batch_group_count"] != 1:
        raise Dependent("it works across the rows")
    return [dataclasses.replace(rows, axis=numbers.out_spec[0])]


def _dot(eqn: Any, operands: list[Where]) -> list[Where]:
    contract, batch = eqn.params["dimension_numbers"]
    places: list[Where] = []
    for side, rows in enumerate(operands):
        if rows is None:
            continue
        if rows.axis in contract[side]:
            raise Dependent("it sums over the rows")
        if rows.axis in batch[side]:
            axis = list(batch[side]).index(rows.axis)
        else:
            free = _free_axes(eqn, side)
            axis = len(batch[0]) + free.index(rows.axis) + (len(_free_axes(eqn, 0)) if side else 0)
        places.append(dataclasses.replace(rows, axis=axis))
    return [common(places)]


def _free_axes(eqn: Any, side: int) -> list[int]:
    contract, batch = eqn.params["dimension_numbers"]
    used = {*contract[side], *batch[side]}
    return [axis for axis in range(len(eqn.invars[side].aval.shape)) if axis not in used]


def _window(eqn: Any, operands: list[Where]) -> list[Where]:
    rows, params = common(operands), eqn.params
    assert rows is not None
    axis = rows.axis
    dilations = [params.get(name) or (1,) * (axis + 1) for name in ("base_dilation", "window_dilation")]
    sizes = (params["window_dimensions"][axis], params["window_strides"][axis], *(one[axis] for one in dilations))
    if sizes != (1, 1, 1, 1) or tuple(params["padding"][axis]) != (0, 0):
        raise Dependent("its windows hold several rows")
    return [rows] * len(eqn.outvars)


def _gather(eqn: Any, operands: list[Where]) -> list[Where]:
    numbers, (rows, indices) = eqn.params["dimension_numbers"], operands
    ndim = len(eqn.outvars[0].aval.shape)
    batch = [axis for axis in range(ndim) if axis not in numbers.offset_dims]
    picked = None if indices is None else dataclasses.replace(indices, axis=batch[_index_axis(eqn, indices)])
    if rows is None:
        return [picked]
    if rows.axis in numbers.operand_batching_dims:
        paired = numbers.start_indices_batching_dims[numbers.operand_batching_dims.index(rows.axis)]
        return [common([dataclasses.replace(rows, axis=batch[paired]), picked])]
    if indices is not None or eqn.params["slice_sizes"][rows.axis] != _size(eqn, 0, rows):
        raise Dependent("it picks among the rows")
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(len(eqn.invars[0].aval.shape)) if axis not in dropped]
    return [dataclasses.replace(rows, axis=numbers.offset_dims[kept.index(rows.axis)])]


def _index_axis(eqn: Any, indices: Rows) -> int:
    if indices.axis == len(eqn.invars[1].aval.shape) - 1:
        raise Dependent("an index is made of several rows")
    return indices.axis


def _scatter(eqn: Any, operands: list[Where]) -> list[Where]:
    numbers, (rows, indices, updates) = eqn.params["dimension_numbers"], operands
    if rows is None or updates is None:
        raise Dependent("it writes rows into one place")
    ndim = len(eqn.invars[2].aval.shape)
    if rows.axis in numbers.operand_batching_dims:
        paired = numbers.scatter_indices_batching_dims[numbers.operand_batching_dims.index(rows.axis)]
        scatter_axes = [axis for axis in range(ndim) if axis not in numbers.update_window_dims]
        places = [rows, dataclasses.replace(updates, axis=rows.axis)]
        if indices is not None:
            places.append(dataclasses.replace(indices, axis=rows.axis))
        if updates.axis != scatter_axes[paired] or (indices is not None and indices.axis != paired):
            raise Dependent("it writes into other rows")
        return [common(places)]
    dropped = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(len(eqn.invars[0].aval.shape)) if axis not in dropped]
    if indices is not None or rows.axis in dropped:
        raise Dependent("it writes into other rows")
    window = numbers.update_window_dims[kept.index(rows.axis)]
    if updates.axis != window or _size(eqn, 2, updates) != _size(eqn, 0, rows):
        raise Dependent("it changes some of the rows")
    return [common([rows, dataclasses.replace(updates, axis=rows.axis)])]


def _matrices(eqn: Any, operands: list[Where]) -> list[Where]:
    """Linear algebra on the last two axes."""
    rows = common(operands)
    assert rows is not None
    if rows.axis >= min(len(var.aval.shape) for var in eqn.invars) - 2:
        raise Dependent("it works across the rows")
    return [rows] * len(eqn.outvars)


def _fourier(eqn: Any, operands: list[Where]) -> list[Where]:
    rows = _only(operands)
    if rows.axis >= len(eqn.invars[0].aval.shape) - len(eqn.params["fft_lengths"]):
        raise Dependent("it works across the rows")
    return [rows]


def _bitcast(eqn: Any, operands: list[Where]) -> list[Where]:
    rows = _only(operands)
    if rows.axis >= min(len(eqn.invars[0].aval.shape), len(eqn.outvars[0].aval.shape)):
        raise Dependent("it works across the rows")
    return [rows]


def _stack(eqn: Any, operands: list[Where]) -> list[Where]:
    rows = common(operands)
    assert rows is not None
    return [dataclasses.replace(rows, axis=rows.axis + (rows.axis >= eqn.params["axis"]))]


def _concatenate(eqn: Any, operands: list[Where]) -> list[Where]:
    rows = common(operands)
    if rows is None:
        raise Dependent("it changes the number of rows")
    _without(rows, [eqn.params["dimension"]])
    return [rows]


_Rule = Callable[[Any, list[Where]], list[Where]]

RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor"),
        _dropping("axes"),
    ),
    **dict.fromkeys(("argmax", "argmin"), _dropping("axes")),
    "reduce": _dropping("dimensions"),
    "squeeze": _dropping("dimensions"),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "split", "top_k"), _along("axis")),
    "sort": _along("dimension"),
    "concatenate": _concatenate,
    "stack": _stack,
    "broadcast_in_dim": _broadcast,
    "iota": _iota,
    "reshape": _reshape,
    "transpose": _transpose,
    "rev": _reverse,
    "pad": _pad,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    **dict.fromkeys(("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min"), _window),
    "gather": _gather,
    **dict.fromkeys(("scatter", "scatter-add", "scatter-mul", "scatter-min", "scatter-max"), _scatter),
    **dict.fromkeys(("cholesky", "triangular_solve", "qr", "lu", "svd", "eigh"), _matrices),
    "fft": _fourier,
    "bitcast_convert_type": _bitcast,
    **dict.fromkeys(("optimization_barrier", "sharding_constraint"), _each_by_itself),
}
