"""Where an operand comes from: whether rounding it costs anything at run time, and whether a constant forbids it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...core.graph import Graph
from ...core.node import Node, Value
from ...core.precision import Policy
from .bodies import Bodies
from .constants import Constants

WIDE = np.dtype(np.float32)
"""What is made smaller; float64 was asked for by whoever uses it, and stays."""


def is_cast(node: Node, source: Any, target: Any) -> bool:
    """Whether ``node`` does no more than convert from one dtype to another."""
    if node.name != "convert_element_type" or node.params.get("sharding") is not None:
        return False
    result = node.outputs[0].aval
    return bool(node.inputs[0].dtype == source and result.dtype == target and not result.weak_type)


def is_follower(policy: Policy, node: Node) -> bool:
    """Whether ``node`` only moves float32 values, or picks among them."""
    row = policy.of(node)
    if row is None or row.compute != "follow" or node.effects or len(node.outputs) != 1:
        return False
    return bool(node.outputs[0].dtype == WIDE)


def moved_operands(node: Node) -> list[Value]:
    """The float32 operands of a follower."""
    return [value for value in node.inputs if value.dtype == WIDE]


class Origins:
    """Answers about the values of one program, remembered."""

    def __init__(self, policy: Policy, bodies: Bodies, constants: Constants) -> None:
        self._policy = policy
        self._bodies = bodies
        self._constants = constants
        self._reasons: dict[Value, str | None] = {}
        self._free: dict[Value, bool] = {}

    def why_not(self, graph: Graph, value: Value) -> str | None:
        """Why ``value`` must not be rounded: a constant that it moves is out of range. None where it may."""
        self._ask(graph, value)
        return self._reasons[value]

    def is_free(self, graph: Graph, value: Value) -> bool:
        """Whether the rounded ``value`` need not be computed at each run, or at each round of a loop."""
        self._ask(graph, value)
        return self._free[value]

    def _ask(self, graph: Graph, value: Value) -> None:
        """Answers for a value after those that it is moved from."""
        stack = [(graph, value, False)]
        while stack:
            graph, value, expanded = stack.pop()
            if value in self._free:
                continue
            sources = list(self._sources(graph, value))
            if not expanded and sources:
                stack.append((graph, value, True))
                stack.extend((g, v, False) for g, v, _ in sources)
                continue
            reasons = [self._constants.why_not(value)] if value.is_const else [self._reasons[v] for _, v, _ in sources]
            self._reasons[value] = next(filter(None, reasons), None)
            self._free[value] = (
                value.is_const
                or (value.producer is not None and is_cast(value.producer, self._constants.dtype, WIDE))
                or (bool(sources) and all(invariant or self._free[v] for _, v, invariant in sources))
            )

    def _sources(self, graph: Graph, value: Value) -> Iterator[tuple[Graph, Value, bool]]:
        """The values that ``value`` is moved from, by followers and into bodies; whether a loop leaves it alone."""
        if value.producer is not None:
            if is_follower(self._policy, value.producer) or is_cast(value.producer, WIDE, WIDE):
                yield from ((graph, operand, False) for operand in moved_operands(value.producer))
        elif value.const is None:
            for binding in self._bodies.bindings(graph, value.index) or ():
                yield binding.graph, binding.node.inputs[binding.index], binding.invariant
