"""Operations that together mean one, such as a softmax: what a policy keeps whole, its parts stay as they are."""

from __future__ import annotations

from collections.abc import Collection

from ...core.composites import composites, inner_nodes
from ...core.graph import Graph
from ...core.node import Node, Value
from ...core.plugins import Registry
from ...core.rewrite import find


def parts_of(names: Collection[str], graph: Graph, registry: Registry) -> set[Node]:
    """The operations of ``graph`` and below that the rules of the composites of these names recognise as parts of one.

    Nothing is rewritten; and it does not matter here whether a value inside is used elsewhere too.
    """
    rules = [rule for name, one in composites(registry).items() if name in names for rule in one.rules]
    parts: set[Node] = set()
    for region in graph.walk() if rules else ():
        for rule in rules:
            for match in find(region, rule.pattern):
                if rule.check is None or rule.check(match) is None:
                    operands = [bound for bound in match.bindings.values() if isinstance(bound, Value)]
                    parts.update(inner_nodes(match.root, operands))
    return parts
