"""`dead-code`: remove what no output and no effect needs."""

from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar

from jax.extend import core as jex_core

from ..core import _compat
from ..core.graph import Graph
from ..core.node import Node
from ..core.pass_ import Pass, PassContext, PassResult
from ..core.program import Program


@dataclasses.dataclass(frozen=True)
class DeadCode(Pass):
    """Removes operations, results of control flow and constants that no output and no effect needs."""

    name: ClassVar[str] = "dead-code"
    idempotent: ClassVar[bool] = True

    def run(self, program: Program, context: PassContext) -> PassResult:
        """Lets JAX drop unused results of control flow, as only it knows how to, then drops dead nodes."""
        result, again = program, True
        while again:
            result, again = _eliminate(result, context)
        return PassResult(result, changed=result.jaxpr is not program.jaxpr)


def _eliminate(program: Program, context: PassContext) -> tuple[Program, bool]:
    """One round, and whether another may find more: when a loop has shrunk, what it was given may be dead."""
    closed = program.jaxpr
    if _has_bodies(closed.jaxpr):
        smaller, _ = _compat.eliminate_dead_code(closed, [True] * len(closed.out_avals), instantiate=True)
        if not _same_operations(smaller.jaxpr, closed.jaxpr):
            program = program.replace(jaxpr=smaller)
    graph = context.graphs.take(program)
    shrunk = _clean(graph)
    return context.graphs.settle(graph, program), shrunk


def _has_bodies(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether there are operations of which a part may be dead: calls and control flow."""
    return any(True for eqn in jaxpr.eqns for _ in jex_core.jaxprs_in_params(eqn.params))


def _same_operations(new: jex_core.Jaxpr, old: jex_core.Jaxpr) -> bool:
    """Whether elimination removed nothing; JAX builds new jaxprs either way."""
    pending = [(new, old)]
    while pending:
        a, b = pending.pop()
        if a is b:
            continue
        if len(a.eqns) != len(b.eqns) or len(a.invars) != len(b.invars) or len(a.outvars) != len(b.outvars):
            return False
        for one, other in zip(a.eqns, b.eqns, strict=True):
            if one is not other:
                bodies = map(jex_core.jaxprs_in_params, (one.params, other.params))
                pending.extend(zip(*bodies, strict=True))
    return True


def _clean(graph: Graph) -> bool:
    """Drops dead nodes and constants in every region; returns whether a ``while`` carries less now.

    Outer regions come first, since they decide which results are used.
    """
    shrunk, pending, seen = False, [graph], {id(graph)}
    while pending:
        region = pending.pop()
        for node in reversed(region.nodes()):
            region.erase_dead(node)
            if node.alive and node.name == "while":
                shrunk |= _drop_unused_carries(region, node)
        region.drop_unused_constants()
        for node in region.nodes():
            inner = [r for r in node.regions.values() if id(r) not in seen]
            seen.update(map(id, inner))
            pending.extend(inner)
    return shrunk


def _drop_unused_carries(graph: Graph, node: Node) -> bool:
    """Drops what a ``while`` carries around for nothing: JAX has no rule for it.

    A carried value is needed when its result is used, when the condition reads it, or when the next value of a needed
    one is computed from it.
    """
    condition, body = node.params["cond_jaxpr"], node.params["body_jaxpr"]
    if condition.effects or body.effects:
        return False
    cond_nconsts, body_nconsts = node.params["cond_nconsts"], node.params["body_nconsts"]
    _, reads = _compat.eliminate_dead_code(condition, [True])
    needed: list[bool] = []
    wider = [bool(o.uses) or read for o, read in zip(node.outputs, reads[cond_nconsts:], strict=True)]
    while wider != needed:
        needed = wider
        _, used = _compat.eliminate_dead_code(body, needed)
        wider = [a or b for a, b in zip(needed, used[body_nconsts:], strict=True)]
    new_body, used = _compat.eliminate_dead_code(body, needed, instantiate=[False] * body_nconsts + needed)
    new_condition, reads = _compat.eliminate_dead_code(condition, [True], instantiate=[False] * cond_nconsts + needed)
    if _same_operations(new_body.jaxpr, body.jaxpr) and _same_operations(new_condition.jaxpr, condition.jaxpr):
        return False
    kept = [*reads[:cond_nconsts], *used[:body_nconsts], *needed]
    params = {
        "cond_jaxpr": new_condition,
        "cond_nconsts": sum(reads[:cond_nconsts]),
        "body_jaxpr": new_body,
        "body_nconsts": sum(used[:body_nconsts]),
    }
    inputs = list(itertools.compress(node.inputs, kept))
    outputs = graph.emit(node.primitive, inputs, node.params | params, before=node)
    for old, new in zip(itertools.compress(node.outputs, needed), outputs, strict=True):
        graph.replace(old, new)
    graph.erase_dead(node)
    return True
