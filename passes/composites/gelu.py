"""GELU, exact, by tanh and by the logistic sigmoid.

Hendrycks and Gimpel, "Gaussian Error Linear Units (GELUs)", arXiv:1606.08415.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...core.composites import Composite, Kernel, attributes_of
from ...core.node import Node
from ...core.patterns import Pattern, op, var
from ...core.rewrite import Match, Rule
from ...core.target import Target
from .spelling import about, cube, half_of, outlined, over, product, square

SQRT_TWO = math.sqrt(2)
SQRT_TWO_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715
"""The paper's coefficient of the cubic term."""

SIGMOID_SLOPE = 1.702
"""What brings the logistic sigmoid nearest to the normal distribution function."""

_x = var("x")


def gelu(x: jax.Array, *, approximate: bool) -> jax.Array:
    """``x`` times the standard normal distribution function at ``x``.

    Args:
      x: real floats of any shape.
      approximate: the form with tanh instead of the error function.

    Returns:
      An array of the shape and dtype of ``x``.
    """
    if approximate:
        return 0.5 * x * (1 + jnp.tanh(SQRT_TWO_OVER_PI * (x + CUBIC * x**3)))
    return 0.5 * x * lax.erfc(-x / SQRT_TWO)


def quick_gelu(x: jax.Array) -> jax.Array:
    """``x * sigmoid(1.702 * x)``, the paper's other approximation; real floats of any shape."""
    return x * lax.logistic(SIGMOID_SLOPE * x)


def _tanh_argument(x: Pattern) -> Pattern:
    """``sqrt(2 / pi) * (x + c x^3)``, or with ``x`` in front: ``sqrt(2 / pi) * x * (1 + c x^2)``."""
    scale, cubic = about(SQRT_TWO_OVER_PI), about(CUBIC)
    third = cubic * cube(x) | product(cubic, x, square(x)) | product(cubic, x, x, x)
    second = cubic * square(x) | product(cubic, x, x)
    return scale * (x + third) | product(scale, x, 1.0 + second)


def _twice_normal_cdf(x: Pattern) -> Pattern:
    """``1 + erf(x / sqrt(2))``, or the same by ``erfc``."""
    scaled = over(x, SQRT_TWO)
    negated = over(-x, SQRT_TWO) | -over(x, SQRT_TWO) | over(x, -SQRT_TWO)
    return 1.0 + op.erf(scaled) | op.erfc(negated)


def _fused(approximate: bool) -> Any:
    def replacement(x: jax.Array, match: Match) -> Any:
        return GELU.outline(match, {"x": x}, approximate=approximate)

    return replacement


GELU = Composite(
    "xlapass.gelu",
    gelu,
    rules=(
        Rule("gelu-tanh", half_of(_x, 1.0 + op.tanh(_tanh_argument(_x))), _fused(approximate=True)),
        Rule("gelu-exact", half_of(_x, _twice_normal_cdf(_x)), _fused(approximate=False)),
    ),
)
"""``GELU(x, approximate=...)``."""


def _gelu_by_erf(x: jax.Array, *, approximate: bool) -> jax.Array:
    """The exact GELU by ``erf``, whose series XLA:CPU runs in a third of the time that ``erfc`` takes.

    Where ``x`` is far below zero ``1 + erf`` cancels: the result has then the same absolute error as for ``x`` of the
    same magnitude above zero, 4e-7, and no longer the same relative one.
    """
    return 0.5 * x * (1 + lax.erf(x * (1 / SQRT_TWO)))


def _why_not_by_erf(node: Node, target: Target) -> str | None:
    if attributes_of(node)["approximate"]:
        return "XLA's tanh is fast"
    if node.inputs[0].dtype != jnp.float32:
        return f"1 + erf would lose too much in {node.inputs[0].dtype}"
    return None


GELU_ON_CPU = Kernel(_gelu_by_erf, _why_not_by_erf)
"""For XLA:CPU."""

_QUICK = Composite("xlapass.quick_gelu", quick_gelu)
_scaled = _x * about(SIGMOID_SLOPE)
_sigmoid = op.logistic(_scaled) | op.div(1.0, 1.0 + op.exp(-_scaled | _x * about(-SIGMOID_SLOPE)))

QUICK_GELU = dataclasses.replace(_QUICK, rules=(Rule("quick-gelu", op.mul(_x, _sigmoid), outlined(_QUICK, ("x",))),))
"""``QUICK_GELU(x)``."""
