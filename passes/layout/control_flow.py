"""Transposes cross the boundaries of control flow: into bodies with the operands, out of them with the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core as jex_core

from ...core import _compat
from ...core.graph import Graph
from ...core.node import Node
from .convolution import permute
from .permutation import Permutation, inverse
from .sinking import transposed_from

Permutations = list[Permutation | None]


def move_through_bodies(graph: Graph) -> bool:
    """Moves transposes across the branches of ``cond`` and the carries of ``scan`` and ``while``, where that helps."""
    changed = False
    for node in graph.nodes():
        if node.alive and not node.effects and node.name in _MOVERS:
            changed |= _MOVERS[node.name](graph, node)
    return changed


def _branches(graph: Graph, node: Node) -> bool:
    """Operands' transposes go into every branch; a result that every branch transposes alike is transposed outside."""
    inputs: Permutations = [_operand_permutation(node, i) for i in range(1, len(node.inputs))]
    bodies = [node.regions["branches", i] for i in range(len(node.params["branches"]))]
    outputs: Permutations = [
        _common([_result_permutation(body, k) for body in bodies]) for k in range(len(node.outputs))
    ]
    if not any(p is not None for p in (*inputs, *outputs)):
        return False
    branches = tuple(_adapted(body, inputs, outputs) for body in bodies)
    operands = [node.inputs[0], *(_source(v, p) for v, p in zip(node.inputs[1:], inputs, strict=True))]
    _replace(graph, node, operands, {"branches": branches}, outputs)
    return True


def _scan(graph: Graph, node: Node) -> bool:
    """A carry that the body gives back transposed is kept in that layout; stacked results are transposed outside."""
    consts, carries = _compat.scan_sizes(node.params)
    body = node.regions["jaxpr", None]
    carry: Permutations = [_result_permutation(body, k) for k in range(carries)]
    stacked: Permutations = [_result_permutation(body, k) for k in range(carries, len(node.outputs))]
    if not any(p is not None for p in (*carry, *stacked)):
        return False
    nothing: Permutations = [None]
    inside_inputs = nothing * consts + carry + nothing * (len(node.inputs) - consts - carries)
    adapted = _adapted(body, inside_inputs, carry + stacked)
    operands = list(node.inputs)
    for k, perm in enumerate(carry):
        back = inverse(perm) if perm is not None else None
        operands[consts + k] = permute(graph, operands[consts + k], back, before=node)
    outside: Permutations = [*carry, *(None if p is None else (0, *(1 + a for a in p)) for p in stacked)]
    _replace(graph, node, operands, {"jaxpr": adapted}, outside)
    return True


def _while(graph: Graph, node: Node) -> bool:
    """As for ``scan``; the condition sees the carry in its new layout too."""
    cond_consts, body_consts = node.params["cond_nconsts"], node.params["body_nconsts"]
    body, cond = node.regions["body_jaxpr", None], node.regions["cond_jaxpr", None]
    carry: Permutations = [_result_permutation(body, k) for k in range(len(node.outputs))]
    if not any(p is not None for p in carry):
        return False
    nothing: Permutations = [None]
    params = {
        "body_jaxpr": _adapted(body, nothing * body_consts + carry, carry),
        "cond_jaxpr": _adapted(cond, nothing * cond_consts + carry, nothing),
    }
    operands = list(node.inputs)
    for k, perm in enumerate(carry):
        position = cond_consts + body_consts + k
        back = inverse(perm) if perm is not None else None
        operands[position] = permute(graph, operands[position], back, before=node)
    _replace(graph, node, operands, params, carry)
    return True


_MOVERS: dict[str, Callable[[Graph, Node], bool]] = {"cond": _branches, "scan": _scan, "while": _while}


def _operand_permutation(node: Node, index: int) -> Permutation | None:
    found = transposed_from(node.inputs[index])
    return None if found is None else found[1]


def _result_permutation(body: Graph, index: int) -> Permutation | None:
    found = transposed_from(body.outputs[index])
    return None if found is None else found[1]


def _common(permutations: Sequence[Permutation | None]) -> Permutation | None:
    first = permutations[0]
    return first if all(p == first for p in permutations) else None


def _source(value: Any, perm: Permutation | None) -> Any:
    found = transposed_from(value)
    return value if perm is None or found is None else found[0]


def _adapted(body: Graph, inputs: Permutations, outputs: Permutations) -> jex_core.ClosedJaxpr:
    """``body`` for inputs ``x`` of which it wants ``transpose(x, p)``, with results ``y`` whose transposes it gave."""
    closed = body.to_closed()

    def run(*args: Any) -> list[Any]:
        own = [x if p is None else jax.lax.transpose(x, p) for x, p in zip(args, inputs, strict=True)]
        results = _compat.eval_jaxpr(closed.jaxpr, closed.consts, *own)
        return [y if p is None else jax.lax.transpose(y, inverse(p)) for y, p in zip(results, outputs, strict=True)]

    specs = [_spec(v.aval, p) for v, p in zip(body.inputs, inputs, strict=True)]
    return jax.make_jaxpr(run)(*specs)


def _spec(aval: Any, perm: Permutation | None) -> jax.ShapeDtypeStruct:
    shape = aval.shape if perm is None else tuple(aval.shape[axis] for axis in inverse(perm))
    return jax.ShapeDtypeStruct(shape, aval.dtype, weak_type=aval.weak_type)


def _replace(graph: Graph, node: Node, operands: list[Any], params: dict[str, Any], outputs: Permutations) -> None:
    results = graph.emit(node.primitive, operands, {**node.params, **params}, before=node, rule="layout")
    for old, new, perm in zip(node.outputs, results, outputs, strict=True):
        graph.replace(old, permute(graph, new, perm, before=node))
    graph.erase_dead(node)
