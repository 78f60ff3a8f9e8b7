"""What the rules of several families ask, and build."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ...core.node import Node, Value
from ...core.patterns import scalar_of
from ...core.rewrite import Check, Match


def same_type(name: str) -> Check:
    """The value bound to ``name`` has the shape and dtype of the result."""

    def check(match: Match) -> str | None:
        bound, result = match[name], match.root.outputs[0]
        value = bound.outputs[0] if isinstance(bound, Node) else bound
        if value.aval.shape == result.aval.shape and value.aval.dtype == result.aval.dtype:
            return None
        return f"{name} and the result differ in shape or dtype"

    return check


def all_of(*checks: Check) -> Check:
    """The first reason to decline that one of ``checks`` gives."""

    def check(match: Match) -> str | None:
        return next((reason for one in checks if (reason := one(match)) is not None), None)

    return check


def integers(match: Match) -> str | None:
    """The operands are integers or booleans, for which no rounding, NaN or negative zero exists."""
    return None if is_integral(match.root.inputs[0]) else "it holds for integers only"


def floats(match: Match) -> str | None:
    """The operands are real floats."""
    is_float = jnp.issubdtype(match.root.inputs[0].dtype, jnp.floating)
    return None if is_float else "it holds for real floats only"


def real(match: Match) -> str | None:
    """The result is not complex: complex products mix infinities and zeros of both parts."""
    is_complex = jnp.issubdtype(match.root.outputs[0].dtype, jnp.complexfloating)
    return "it does not hold for complex numbers" if is_complex else None


def unsharded(match: Match) -> str | None:
    """Neither the root nor the node bound to ``inner`` says how its result is sharded."""
    nodes = (match.root, match.bindings.get("inner", match.root))
    return None if all(node.params.get("sharding") is None for node in nodes) else "it says how its result is sharded"


def is_integral(value: Value) -> bool:
    """Whether a value is of integers or booleans."""
    return bool(jnp.issubdtype(value.dtype, jnp.integer) or value.dtype == np.bool_)


def number_of(value: Value) -> Any:
    """The scalar constant behind ``value`` as a 0-d NumPy scalar, or None; NaN counts as none."""
    number = scalar_of(value)
    return None if number is None or number != number else number


def filled(match: Match, number: Any) -> Value:
    """A value of the result's type with ``number`` everywhere."""
    aval = match.root.outputs[0].aval
    return match.trace(lax.full, static=(aval.shape, number, aval.dtype))
