"""An operation of its own: Hard Swish, from Howard et al., "Searching for MobileNetV3", arXiv:1905.02244."""

import jax
import jax.numpy as jnp
from xlapass import Match, Rule
from xlapass.core.composites import Composite, Kernel
from xlapass.core.patterns import op, var

x = var("x")
relu6 = op.min(op.max(x + 3.0, 0.0), 6.0) | op.clamp(0.0, x + 3.0, 6.0)


def hard_swish(x: jax.Array) -> jax.Array:
    """``x * relu6(x + 3) / 6``: what the operation means."""
    return x * jnp.minimum(jnp.maximum(x + 3, 0.0), 6.0) / 6


def _found(x: jax.Array, match: Match) -> jax.Array:
    return HARD_SWISH.outline(match, {"x": x})


HARD_SWISH = Composite(
    "example.hard_swish",
    hard_swish,
    rules=(Rule("hard-swish", op.div(x * relu6, 6.0) | x * op.div(relu6, 6.0), _found),),
)


def _without_division(x: jax.Array) -> jax.Array:
    return x * jnp.minimum(jnp.maximum(x * (1 / 6) + 0.5, 0.0), 1.0)


HARD_SWISH_ON_CPU = Kernel(
    _without_division,
    check=lambda node, target: None if node.inputs[0].dtype == jnp.float32 else "it is for float32 only",
)
