"""An operation of its own: squared ReLU, from So et al., "Primer", arXiv:2109.08668."""

import jax
import jax.numpy as jnp
from xlapass import Composite, Kernel, Match, Rule, op, var

x = var("x")
relu = op.max(x, 0.0)
squared = op.square(relu) | op.mul(relu, relu) | op.integer_pow(relu, where=lambda node: node.params["y"] == 2)


def squared_relu(x: jax.Array) -> jax.Array:
    """``max(x, 0) ** 2``: what the operation means."""
    return jnp.square(jnp.maximum(x, 0.0))


def _found(x: jax.Array, match: Match) -> jax.Array:
    return SQUARED_RELU.outline(match, {"x": x})


SQUARED_RELU = Composite("example.squared_relu", squared_relu, rules=(Rule("squared-relu", squared, _found),))


def _by_magnitude(x: jax.Array) -> jax.Array:
    return jnp.maximum(x * jnp.abs(x), 0.0)


SQUARED_RELU_ON_CPU = Kernel(
    _by_magnitude,
    check=lambda node, target: None if node.inputs[0].dtype == jnp.float32 else "it is for float32 only",
)
