"""Softplus, and Mish, which is made of it: Dugas et al. (2000); Misra, arXiv:1908.08681."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ...core.composites import Composite
from ...core.node import Value
from ...core.patterns import op, var
from ...core.rewrite import Match, Rule
from .spelling import composite_of, outlined

_x = var("x")


def softplus(x: jax.Array) -> jax.Array:
    """``log(1 + exp(x))`` without overflow; real floats of any shape."""
    return jnp.logaddexp(x, 0)


def mish(x: jax.Array) -> jax.Array:
    """``x * tanh(softplus(x))``; real floats of any shape."""
    return x * jnp.tanh(softplus(x))


_SOFTPLUS = Composite("xlapass.softplus", softplus)
_MISH = Composite("xlapass.mish", mish)

_correction = op.log1p(op.exp(-op.abs(_x)))
_stable = op.max(_x, 0.0) + _correction
_of_nan = op.add(_x, 0.0) | op.sub(_x, 0.0) | _x
_softplus = op.select_n(op.ne(_x, _x), _stable, _of_nan) | op.log1p(op.exp(_x)) | op.log(1.0 + op.exp(_x))
"""As ``jnp.logaddexp`` spells it; or plainly."""


def _names(value: Value) -> list[str]:
    """The last two operations that made ``value``."""
    names: list[str] = []
    while (node := value.producer) is not None and node.inputs and len(names) < 2:
        names.append(node.name)
        value = node.inputs[0]
    return names


def _is_whole(match: Match) -> str | None:
    """Declines the correction of the stable form, which by itself is the softplus of ``-abs(x)``."""
    return "it is a part of another softplus" if _names(match["x"]) == ["neg", "abs"] else None


SOFTPLUS = dataclasses.replace(_SOFTPLUS, rules=(Rule("softplus", _softplus, outlined(_SOFTPLUS, ("x",)), _is_whole),))
"""``SOFTPLUS(x)``."""

MISH = dataclasses.replace(
    _MISH,
    rules=(
        Rule(
            "mish",
            op.mul(_x, op.tanh(composite_of(_SOFTPLUS.name, _x) | _softplus)),
            outlined(_MISH, ("x",)),
        ),
    ),
)
"""``MISH(x)``."""
