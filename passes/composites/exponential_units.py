"""Activations that are linear above zero: ELU, SELU, CELU, leaky ReLU.

Clevert, Unterthiner and Hochreiter, arXiv:1511.07289; Klambauer et al., arXiv:1706.02515; Barron, arXiv:1704.07483;
Maas, Hannun and Ng (2013).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ...core.composites import Composite, attributes_of
from ...core.patterns import Either, Pattern, op, scalar, var
from ...core.rewrite import Match, Rule
from .spelling import Filled, about, composite_of, declines, number_of, outlined

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
"""With these a layer keeps zero mean and unit variance."""

_x = var("x")


def elu(x: jax.Array, *, alpha: float) -> jax.Array:
    """``x`` where it is positive, else ``alpha * (exp(x) - 1)``; real floats of any shape."""
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x)))


def selu(x: jax.Array) -> jax.Array:
    """A multiple of `elu`; real floats of any shape."""
    return SELU_SCALE * elu(x, alpha=SELU_ALPHA)


def celu(x: jax.Array, *, alpha: float) -> jax.Array:
    """``max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1)``; real floats of any shape."""
    return jnp.maximum(x, 0) + alpha * jnp.expm1(jnp.minimum(x, 0) / alpha)


def leaky_relu(x: jax.Array, *, negative_slope: float) -> jax.Array:
    """``x`` where it is positive, else ``negative_slope * x``; real floats of any shape."""
    return jnp.where(x >= 0, x, negative_slope * x)


_ELU, _SELU = Composite("xlapass.elu", elu), Composite("xlapass.selu", selu)
_CELU, _LEAKY = Composite("xlapass.celu", celu), Composite("xlapass.leaky_relu", leaky_relu)

_is_positive = op.gt(_x, 0.0) | op.ge(_x, 0.0)
_negative_part = op.select_n(_is_positive, _x, Filled("zero")) | op.min(_x, 0.0) | _x
"""``x`` where it is negative; elsewhere it does not count."""


def _exponential(x: Pattern) -> Either:
    return op.expm1(x) | op.sub(op.exp(x), 1.0)


def _scaled(pattern: Pattern) -> Either:
    return op.mul(pattern, scalar("alpha")) | pattern


def _piecewise(below: Pattern) -> Either:
    return op.select_n(_is_positive, below, _x) | op.select_n(op.le(_x, 0.0) | op.lt(_x, 0.0), _x, below)


def _alpha(match: Match) -> dict[str, Any] | str:
    if "zero" in match.bindings and number_of(match, "zero") != 0:
        return "it is not zero where its operand is positive"
    return {"alpha": number_of(match, "alpha") if "alpha" in match.bindings else 1.0}


def _same_alpha(match: Match) -> dict[str, Any] | str:
    return {"alpha": number_of(match, "alpha")}


def _slope(match: Match) -> dict[str, Any] | str:
    slope = number_of(match, "slope")
    if match.root.name == "max" and not 0 <= slope <= 1:
        return "a maximum is a leaky ReLU for slopes between zero and one only"
    return {"negative_slope": slope}


def _is_selu(match: Match) -> str | None:
    alpha, wanted = attributes_of(match["inner"])["alpha"], SELU_ALPHA
    epsilon = float(jnp.finfo(match.root.outputs[0].dtype).eps)
    return None if abs(alpha - wanted) <= epsilon * wanted else "it is an ELU of another alpha"


ELU = dataclasses.replace(
    _ELU,
    rules=(
        Rule(
            "elu", _piecewise(_scaled(_exponential(_negative_part))), outlined(_ELU, ("x",), _alpha), declines(_alpha)
        ),
    ),
)
"""``ELU(x, alpha=...)``."""

SELU = dataclasses.replace(
    _SELU,
    rules=(
        Rule(
            "selu",
            op.mul(composite_of(_ELU.name, _x, binds="inner"), about(SELU_SCALE)),
            outlined(_SELU, ("x",)),
            _is_selu,
        ),
    ),
)
"""``SELU(x)``."""

_below = op.min(_x, 0.0)
CELU = dataclasses.replace(
    _CELU,
    rules=(
        Rule(
            "celu",
            op.max(_x, 0.0) + op.mul(_exponential(op.div(_below, scalar("alpha"))), scalar("alpha")),
            outlined(_CELU, ("x",), _same_alpha),
        ),
        Rule("celu-one", op.max(_x, 0.0) + _exponential(_below), outlined(_CELU, ("x",), lambda match: {"alpha": 1.0})),
    ),
)
"""``CELU(x, alpha=...)``."""

_sloped = op.mul(_x, scalar("slope"))
LEAKY_RELU = dataclasses.replace(
    _LEAKY,
    rules=(
        Rule(
            "leaky-relu", _piecewise(_sloped) | op.max(_x, _sloped), outlined(_LEAKY, ("x",), _slope), declines(_slope)
        ),
    ),
)
"""``LEAKY_RELU(x, negative_slope=...)``."""
