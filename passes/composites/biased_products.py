"""Convolutions and dense layers with their bias and their activation, for kernels that do all three in one go.

No backend here has such an operation, and each of them recognises what it can fuse by itself; so these composites are
only looked for where a kernel for them exists, or where they are asked for by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...core.composites import Composite, attributes_of
from ...core.node import Node, Value
from ...core.patterns import Either, Op, Pattern, op, through_no_ops, var
from ...core.rewrite import Match, Rule
from . import exponential_units, gelu, hard_swish, silu, softplus
from .spelling import Through, composite_of, declines, is_spreading, outlined

_OPERANDS = ("x", "kernel", "bias")

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "none": lambda y: y,
    "relu": lambda y: jnp.maximum(y, 0),
    "tanh": jnp.tanh,
    "sigmoid": lax.logistic,
    "gelu": gelu.gelu,
    "quick_gelu": gelu.quick_gelu,
    "silu": silu.silu,
    "relu6": hard_swish.relu6,
    "hard_sigmoid": hard_swish.hard_sigmoid,
    "hard_swish": hard_swish.hard_swish,
    "softplus": softplus.softplus,
    "mish": softplus.mish,
    "elu": exponential_units.elu,
    "selu": exponential_units.selu,
    "celu": exponential_units.celu,
    "leaky_relu": exponential_units.leaky_relu,
}
"""By the name that the attribute ``activation`` has; those with attributes of their own take them by name."""

_PLAIN: dict[str, Callable[[Pattern], Pattern]] = {
    "relu": lambda y: op.max(y, 0.0),
    "tanh": lambda y: op.tanh(y),
    "sigmoid": lambda y: op.logistic(y),
}
"""Activations that are one primitive; the others are composites by then."""


def conv_bias_act(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    lhs_dilation: tuple[int, ...],
    rhs_dilation: tuple[int, ...],
    groups: int,
    layout: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    activation: str = "none",
    **attributes: Any,
) -> jax.Array:
    """``activation(convolution(x, kernel) + bias)``; floats.

    Args:
      x: image ``[batch, features, *spatial]``, its dimensions in the order of ``layout[0]``.
      kernel: ``[out features, features / groups, *window]``, in the order of ``layout[1]``.
      bias: ``[out features]``, or of the result's rank and the same along all other dimensions.
      strides, padding, lhs_dilation, rhs_dilation: as of `jax.lax.conv_general_dilated`.
      groups: of features.
      layout: for image, kernel and result, where batch (or out features), features and the spatial dimensions are.
      activation: a name in `ACTIVATIONS`.
      **attributes: those of the activation.
    """
    numbers = lax.ConvDimensionNumbers(*layout)
    y = lax.conv_general_dilated(x, kernel, strides, padding, lhs_dilation, rhs_dilation, numbers, groups)
    activated: jax.Array = ACTIVATIONS[activation](y + _spread(bias, y.ndim, layout[2][1]), **attributes)
    return activated


def linear_bias_act(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    transposed: bool = False,
    activation: str = "none",
    **attributes: Any,
) -> jax.Array:
    """``activation(x @ kernel + bias)``; floats.

    Args:
      x: ``[..., features]``.
      kernel: ``[features, out features]``, or the other way round where ``transposed``.
      bias: ``[out features]``, or of the result's rank and the same along all other dimensions.
      activation: a name in `ACTIVATIONS`.
      **attributes: those of the activation.
    """
    y = x @ (kernel.T if transposed else kernel)
    activated: jax.Array = ACTIVATIONS[activation](y + _spread(bias, y.ndim, y.ndim - 1), **attributes)
    return activated


def _spread(bias: jax.Array, rank: int, axis: int) -> jax.Array:
    """A vector along ``axis`` of an array of that rank."""
    if bias.ndim != 1:
        return bias
    return bias.reshape(tuple(-1 if i == axis else 1 for i in range(rank)))


# -- what they mean -------------------------------------------------------------------------------------------------


def _convolution(match: Match) -> dict[str, Any] | str:
    node: Node = match["product"]
    params, numbers = node.params, node.params["dimension_numbers"]
    if params["batch_group_count"] != 1:
        return "it has batch groups"
    reason = _why_no_bias(match, node, numbers.out_spec[1])
    if reason is not None:
        return reason
    return {
        "strides": tuple(params["window_strides"]),
        "padding": tuple(map(tuple, params["padding"])),
        "lhs_dilation": tuple(params["lhs_dilation"]),
        "rhs_dilation": tuple(params["rhs_dilation"]),
        "groups": params["feature_group_count"],
        "layout": (tuple(numbers.lhs_spec), tuple(numbers.rhs_spec), tuple(numbers.out_spec)),
        "activation": "none",
    }


def _linear(match: Match) -> dict[str, Any] | str:
    node: Node = match["product"]
    (left, right), batch = node.params["dimension_numbers"]
    x, kernel = node.inputs
    if batch != ((), ()) or tuple(left) != (len(x.shape) - 1,) or len(kernel.shape) != 2:
        return "it is not the product of the last dimension with a matrix"
    reason = _why_no_bias(match, node, len(node.outputs[0].shape) - 1)
    return reason if reason is not None else {"transposed": tuple(right) == (1,), "activation": "none"}


def _why_no_bias(match: Match, product: Node, axis: int) -> str | None:
    """Why what is added is no bias along ``axis`` of the product."""
    (output,), bias = product.outputs, match["bias"]
    if len(bias.shape) == len(output.shape) and bias.shape[axis] == output.shape[axis]:
        varies = [i for i in range(len(bias.shape)) if i != axis and _varies_along(bias, i)]
        return f"what is added differs along dimension {varies[0]}" if varies else None
    if bias.shape != (output.shape[axis],):
        return "what is added is no vector of as many numbers as there are output features"
    added = next(v for v in match.root.inputs if through_no_ops(v) is not output)
    return None if _axis_of(added, bias) in (axis, None) else "what is added lies along another dimension"


def _varies_along(array: Value, axis: int) -> bool:
    """Whether it may; folding constants writes out a bias that was broadcast."""
    if array.shape[axis] == 1:
        return False
    return not array.is_const or bool((array.numpy() != array.numpy().take([0], axis)).any())


def _axis_of(value: Value, vector: Value) -> int | None:
    """Along which dimension of ``value`` a vector lies that was spread to it; None where it has one element."""
    if value is vector or value.producer is None:
        return 0
    inner = _axis_of(value.producer.inputs[0], vector)
    if inner is None or vector.shape == (1,):
        return None
    node = value.producer
    if node.name == "broadcast_in_dim":
        return int(node.params["broadcast_dimensions"][inner])
    if node.name in ("reshape", "squeeze"):
        return next(i for i, size in enumerate(value.shape) if size == vector.shape[0])
    return inner


# -- rules ----------------------------------------------------------------------------------------------------------


def _with_bias(primitive: str) -> Op:
    product = Op((primitive,), (var("x"), var("kernel")), name="product")
    return product + Through(var("bias"), is_spreading)


def _with_activation(composite: Composite) -> Either:
    inner = composite_of(composite.name, *map(var, _OPERANDS), binds="inner")
    named = [name for name in ACTIVATIONS if name not in ("none", *_PLAIN)]
    others = (composite_of(f"xlapass.{name}", inner, binds="activation") for name in named)
    return Either((*(made(inner) for made in _PLAIN.values()), *others))


def _activated(match: Match) -> dict[str, Any] | str:
    """The attributes of the inner composite, with the activation that follows it."""
    inner = attributes_of(match["inner"])
    if inner["activation"] != "none":
        return f"it has the activation {inner['activation']} already"
    if "activation" in match.bindings:
        node: Node = match["activation"]
        return inner | {"activation": node.params["name"].partition(".")[2]} | attributes_of(node)
    primitive = match.root.name
    return inner | {"activation": {"max": "relu", "logistic": "sigmoid"}.get(primitive, primitive)}


def _rules(composite: Composite, primitive: str, describe: Callable[[Match], dict[str, Any] | str]) -> tuple[Rule, ...]:
    name = composite.name.partition(".")[2].replace("_", "-").removesuffix("-act")
    return (
        Rule(name, _with_bias(primitive), outlined(composite, _OPERANDS, describe), declines(describe)),
        Rule(
            f"{name}-act",
            _with_activation(composite),
            outlined(composite, _OPERANDS, _activated),
            declines(_activated),
        ),
    )


_CONV = Composite("xlapass.conv_bias_act", conv_bias_act, by_default=False)
_LINEAR = Composite("xlapass.linear_bias_act", linear_bias_act, by_default=False)

CONV_BIAS_ACT = dataclasses.replace(_CONV, rules=_rules(_CONV, "conv_general_dilated", _convolution))
"""``CONV_BIAS_ACT(x, kernel, bias, strides=..., ...)``."""

LINEAR_BIAS_ACT = dataclasses.replace(_LINEAR, rules=_rules(_LINEAR, "dot_general", _linear))
"""``LINEAR_BIAS_ACT(x, kernel, bias)``."""
