"""Composites that ONNX has as one operator.

A composite is looked up by the last part of its name (``xlapass.gelu`` and ``mylib.gelu`` alike), with its attributes
by name. Where the operator, the opset or the runtime's kernel does not fit, the decomposition is lowered instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx_ir as ir

from ....core.composites import decode_attributes
from .. import kernels
from ..context import Context
from ..operand import Operand, is_bool, is_float, stored_type
from . import quantize
from .attention import attention
from .elementwise import emit

_T = ir.DataType

#: ``form(ctx, eqn, attributes, *operands)`` gives the results, or None when the operator does not fit.
Form = Callable[..., Any]


def whole(ctx: Context, eqn: Any, operands: tuple[Operand, ...]) -> list[Any] | None:
    """The results of the ONNX operator for a composite, or None when its decomposition is to be used."""
    name = str(eqn.params["name"]).rsplit(".", 1)[-1]
    form = FORMS.get(name) if all(is_float(x.dtype) or is_bool(x.dtype) for x in operands) else None
    form = quantize.FORMS.get(name, form)
    if form is None:
        return None
    result = form(ctx, eqn, decode_attributes(eqn.params["attributes"]), *operands)
    if result is None:
        return None
    return result if isinstance(result, list) else [result]


def fits(ctx: Context, op_type: str, x: Operand) -> bool:
    """Whether the opset has an operator and the runtime a kernel for the type (directly or through float32)."""
    return ctx.build.has(op_type) and kernels.carrier(op_type, stored_type(x.dtype)) is not None


def unary(op_type: str, **fixed: Any) -> Form:
    """A composite of one operand that is an operator without further conditions."""

    def form(ctx: Context, eqn: Any, attributes: Mapping[str, Any], x: Operand, *rest: Operand) -> Operand | None:
        if rest or not fits(ctx, op_type, x) or set(attributes) - set(fixed):
            return None
        return emit(ctx, eqn, op_type, x, **fixed)

    return form


def gelu(ctx: Context, eqn: Any, attributes: Mapping[str, Any], x: Operand) -> Operand | None:
    """``approximate``: by tanh; else exact."""
    if not fits(ctx, "Gelu", x):
        return None
    options: dict[str, Any] = {"approximate": "tanh"} if attributes.get("approximate", True) else {}
    return emit(ctx, eqn, "Gelu", x, **options)


def silu(ctx: Context, eqn: Any, attributes: Mapping[str, Any], x: Operand) -> Operand:
    """Two operators; Swish itself is younger than most runtimes."""
    value = ctx.value(x)
    return ctx.result(ctx.op("Mul", value, ctx.op("Sigmoid", value)), eqn.aval, x.held)


def softmax_form(op_type: str) -> Form:
    """``axis``: the axis, or several of which only one may count."""

    def form(ctx: Context, eqn: Any, attributes: Mapping[str, Any], x: Operand, *rest: Operand) -> Operand | None:
        axis = attributes.get("axis", -1)
        if isinstance(axis, tuple):
            if len(axis) != 1:
                return None
            (axis,) = axis
        if rest or axis is None or not fits(ctx, op_type, x):
            return None
        return ctx.result(ctx.op(op_type, ctx.full(x), axis=int(axis) % x.rank), eqn.aval)

    return form


def with_slope(op_type: str, name: str, default: float) -> Form:
    """A composite of one operand with one number, static or a second operand of known value."""

    def form(ctx: Context, eqn: Any, attributes: Mapping[str, Any], x: Operand, *rest: Operand) -> Operand | None:
        alpha = attributes.get(name, attributes.get("alpha", default))
        if rest:
            alpha = rest[0].scalar
        if len(rest) > 1 or alpha is None or not fits(ctx, op_type, x):
            return None
        return emit(ctx, eqn, op_type, x, alpha=float(alpha))

    return form


def normalization(op_type: str) -> Form:
    """LayerNormalization or RMSNormalization over the trailing axes: ``x[, scale[, bias]]``, ``epsilon``, ``axis``.

    ``axis`` is the normalized axis, or all of them; scale and bias have the shape of those axes. The
    operator normalizes all axes from its ``axis`` on.
    """

    def form(ctx: Context, eqn: Any, attributes: Mapping[str, Any], x: Operand, *rest: Operand) -> Operand | None:
        first = _first_axis(attributes.get("axis", -1), x.rank) if x.shape == eqn.aval.shape else None
        if first is None or len(rest) > 2 or not fits(ctx, op_type, x):
            return None
        dtype = functools.reduce(jnp.promote_types, (r.dtype for r in rest), x.dtype)
        x, rest = ctx.convert(x, dtype), tuple(ctx.convert(r, dtype) for r in rest)
        shape = x.shape[first:]
        bias = rest[1:] if op_type == "RMSNormalization" else ()  # which has none
        rest = rest[: len(rest) - len(bias)]
        scales = [_of_shape(ctx, r, shape) for r in rest]
        if any(s is None for s in scales):
            return None
        if not scales:
            scales = [ctx.full(ctx.convert(_ones(ctx, shape), x.dtype))]
        epsilon = float(attributes.get("epsilon", 1e-5))
        value = ctx.op(op_type, ctx.full(x), *scales, axis=first, epsilon=epsilon)
        for b in bias:
            value = ctx.op("Add", value, ctx.value(b))
        return ctx.convert(ctx.result(value, jax.core.ShapedArray(x.shape, dtype)), eqn.aval.dtype)

    return form


def _first_axis(axis: Any, rank: int) -> int | None:
    if rank == 0:
        return None
    axes = sorted(int(a) % rank for a in ((axis,) if isinstance(axis, int | np.integer) else axis))
    return axes[0] if axes == list(range(axes[0], rank)) else None


def _ones(ctx: Context, shape: Any) -> Operand:
    from ..operand import constant

    return constant(np.ones((), np.float32), shape)


def _of_shape(ctx: Context, x: Operand, shape: Any) -> ir.Value | None:
    if x.rank > len(shape) and all(d == 1 for d in x.shape[: x.rank - len(shape)]):
        from .shape import reshape_to, typed

        x = reshape_to(ctx, typed(x.shape[x.rank - len(shape) :], x.dtype), x)
    return ctx.full(x) if x.shape == tuple(shape) else None


#: Last part of a composite's name -> its ONNX form.
FORMS: dict[str, Form] = {
    "gelu": gelu,
    "silu": silu,
    "swish": silu,
    "softmax": softmax_form("Softmax"),
    "log_softmax": softmax_form("LogSoftmax"),
    "relu": unary("Relu"),
    "sigmoid": unary("Sigmoid"),
    "softplus": unary("Softplus"),
    "soft_sign": unary("Softsign"),
    "softsign": unary("Softsign"),
    "mish": unary("Mish"),
    "hard_swish": unary("HardSwish"),
    "hard_silu": unary("HardSwish"),
    "hard_sigmoid": unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    "selu": unary("Selu"),
    "elu": with_slope("Elu", "alpha", 1.0),
    "celu": with_slope("Celu", "alpha", 1.0),
    "leaky_relu": with_slope("LeakyRelu", "negative_slope", 0.01),
    "layer_norm": normalization("LayerNormalization"),
    "rms_norm": normalization("RMSNormalization"),
    "attention": attention,
    "dot_product_attention": attention,
}
