"""`equalize`: weights of one layer scaled up where those of the next are scaled down, for channels of like ranges.

A channel of ReLU's argument may be multiplied by a positive number if what reads it is divided by that. Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721, section 4.1. It serves
runtimes with one scale for all weights of a layer, and activations, which have one everywhere.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from ...core.graph import Graph
from ...core.node import Node, Value
from ...core.pass_ import GraphPass, PassContext
from ...core.rewrite import Numerics
from ..fold_constants import as_constants
from .operations import Operation, find_operations, free_axes

Array = np.ndarray[Any, Any]

MOST = 1e4
"""No channel is scaled by more than this, or by less than its reciprocal."""

SETTLED = 1e-3
"""Factors this near to one are not worth another round."""


@dataclasses.dataclass(frozen=True)
class Equalize(GraphPass):
    """Moves scale between layers, so that the channels of their weights have like ranges.

    Attributes:
      rounds: how often every pair of layers is looked at, in chains of several.
    """

    name: ClassVar[str] = "equalize"
    numerics: ClassVar[Numerics] = "reassociating"

    rounds: int = 8

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Equalizes pairs of products with nothing but a bias and ReLU between them."""
        pairs = _pairs(graph)
        scaled = False
        for _ in range(self.rounds):
            moved = [_equalize(graph, first, second) for first, second in pairs]
            scaled |= any(moved)
            if not any(moved):
                break
        if pairs:
            context.details["equalized"] = [f"{first.name} and {second.name}" for first, second in pairs]
        return scaled


def _pairs(graph: Graph) -> list[tuple[Operation, Operation]]:
    products = [op for op in find_operations(graph) if op.is_product]
    reading = {id(op.node.inputs[op.operands[0]]): op for op in products}
    pairs = []
    for first in products:
        second = reading.get(id(first.output))
        if second is None or len(first.output.uses) != 1 or len(second.weights.uses) != 1:
            continue
        linear = first.activation is None or first.activation.high is None
        if linear and len(first.weights.uses) == 1 and _axes(first, second) is not None:
            pairs.append((first, second))
    return pairs


def _axes(first: Operation, second: Operation) -> tuple[int, int] | None:
    """The axis of the output channels of one's weights, and that of the other's input channels, if they agree."""
    if first.kind != second.kind:
        return None
    if first.kind == "conv":
        mine, its = (op.node.params["dimension_numbers"] for op in (first, second))
        groups = second.node.params["feature_group_count"]
        if mine.out_spec[1] != its.lhs_spec[1]:
            return None
        if groups == 1:
            return mine.rhs_spec[0], its.rhs_spec[1]
        depthwise = groups == second.weights.shape[its.rhs_spec[0]]
        return (mine.rhs_spec[0], its.rhs_spec[0]) if depthwise else None
    (contracting, _) = second.node.params["dimension_numbers"]
    side = second.operands[0]
    free = free_axes(first.node, 1 - first.operands[0])
    if len(free) != 1 or tuple(contracting[side]) != (first.channel_axis,):
        return None
    return free[0], contracting[1 - side][0]


def _largest(weights: Array, axis: int) -> Array:
    return np.asarray(np.abs(weights).max(tuple(k for k in range(weights.ndim) if k != axis)), np.float64)


def _along(factors: Array, rank: int, axis: int) -> Array:
    return factors.reshape([-1 if k == axis else 1 for k in range(rank)])


def _equalize(graph: Graph, first: Operation, second: Operation) -> bool:
    """Scales one pair; returns whether that changed much."""
    axes = _axes(first, second)
    assert axes is not None
    a, b = first.weights.numpy(), second.weights.numpy()
    mine, its = _largest(a, axes[0]), _largest(b, axes[1])
    if mine.size != its.size:
        return False
    usable = (mine > 0) & (its > 0)
    factors = np.where(usable, np.sqrt(mine / np.where(usable, its, 1.0)), 1.0)
    factors = np.clip(factors, 1 / MOST, MOST)
    if np.abs(np.log(factors)).max(initial=0.0) < SETTLED:
        return False
    _set_weights(graph, first, a / _along(factors, a.ndim, axes[0]))
    _set_weights(graph, second, b * _along(factors, b.ndim, axes[1]))
    if first.bias is not None:
        first.bias = (first.bias / factors).astype(np.float32)
        assert first.channel_axis is not None
        _set_bias(
            graph, first.nodes[1], first.nodes[0], _along(first.bias, len(first.output.shape), first.channel_axis)
        )
    return True


def _set_weights(graph: Graph, operation: Operation, weights: Array) -> None:
    value = as_constants(graph, [weights.astype(np.float32)], [None])[0]
    graph.set_operand(operation.node, 1 - operation.operands[0], value)


def _set_bias(graph: Graph, add: Node, product: Node, bias: Array) -> None:
    index = 1 - [value is product.outputs[0] for value in add.inputs].index(True)
    constant: Value = as_constants(graph, [bias], [None])[0]
    graph.set_operand(add, index, constant)
