"""Differences and quotients of a constant and something transposed: the converters turn them round.

litert-converter 0.5 moves transposes behind elementwise operations and, doing so, puts the constant operand second, in
``constant - x`` and ``constant / x`` too. Sums may be turned round, and quotients of two unknown numbers are not.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ....core.node import REGION_PARAMS, Node, Value
from .rule import node_lowering

Array = jax.Array

MOST_LOOKED_AT = 200
"""Operations that are looked back over for a transpose; beyond, one is assumed."""

_STOPS = frozenset({
    "dot_general", "conv_general_dilated", "gather", "scatter", "dynamic_update_slice", "iota", *REGION_PARAMS,
})  # fmt: skip
"""Operations behind which a transpose in front of them is not moved."""

_SOURCES = frozenset({"transpose", "reduce_window_sum", "reduce_window_max", "reduce_window_min"})
"""Transposes, and operations that the converter puts between two of them."""


def _difference(node: Node, x: Array, y: Array) -> Array:
    return x + -y


def _quotient(node: Node, x: Array, y: Array) -> Array:
    """The dividend is made to depend on the divisor: NaN where that is NaN; 0 where an integer is 0, as it never is."""
    if jnp.issubdtype(y.dtype, jnp.floating):
        return jnp.where(y == y, x, np.float32(np.nan)) / y
    return lax.div(jnp.where(y == 0, jnp.zeros((), x.dtype), x), y)


def _why_not_turned(node: Node) -> str | None:
    x, y = node.inputs
    if _depends_on(x, y) or not _may_be_constant(x):
        return "its first operand is no constant"
    return None if _may_be_transposed(y) else "its second operand is not transposed"


def _depends_on(dividend: Value, divisor: Value) -> bool:
    """Whether the dividend is one that `_quotient` made."""
    node = dividend.producer
    test = None if node is None or node.name != "select_n" else node.inputs[0].producer
    return test is not None and divisor in test.inputs


def _may_be_constant(value: Value) -> bool:
    """Whether nothing that ``value`` is made of is surely an input of the program."""
    return all(source.is_const or _is_of_a_body(source) for source in _origins(value))


def _is_of_a_body(value: Value) -> bool:
    """Whether an input is that of a loop's or a branch's body, which may be a constant outside."""
    users = value.users
    return bool(users) and users[0].graph is not None and users[0].graph.root is not users[0].graph


def _origins(value: Value) -> Iterator[Value]:
    """The inputs and constants behind a value; the value itself when there are too many operations to look at."""
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        node = current.producer
        if node is None or len(seen) > MOST_LOOKED_AT:
            yield current
            continue
        fresh = [v for v in node.inputs if v not in seen]
        seen.update(fresh)
        pending.extend(fresh)


def _may_be_transposed(value: Value) -> bool:
    pending, seen = [value], {value}
    while pending:
        node = pending.pop().producer
        if node is None or node.name in _STOPS:
            continue
        if node.name in _SOURCES or len(seen) > MOST_LOOKED_AT:
            return True
        fresh = [v for v in node.inputs if v not in seen]
        seen.update(fresh)
        pending.extend(fresh)
    return False


RULES = (
    node_lowering("sum-with-the-negative", "sub", _difference, _why_not_turned, "exact"),
    node_lowering("dependent-dividend", "div", _quotient, _why_not_turned, "exact"),
)
