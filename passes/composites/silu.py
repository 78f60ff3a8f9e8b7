"""SiLU, or swish: Elfwing, Uchibe and Doya, "Sigmoid-Weighted Linear Units", arXiv:1702.03118."""

from __future__ import annotations

import jax

from ...core.composites import Composite
from ...core.patterns import Either, op, var
from ...core.rewrite import Match, Rule

_x = var("x")
_one_plus_exp = 1.0 + op.exp(-_x)
_sigmoid = op.logistic(_x) | op.div(1.0, _one_plus_exp)


def silu(x: jax.Array) -> jax.Array:
    """``x`` times its logistic sigmoid; real floats of any shape."""
    return x * jax.lax.logistic(x)


def _fused(x: jax.Array, match: Match) -> jax.Array:
    result: jax.Array = SILU.outline(match, {"x": x})
    return result


SILU = Composite(
    "xlapass.silu",
    silu,
    rules=(Rule("silu", Either((op.mul(_x, _sigmoid), op.div(_x, _one_plus_exp))), _fused),),
)
"""``SILU(x)``."""
