"""Operators of int64 that ONNX Runtime's kernels compute with less than 64 bits, written with those that are exact.

Found by comparing ONNX Runtime 1.31 with JAX over the whole range: ``Max``, ``Min``, ``Clip``, ``ReduceMax`` and
``ReduceMin`` of int64 compare low words where the processor has wide vectors, ``Sign`` rounds, and ``ReduceSum`` and
``ReduceProd`` of integers go through float64 and saturate. Comparisons, ``Where``, ``MatMul`` and arithmetic are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from .builder import Builder

_T = ir.DataType

_WORD = 1 << 32

#: Entry of the kernel table for int64 operands that are known to fit in 32 bits, for which the kernels are right.
SMALL = "small int64"


def _larger(build: Builder, x: ir.Value, y: ir.Value) -> ir.Value:
    return build.op("Where", build.op("Greater", x, y, to=_T.BOOL), x, y, typed=(1, 2))


def _smaller(build: Builder, x: ir.Value, y: ir.Value) -> ir.Value:
    return build.op("Where", build.op("Less", x, y, to=_T.BOOL), x, y, typed=(1, 2))


def _clip(build: Builder, x: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    return _smaller(build, _larger(build, x, low), high)


def _sign(build: Builder, x: ir.Value) -> ir.Value:
    zero = build.const(np.int64(0))
    above, below = (build.op(op_type, x, zero, to=_T.BOOL) for op_type in ("Greater", "Less"))
    return build.op("Sub", build.cast(above, _T.INT64), build.cast(below, _T.INT64))


def _extremum(op_type: str) -> Callable[..., ir.Value]:
    """The extremum of the high words, then of the low words beside it; both fit in int32."""
    worst = np.iinfo(np.int32).min if op_type == "ReduceMax" else np.iinfo(np.int32).max

    def form(build: Builder, x: ir.Value, axes: ir.Value | None = None, **attributes: Any) -> ir.Value:
        low = build.op("BitwiseAnd", x, build.const(np.int64(_WORD - 1)))
        high = build.cast(build.op("Div", build.op("Sub", x, low), build.const(np.int64(_WORD))), _T.INT32)
        # The order of unsigned low words is that of signed numbers after a shift by half the range.
        low = build.cast(build.op("Sub", low, build.const(np.int64(_WORD // 2))), _T.INT32)
        inputs = () if axes is None else (axes,)
        best = build.op(op_type, high, *inputs, typed=(0,), **attributes)
        kept = {**attributes, "keepdims": 1}
        beside = build.op("Equal", high, build.op(op_type, high, *inputs, typed=(0,), **kept), to=_T.BOOL)
        candidates = build.op("Where", beside, low, build.const(np.int32(worst)), typed=(1, 2))
        rest = build.cast(build.op(op_type, candidates, *inputs, typed=(0,), **attributes), _T.INT64)
        rest = build.op("Add", rest, build.const(np.int64(_WORD // 2)))
        return build.op("Add", build.op("Mul", build.cast(best, _T.INT64), build.const(np.int64(_WORD))), rest)

    return form


#: Operator -> ``form(build, *inputs, **attributes)``.
FORMS: Mapping[str, Callable[..., ir.Value]] = {
    "Max": _larger,
    "Min": _smaller,
    "Clip": _clip,
    "Sign": _sign,
    "ReduceMax": _extremum("ReduceMax"),
    "ReduceMin": _extremum("ReduceMin"),
}


def kernel_for(value: ir.Value) -> str | None:
    """`SMALL` for what was just converted from a narrower type, so that its kernels are right; else None."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type == "Cast" else None
    narrow = source is not None and source.dtype in (_T.INT32, _T.INT16, _T.UINT16, _T.INT8, _T.UINT8, _T.BOOL)
    return SMALL if narrow else None


def emit(build: Builder, op_type: str, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> ir.Value | None:
    """The exact form of an operator on int64, or None where the kernel itself is exact."""
    form = FORMS.get(op_type)
    return None if form is None else form(build, *inputs, **attributes)
