"""Fourier transforms with DFT, one axis at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dims
from ..context import Context
from ..operand import Operand, is_complex
from ..registry import lowers
from .shape import typed


@lowers("fft")
def fft(ctx: Context, eqn: Any, x: Operand) -> Operand:
    kind = str(eqn.params["fft_type"]).rsplit(".", 1)[-1].upper()
    kind = {"0": "FFT", "1": "IFFT", "2": "RFFT", "3": "IRFFT"}.get(kind, kind)
    lengths = tuple(eqn.params["fft_lengths"])
    rank = x.rank
    axes = list(range(rank - len(lengths), rank))
    if not axes or dims.size(eqn.aval.shape) == 0:
        return (
            x
            if tuple(eqn.aval.shape) == x.shape and x.dtype == eqn.aval.dtype
            else ctx.zeros(tuple(eqn.aval.shape), eqn.aval.dtype)
        )
    value = ctx.full(x)
    shape = x.shape
    # The operator wants a batch axis in front.
    front = 1
    value = ctx.reshape_value(
        value, (*shape, *((2,) if is_complex(x.dtype) else ())), (1, *shape, 2 if is_complex(x.dtype) else 1)
    )
    if kind == "RFFT":
        value = _dft(ctx, value, axes[-1] + front, onesided=1)
        axes = axes[:-1]
    last = axes.pop() if kind == "IRFFT" else None
    for axis in axes:
        value = _dft(ctx, value, axis + front, inverse=int(kind.startswith("I")))
    if last is not None:
        value = _inverse_real(ctx, value, last + front, lengths[-1], shape[last])
    out = tuple(eqn.aval.shape)
    inner = (2,) if is_complex(eqn.aval.dtype) else ()
    value = ctx.reshape_value(value, (1, *out, 2 if inner else 1), (*out, *inner))
    return ctx.result(value, typed(out, eqn.aval.dtype))


def _dft(ctx: Context, value: Any, axis: int, **attributes: int) -> Any:
    options = {k: v for k, v in attributes.items() if v}
    return ctx.op("DFT", value, None, ctx.const(np.int64(axis)), typed=(0,), **options)


def _inverse_real(ctx: Context, value: Any, axis: int, length: Any, given: Any) -> Any:
    """The spectrum completed by the conjugates of its mirrored inner part, transformed back; its real part."""
    wanted = length // 2 + 1
    if wanted != given:
        value = ctx.op("Slice", value, ctx.ints(0), ctx.shape((wanted,)), ctx.ints(axis), typed=(0,))
    mirrored = length - wanted
    parts = [value]
    if mirrored != 0:
        tail = ctx.op("Slice", value, ctx.shape((mirrored,)), ctx.ints(0), ctx.ints(axis), ctx.ints(-1), typed=(0,))
        parts.append(ctx.op("Mul", tail, ctx.const(np.array([1, -1]), value.dtype.numpy())))
    full = parts[0] if len(parts) == 1 else ctx.op("Concat", *parts, axis=axis)
    full = _dft(ctx, full, axis, inverse=1)
    return ctx.op("Slice", full, ctx.ints(0), ctx.ints(1), ctx.ints(-1), typed=(0,))
