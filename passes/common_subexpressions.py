"""`common-subexpressions`: compute equal things once."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any, ClassVar

import numpy as np

from ..core.graph import Graph
from ..core.node import Node, Value
from ..core.pass_ import GraphPass, PassContext
from ..core.patterns import COMMUTATIVE

NEVER_MERGED = frozenset({"rng_uniform", "optimization_barrier", "create_token", "after_all"})
"""Primitives that are more than a function of their operands although they have no effects."""

COMPARED_BYTES = 64 * 1024
"""Constants up to this size are compared by content; larger ones are merged only when they are one array.

Reading them costs time, and of large ones a model seldom holds two copies.
"""


@dataclasses.dataclass(frozen=True)
class CommonSubexpressions(GraphPass):
    """Computes equal things once: operations with equal parameters and operands, and equal constants."""

    name: ClassVar[str] = "common-subexpressions"
    idempotent: ClassVar[bool] = True

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Merges within each region, inner ones first; bodies are equal when they are one object."""
        changed = False
        for region in graph.walk():
            changed |= _merge_constants(region)
            changed |= _merge_nodes(region)
        return changed


def _merge_constants(graph: Graph) -> bool:
    changed = False
    first: dict[Any, Value] = {}
    for constant in graph.constants:
        known = first.setdefault(_constant_key(constant), constant)
        if known is not constant and constant.uses:
            graph.replace(constant, known)
            changed = True
    return changed


def _merge_nodes(graph: Graph) -> bool:
    changed = False
    first: dict[Any, Node] = {}
    for node in graph.nodes():
        key = _node_key(node)
        if key is None:
            continue
        known = first.setdefault(key, node)
        if known is node or any(a.aval != b.aval for a, b in zip(known.outputs, node.outputs, strict=True)):
            continue
        for old, new in zip(node.outputs, known.outputs, strict=True):
            graph.replace(old, new)
        graph.erase(node)
        changed = True
    return changed


def _node_key(node: Node) -> Any:
    """What two nodes share when they compute the same; None for one that is never merged."""
    if node.effects or node.name in NEVER_MERGED or node.params.get("prevent_cse"):
        return None
    operands = [_operand_key(value) for value in node.inputs]
    if node.name in COMMUTATIVE:
        operands.sort(key=hash)
    params = tuple((name, by_value(node.params[name])) for name in sorted(node.params))
    return node.primitive, node.ctx, params, tuple(operands)


def _operand_key(value: Value) -> Any:
    return _array_key(value) if value.is_literal else id(value)


def _constant_key(value: Value) -> Any:
    comparable = value.is_const and isinstance(value.dtype, np.dtype) and value.const.nbytes <= COMPARED_BYTES
    return _array_key(value) if comparable else (id(value.const), value.aval)


def _array_key(value: Value) -> Any:
    """Type and bits: -0.0 differs from 0.0, and one NaN from another."""
    return value.aval, np.asarray(value.const, dtype=value.dtype).tobytes()


def by_value(param: Any) -> Any:
    """A stand-in for a parameter that is equal only where the parameters mean the same.

    JAX wants parameters to be hashable; but 0.0 and -0.0 are equal as numbers, and no NaN equals itself.
    """
    kind = type(param)
    if kind in _PLAIN:
        return param
    if isinstance(param, tuple):
        return kind, tuple(map(by_value, param))
    if isinstance(param, float | complex):
        return kind, struct.pack("dd", param.real, param.imag)
    if isinstance(param, np.integer):
        return int(param)
    if isinstance(param, np.generic):
        return param.dtype, param.tobytes()
    return param


_PLAIN = frozenset({int, bool, str, bytes, type(None)})
"""Types whose equal instances mean the same."""
