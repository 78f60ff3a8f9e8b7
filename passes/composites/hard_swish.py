"""Piecewise linear activations: ReLU6, hard sigmoid, hard swish; Howard et al., arXiv:1905.02244."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ...core.composites import Composite
from ...core.patterns import Either, Pattern, op, var
from ...core.rewrite import Rule
from .spelling import composite_of, outlined, over

_x = var("x")


def relu6(x: jax.Array) -> jax.Array:
    """``x`` between 0 and 6; real floats of any shape."""
    return jnp.minimum(jnp.maximum(x, 0), 6)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """``relu6(x + 3) / 6``; real floats of any shape."""
    return relu6(x + 3) / 6


def hard_swish(x: jax.Array) -> jax.Array:
    """``x * hard_sigmoid(x)``; real floats of any shape."""
    return x * hard_sigmoid(x)


_RELU6 = Composite("xlapass.relu6", relu6)
_HARD_SIGMOID = Composite("xlapass.hard_sigmoid", hard_sigmoid)
_HARD_SWISH = Composite("xlapass.hard_swish", hard_swish)


def _relu6(x: Pattern) -> Either:
    return op.min(op.max(x, 0.0), 6.0) | op.max(op.min(x, 6.0), 0.0) | op.clamp(0.0, x, 6.0)


_shifted = composite_of(_RELU6.name, _x + 3.0) | _relu6(_x + 3.0)
_gate = composite_of(_HARD_SIGMOID.name, _x) | over(_shifted, 6.0)

RELU6 = dataclasses.replace(_RELU6, rules=(Rule("relu6", _relu6(_x), outlined(_RELU6, ("x",))),))
"""``RELU6(x)``."""

HARD_SIGMOID = dataclasses.replace(
    _HARD_SIGMOID, rules=(Rule("hard-sigmoid", over(_shifted, 6.0), outlined(_HARD_SIGMOID, ("x",))),)
)
"""``HARD_SIGMOID(x)``."""

HARD_SWISH = dataclasses.replace(
    _HARD_SWISH,
    rules=(
        Rule("hard-swish", op.mul(_x, _gate), outlined(_HARD_SWISH, ("x",))),
        Rule("hard-swish-divided-last", over(op.mul(_x, _shifted), 6.0), outlined(_HARD_SWISH, ("x",))),
    ),
)
"""``HARD_SWISH(x)``."""
