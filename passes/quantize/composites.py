"""The composites `quantize` and `dequantize`: an array as small integers, and back.

Their decompositions are plain float arithmetic, so that a quantized program runs, simulated, wherever JAX does. Numbers
are multiplied by the float32 reciprocal of the scale, as XNNPACK does, and XLA makes of divisions by constants. ONNX
Runtime divides, which differs where the two fall on different sides of a half: in one number of some hundred thousand,
by one step.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...core.composites import Composite, attributes_of
from ...core.node import Node, Value
from .arithmetic import Parameters, limits


def _laid_out(values: jax.Array, shape: tuple[Any, ...], axis: int, group: int) -> jax.Array:
    """Scales or zero points so that they broadcast against an array of ``shape``."""
    if axis < 0:
        return values
    if group:
        return jax.lax.slice_in_dim(jnp.repeat(values, group, axis=axis), 0, shape[axis], axis=axis)
    return values.reshape([-1 if k == axis else 1 for k in range(len(shape))])


def _quantize(
    x: jax.Array, scale: jax.Array, zero_point: jax.Array, *, dtype: str, axis: int, group: int, narrow: bool
) -> jax.Array:
    """``clip(round(x / scale) + zero_point)`` as integers; see `Parameters` for the rest."""
    reciprocal = _laid_out(jnp.float32(1) / scale, x.shape, axis, group)
    zero = _laid_out(zero_point.astype(jnp.float32), x.shape, axis, group)
    low, high = limits(dtype, narrow)
    numbers = jax.lax.round(x.astype(jnp.float32) * reciprocal, jax.lax.RoundingMethod.TO_NEAREST_EVEN) + zero
    return jax.lax.clamp(np.float32(low), numbers, np.float32(high)).astype(dtype)


def _dequantize(
    q: jax.Array, scale: jax.Array, zero_point: jax.Array, *, dtype: str, axis: int, group: int, narrow: bool
) -> jax.Array:
    """``(q - zero_point) * scale`` as float32."""
    zero = _laid_out(zero_point, q.shape, axis, group)
    return (q.astype(jnp.int32) - zero).astype(jnp.float32) * _laid_out(scale, q.shape, axis, group)


QUANTIZE = Composite("xlapass.quantize", _quantize)
"""``QUANTIZE(x, scale, zero_point, **Parameters.attributes())``: floats of any shape to integers."""

DEQUANTIZE = Composite("xlapass.dequantize", _dequantize)
"""``DEQUANTIZE(q, scale, zero_point, **Parameters.attributes())``: integers of any shape to float32."""


def quantize(x: Any, parameters: Parameters) -> Any:
    """``x`` as small integers; works eagerly and under tracing."""
    return QUANTIZE(x, parameters.scale, parameters.zero_point, **parameters.attributes())


def dequantize(q: Any, parameters: Parameters) -> Any:
    """The float32 values that integers stand for; works eagerly and under tracing."""
    return DEQUANTIZE(q, parameters.scale, parameters.zero_point, **parameters.attributes())


def is_composite(node: Node | None, composite: Composite) -> bool:
    """Whether a node is a call of ``composite``."""
    return node is not None and node.name == "composite" and node.params["name"] == composite.name


def parameters_of(node: Node) -> Parameters | None:
    """The parameters of a node that is one of the two composites; None where they are not constants."""
    _, scale, zero_point = node.inputs
    if not (scale.is_const and zero_point.is_const):
        return None
    return Parameters.of(scale.numpy(), zero_point.numpy(), attributes_of(node))


def dequantized(value: Value) -> Node | None:
    """The `DEQUANTIZE` that computes a value; None where something else does."""
    node = value.producer
    return node if is_composite(node, DEQUANTIZE) else None
