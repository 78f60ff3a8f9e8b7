"""`inline`: open calls, so that the passes after it see one flat program."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
from jax.extend import core as jex_core

from ..core import _compat
from ..core.graph import Graph
from ..core.node import Node
from ..core.pass_ import GraphPass, PassContext

CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}
"""Primitives that do no more than apply a body to their operands, and the parameter that holds it."""

EXPANDING = "call_hi_primitive"
"""From JAX 0.12 on: an operation that knows its own expansion into others, such as `jnp.searchsorted`."""

STOP_GRADIENT = "stop_gradient"
"""The identity, but for derivatives."""


@dataclasses.dataclass(frozen=True)
class Inline(GraphPass):
    """Opens calls: `jit`, custom derivatives and batching, closed calls, and rematerialization outside of gradients.

    It is for inference: a program whose custom derivatives were opened is differentiated through their bodies, and
    through what stood behind `stop_gradient`.
    """

    name: ClassVar[str] = "inline"
    idempotent: ClassVar[bool] = True

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Opens calls in every region, outer ones first: so each equation is copied once, however deep it stood."""
        kept: collections.Counter[str] = collections.Counter()
        changed, pending, seen = False, [graph], {id(graph)}
        while pending:
            region = pending.pop()
            changed |= _open_calls(region, kept)
            for node in region.nodes():
                inner = [r for r in node.regions.values() if id(r) not in seen]
                seen.update(map(id, inner))
                pending.extend(inner)
        if kept:
            context.details["kept"] = dict(kept)
        return changed


def _open_calls(region: Graph, kept: collections.Counter[str]) -> bool:
    changed, pending = False, _openable(region.nodes())
    while pending:
        node = pending.pop()
        if node.name == STOP_GRADIENT:
            region.replace(node.outputs[0], node.inputs[0])
            region.erase(node)
            changed = True
            continue
        if node.name == EXPANDING:
            pending.extend(_openable(_expand(region, node)))
            changed = True
            continue
        reason = reason_to_keep(node)
        if reason is None:
            pending.extend(_openable(region.inline(node, _closed(node))))
            changed = True
        else:
            kept[f"{node.name}: {reason}"] += 1
    return changed


def _openable(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if node.name in CALLS or node.name in (STOP_GRADIENT, EXPANDING)]


def _expand(region: Graph, node: Node) -> list[Node]:
    operation = next(value for value in node.params.values() if hasattr(value, "expand"))

    def expanded(*arrays: Any) -> Any:
        return operation.expand(*jax.tree_util.tree_unflatten(operation.in_tree, arrays))

    predecessor, successor = node._prev, node._next
    for old, new in zip(node.outputs, region.splice(expanded, *node.inputs, before=node), strict=True):
        region.replace(old, new)
    region.erase(node)
    return region.nodes_between(predecessor, successor)


def reason_to_keep(node: Node) -> str | None:
    """Why the call ``node`` cannot be opened without losing something; None where it can."""
    closed = _closed(node)
    if _compat.has_reference_effects(closed.jaxpr):
        return "its body works on references"
    if not all(_compat.same_placement(eqn.ctx, node.ctx) for eqn in closed.jaxpr.eqns):
        return "it says where its body runs, or annotates it for XLA"
    if node.name in ("remat2", "checkpoint") and node.params["differentiated"]:
        return "what it computes again would be merged with what was computed before"
    return _reason_to_keep_jit(node) if node.name == "jit" else None


def _reason_to_keep_jit(node: Node) -> str | None:
    params = node.params
    shardings = (*params["in_shardings"], *params["out_shardings"])
    if not all(map(_compat.is_unspecified_sharding, shardings)):
        return "it has explicit shardings"
    if any(layout is not None for layout in (*params["in_layouts"], *params["out_layouts"])):
        return "it has explicit layouts"
    if params["compiler_options_kvs"]:
        return "it has compiler options of its own"
    if not _compat.same_mesh(params["ctx_mesh"], node.ctx):
        return "it runs under a mesh of its own"
    return None


def _closed(node: Node) -> jex_core.ClosedJaxpr:
    body: Any = node.params[CALLS[node.name]]
    return body if isinstance(body, jex_core.ClosedJaxpr) else jex_core.ClosedJaxpr(body, ())
