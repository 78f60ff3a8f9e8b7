"""xlapass's composites as TFLite operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...core.composites import Kernel, attributes_of
from ...core.node import Node
from ...core.target import Target
from .operators import operator

_Check = Callable[[Node, Target], str | None]


def _floats(node: Node, target: Target) -> str | None:
    """TFLite's activations take float32; narrower floats are computed in it once their types are carried."""
    dtype = node.outputs[0].dtype
    return None if dtype == jnp.float32 else f"its operator takes float32, not {dtype}"


def _along_last(node: Node, target: Target) -> str | None:
    last = len(node.outputs[0].shape) - 1
    if attributes_of(node)["axis"] != last:
        return "its operator works along the last axis only"
    return _floats(node, target)


def _unit_alpha(node: Node, target: Target) -> str | None:
    if attributes_of(node)["alpha"] != 1:
        return "its operator has no slope but one"
    return _floats(node, target)


def _gelu(x: jax.Array, *, approximate: bool) -> Any:
    return operator("gelu", lambda x, *, approximate: jax.nn.gelu(x, approximate=approximate))(
        x, approximate=approximate
    )


def _hard_swish(x: jax.Array) -> Any:
    return operator("hard_swish", jax.nn.hard_swish)(x)


def _softmax(x: jax.Array, *, axis: int) -> Any:
    return operator("softmax", lambda x, *, beta: jax.nn.softmax(beta * x))(x, beta=1.0)


def _log_softmax(x: jax.Array, *, axis: int) -> Any:
    return operator("log_softmax", jax.nn.log_softmax)(x)


def _elu(x: jax.Array, *, alpha: float) -> Any:
    return operator("elu", jax.nn.elu)(x)


def _leaky_relu(x: jax.Array, *, negative_slope: float) -> Any:
    return operator("leaky_relu", lambda x, *, alpha: jax.nn.leaky_relu(x, alpha))(x, alpha=float(negative_slope))


GELU = Kernel(_gelu, _floats)
HARD_SWISH = Kernel(_hard_swish, _floats)
SOFTMAX = Kernel(_softmax, _along_last)
LOG_SOFTMAX = Kernel(_log_softmax, _along_last)
ELU = Kernel(_elu, _unit_alpha)
LEAKY_RELU = Kernel(_leaky_relu, _floats)
