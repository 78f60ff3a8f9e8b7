"""Where the inputs of bodies come from: the operands of the loops, branches and calls that run them."""

from __future__ import annotations

import collections
import dataclasses

from ...core import _compat
from ...core.graph import Graph
from ...core.node import Node, RegionKey

CALLS = frozenset({"jit", "closed_call", "eval_jaxpr", "core_call", "remat2", "checkpoint"})
"""Primitives whose body takes the operands as they stand. Not among them: custom derivatives, whose rules know the
types of the operands, and composites, which backends may take whole."""


@dataclasses.dataclass(frozen=True)
class Binding:
    """An operand that a body's input stands for.

    Attributes:
      graph: the graph that holds ``node``.
      node: what runs the body.
      index: of the operand.
      invariant: whether each round of a loop sees the same value.
    """

    graph: Graph
    node: Node
    index: int
    invariant: bool


class Bodies:
    """Who runs which body, in one program.

    Attributes:
      graphs: the program's graph and all regions, inner ones first.
    """

    def __init__(self, root: Graph) -> None:
        self.graphs = list(root.walk())
        self._callers: dict[int, list[tuple[Graph, Node, RegionKey]]] = collections.defaultdict(list)
        for graph in self.graphs:
            for node in graph.nodes():
                for key, region in node.regions.items():
                    self._callers[id(region)].append((graph, node, key))

    def bindings(self, region: Graph, index: int) -> list[Binding] | None:
        """The operands that an input stands for, one for each that runs the body; None where it is more than that.

        A carry is more, and so are the inputs of the whole program and of bodies whose operands must keep their types.
        """
        callers = self._callers.get(id(region))
        if not callers:
            return None
        found = []
        for graph, node, key in callers:
            place = _operand(node, key, index)
            if place is None:
                return None
            found.append(Binding(graph, node, *place))
        return found

    def joined(self, region: Graph, index: int) -> list[tuple[Graph, int]] | None:
        """The inputs, of this and other bodies, whose type is that of this input; None as for `bindings`."""
        joined, pending = {(id(region), index): (region, index)}, [(region, index)]
        while pending:
            bindings = self.bindings(*pending.pop())
            if bindings is None:
                return None
            for binding in bindings:
                if binding.node.name != "cond":
                    continue
                for branch in binding.node.regions.values():
                    place = branch, binding.index - 1
                    if (id(branch), place[1]) not in joined:
                        joined[id(branch), place[1]] = place
                        pending.append(place)
        return list(joined.values())


def _operand(node: Node, key: RegionKey, index: int) -> tuple[int, bool] | None:
    """The operand behind input ``index`` of a body, and whether a loop leaves it alone; None for carries and others."""
    if node.name in CALLS:
        return index, False
    if node.name == "cond":
        return index + 1, False  # the first operand says which branch
    if node.name == "scan":
        consts, carries = _compat.scan_sizes(node.params)
        return None if consts <= index < consts + carries else (index, index < consts)
    if node.name == "while":
        before, own = 0, node.params["cond_nconsts"]
        if key[0] == "body_jaxpr":
            before, own = own, node.params["body_nconsts"]
        return (before + index, True) if index < own else None
    return None
