"""Quantizers, and products of what they make, in the forms by which runtimes find their integer kernels.

ONNX Runtime fuses ``DequantizeLinear``, an operator and ``QuantizeLinear`` into one integer kernel, provided that the
scales of whole arrays are 0-d, activations uint8, weights int8 with a zero point of zero, and a bias is an operand of
the convolution, an int32 that is dequantized.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir

from .. import dims
from ..context import Context
from ..operand import Operand, stored_type
from ..registry import Refusal

_T = ir.DataType


def is_dequantized(value: ir.Value | None) -> bool:
    """Whether a value comes from integers."""
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def quantize(
    ctx: Context, eqn: Any, attributes: Mapping[str, Any], x: Operand, scale: Operand, zero_point: Operand
) -> Operand | None:
    """QuantizeLinear; the decomposition where a symmetric range leaves out the lowest number, which it would use."""
    if attributes["narrow"]:
        return None
    return _linear(ctx, eqn, "QuantizeLinear", attributes, x, scale, zero_point, str(attributes["dtype"]))


def dequantize(
    ctx: Context, eqn: Any, attributes: Mapping[str, Any], x: Operand, scale: Operand, zero_point: Operand
) -> Operand | None:
    """DequantizeLinear."""
    return _linear(ctx, eqn, "DequantizeLinear", attributes, x, scale, zero_point, str(attributes["dtype"]))


def _linear(
    ctx: Context,
    eqn: Any,
    op_type: str,
    attributes: Mapping[str, Any],
    x: Operand,
    scale: Operand,
    zero_point: Operand,
    dtype: str,
) -> Operand | None:
    if not (scale.is_const and zero_point.is_const):
        return None
    options: dict[str, Any] = {}
    if attributes["axis"] >= 0:
        options["axis"] = int(attributes["axis"])
    if attributes["group"]:
        if ctx.build.opset and ctx.build.opset < 21:
            raise Refusal(f"weights in groups need opset 21, the file is to have {ctx.build.opset}")
        options["block_size"] = int(attributes["group"])
    operands = [ctx.full(x), ctx.const(scale.const)]
    if dtype != "int32":  # of which there is no other zero point than zero
        operands.append(ctx.const(np.asarray(zero_point.const).astype(jnp.dtype(dtype))))
    with _unlabelled(ctx):
        value = ctx.op(op_type, *operands, to=stored_type(eqn.aval.dtype), typed=(), **options)
    return ctx.result(value, eqn.aval)


@contextlib.contextmanager
def _unlabelled(ctx: Context) -> Iterator[None]:
    """Nodes made in the body have short names and no line: of a small network they would be a good part of the file."""
    build = ctx.build
    label, source = build.label, build.source
    build.label = build.source = ""
    try:
        yield
    finally:
        build.label, build.source = label, source


def dynamic_dot(
    ctx: Context, eqn: Any, attributes: Mapping[str, Any], x: Operand, w: Operand, scale: Operand
) -> Operand | None:
    """What ONNX Runtime fuses into DynamicQuantizeMatMul, with a bias that follows."""
    if not (w.is_const and scale.is_const) or any(isinstance(d, int) and d == 0 for d in (*x.shape, *w.shape)):
        return None
    numbers, step, zero = ctx.outputs("DynamicQuantizeLinear", ctx.full(x), n=3, to=(_T.UINT8, _T.FLOAT, _T.UINT8))
    matrix_zero = ctx.const(np.zeros(np.shape(scale.const), np.int8))
    product = ctx.op("MatMulInteger", numbers, ctx.full(w), zero, matrix_zero, to=_T.INT32, typed=())
    both = ctx.op("Mul", step, ctx.const(scale.const))
    value = ctx.op("Mul", ctx.build.cast(product, _T.FLOAT), both)
    return ctx.result(value, eqn.aval)


FORMS = {"quantize": quantize, "dequantize": dequantize, "dynamic_dot": dynamic_dot}
"""Last part of a composite's name to its form; these take integers as operands."""


def biased_convolution(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand | None:
    """A convolution of integers that is used once, plus a dequantized number for each channel: the bias of a Conv."""
    for k, (a, b) in enumerate(((x, y), (y, x))):
        node = None if a.value is None else a.value.producer()
        if node is None or node.op_type != "Conv" or not a.is_full or len(ctx.uses.get(eqn.invars[k], ())) != 1:
            continue
        bias = _vector(b)
        if len(node.inputs) == 2 and bias is not None and is_dequantized(node.inputs[1]):
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            value = ctx.op("Conv", node.inputs[0], node.inputs[1], bias, **attributes)
            return ctx.result(value, eqn.aval)
    return None


def _vector(b: Operand) -> ir.Value | None:
    """The dequantized vector that an operand lays along the channels (the second axis), or None."""
    value = b.value
    if value is None or dims.size(b.held) != b.padded[1]:
        return None
    node = value.producer()
    if node is not None and node.op_type in ("Reshape", "Unsqueeze"):
        value = node.inputs[0]
    if not is_dequantized(value) or value is None or value.shape is None:
        return None
    return value if len(value.shape) == 1 else None


def pooled_mean(ctx: Context, eqn: Any, x: Operand, axes: tuple[int, ...]) -> Operand | None:
    """The mean of integers over all axes behind the second: GlobalAveragePool, of which there is an integer kernel."""
    if not is_dequantized(x.value) or not x.is_full or x.rank < 3 or sorted(axes) != list(range(2, x.rank)):
        return None
    value = ctx.op("GlobalAveragePool", ctx.value(x))
    value = ctx.op("Squeeze", value, ctx.ints(*sorted(axes)), typed=(0,))
    return ctx.result(value, eqn.aval)
