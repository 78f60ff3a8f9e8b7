"""Rules for the built-in pass ``simplify``."""

import jax
import jax.numpy as jnp
from xlapass import Match, Rule
from xlapass.core.patterns import op, var

x = var("x")


def _real(match: Match) -> str | None:
    return None if jnp.issubdtype(match["x"].dtype, jnp.floating) else "only real floats have a reciprocal root"


def _not_complex(match: Match) -> str | None:
    is_complex = jnp.issubdtype(match["x"].dtype, jnp.complexfloating)
    return "the square of a complex number is not that of its absolute value" if is_complex else None


SIMPLIFY = [
    Rule(
        "reciprocal-square-root",
        op.div(1.0, op.sqrt(x)),
        lambda x: jax.lax.rsqrt(x),
        check=_real,
        numerics="reassociating",
    ),
    Rule(
        "square-of-absolute",
        op.mul(op.abs(x), op.abs(x)),
        lambda x: x * x,
        check=_not_complex,
    ),
]
