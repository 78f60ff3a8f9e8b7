"""Transposes sink towards the outputs: ``f(transpose(x, p))`` becomes ``transpose(f'(x), p')``.

For each primitive, `SINK` says what ``f'`` and ``p'`` are. Two transposes that meet become one, or none.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ...core.graph import Graph
from ...core.node import Node, Value
from .convolution import permute, transpose_of
from .operations import ELEMENTWISE, SINK, Sunk
from .permutation import Permutation, compose, inverse, moves_only_unit_axes

RELAY_DEPTH = 4
"""How many element-wise operations on broadcast constants and statistics may be made anew in the other layout."""

VISITS_PER_NODE = 200
"""Bound on the work of one region; sinking moves every transpose forward only, so it ends long before."""


def sink_transposes(graph: Graph) -> bool:
    """Moves the transposes of one graph, not those of its regions, towards the outputs; returns whether any moved."""
    pending = collections.deque(graph.nodes())
    budget = VISITS_PER_NODE * (len(pending) + 1)
    changed = False
    while pending and budget > 0:
        budget -= 1
        node = pending.popleft()
        if not node.alive:
            continue
        touched = _merge(graph, node) if node.name == "transpose" else _sink_through(graph, node)
        if touched is not None:
            changed = True
            pending.extend(touched)
    return changed


def _merge(graph: Graph, node: Node) -> list[Node] | None:
    """A transpose of a transpose as one; one that does nothing, or moves only axes of size one, without it."""
    source, perm = node.inputs[0], tuple(node.params["permutation"])
    inner = transposed_from(source)
    if inner is not None:
        source, perm = inner[0], compose(perm, inner[1])
    elif not moves_only_unit_axes(source.shape, perm):
        return None
    users = node.outputs[0].users
    if moves_only_unit_axes(source.shape, perm):
        result = _reshaped(graph, source, perm, node)
    else:
        result = permute(graph, source, perm, before=node)
    graph.replace(node.outputs[0], result)
    graph.erase_dead(node)
    return [user for user in users if user is not graph.terminator]


def _sink_through(graph: Graph, node: Node) -> list[Node] | None:
    """Moves the transposes in front of ``node`` behind it; returns the nodes to look at again, or None."""
    if node.effects or (node.name not in SINK and node.name not in ELEMENTWISE):
        return None
    perm = next((found[1] for v in node.inputs if (found := transposed_from(v)) is not None), None)
    if perm is None:
        return None
    rule: Callable[[Node, Permutation], Sunk | None] = SINK.get(node.name, _elementwise)
    sunk = rule(node, perm)
    if sunk is None:
        return None
    if not all(_is_cheap(node.inputs[position], perm, RELAY_DEPTH) for position in sunk.transposed):
        return None
    inputs = [
        _inner(graph, value, perm, node) if position in sunk.transposed else value
        for position, value in enumerate(node.inputs)
    ]
    inputs = [inputs[i] for i in sunk.order] if sunk.order is not None else inputs
    outputs = graph.emit(node.primitive, inputs, {**node.params, **sunk.params}, before=node, rule="layout")
    touched = []
    for old, new in zip(node.outputs, outputs, strict=True):
        users = old.users
        result = permute(graph, new, sunk.result, before=node)
        touched += [user for user in users if user is not graph.terminator]
        graph.replace(old, result)
    graph.erase_dead(node)
    return touched


def _elementwise(node: Node, perm: Permutation) -> Sunk | None:
    ranked = [i for i, v in enumerate(node.inputs) if len(v.shape) == len(perm)]
    params: dict[str, Any] = {}
    return Sunk(transposed=frozenset(ranked), result=perm, params=params)


def transposed_from(value: Value) -> tuple[Value, Permutation] | None:
    """``(x, p)`` when ``value`` is ``transpose(x, p)``."""
    node = value.producer
    if node is None or node.name != "transpose":
        return None
    return node.inputs[0], tuple(node.params["permutation"])


def _is_cheap(value: Value, perm: Permutation, depth: int) -> bool:
    """Whether a value ``x`` with ``transpose(x, perm) == value`` costs no pass over memory that is not there now."""
    found = transposed_from(value)
    if found is not None and found[1] == perm:
        return True
    back = inverse(perm)
    if value.is_const or moves_only_unit_axes(value.shape, back) or transpose_of(value, back) is not None:
        return True
    producer = value.producer
    if producer is None:
        return False
    if producer.name == "broadcast_in_dim" and len(producer.inputs) == 1:
        small, order = producer.inputs[0], _operand_order(producer, back)
        return small.is_const or moves_only_unit_axes(small.shape, order)
    if depth == 0 or producer.name not in ELEMENTWISE or len(value.users) > 1 or producer.effects:
        return False
    return all(_is_cheap(v, perm, depth - 1) for v in producer.inputs if len(v.shape) == len(perm))


def _inner(graph: Graph, value: Value, perm: Permutation, node: Node) -> Value:
    """The value ``x`` with ``transpose(x, perm) == value``, where `_is_cheap` says that it is to be had."""
    found = transposed_from(value)
    if found is not None and found[1] == perm:
        return found[0]
    back = inverse(perm)
    if value.is_const or transpose_of(value, back) is not None:
        return permute(graph, value, back, before=node)
    if moves_only_unit_axes(value.shape, back):
        return _reshaped(graph, value, back, node)
    producer = value.producer
    assert producer is not None
    if producer.name == "broadcast_in_dim":
        return _broadcast_anew(graph, value, back, node)
    inputs = [_inner(graph, v, perm, node) if len(v.shape) == len(perm) else v for v in producer.inputs]
    return graph.emit(producer.primitive, inputs, producer.params, before=node, rule="layout")[0]


def _reshaped(graph: Graph, value: Value, perm: Permutation, node: Node) -> Value:
    """A transpose that moves only axes of size one, as a reshape."""
    shape = tuple(value.shape[axis] for axis in perm)
    if shape == value.shape:
        return value
    (result,) = graph.splice(_reshape, value, before=node, rule="layout", static=(shape,))
    return result


def _reshape(x: jax.Array, shape: tuple[Any, ...]) -> jax.Array:
    return x.reshape(shape)


def _operand_order(broadcast: Node, perm: Permutation) -> Permutation:
    """How a broadcast's operand must be transposed so that its axes keep their order in the transposed result."""
    places = inverse(perm)
    axes = [places[axis] for axis in broadcast.params["broadcast_dimensions"]]
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def _broadcast_anew(graph: Graph, value: Value, perm: Permutation, node: Node) -> Value:
    """``transpose(broadcast(y), perm)`` as a broadcast of ``y``."""
    producer = value.producer
    assert producer is not None
    small, order = producer.inputs[0], _operand_order(producer, perm)
    small = permute(graph, small, order, before=node) if small.is_const else _reshaped(graph, small, order, node)
    places = inverse(perm)
    params: Mapping[str, Any] = {
        **producer.params,
        "shape": tuple(value.shape[axis] for axis in perm),
        "broadcast_dimensions": tuple(sorted(places[axis] for axis in producer.params["broadcast_dimensions"])),
    }
    return graph.emit(producer.primitive, [small], params, before=node, rule="layout")[0]
