"""`fuse`: recognise composites."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

from ..core.composites import composites, kernel_names, used_elsewhere
from ..core.graph import Graph
from ..core.pass_ import PassContext, RewritePass
from ..core.plugins import Registry
from ..core.rewrite import Check, Match, Rule


@dataclasses.dataclass(frozen=True)
class Fuse(RewritePass):
    """Turns operations that together mean one, such as GELU, into a composite that backends and kernels know.

    The rules are those of the composites that plugins bring.

    Attributes:
      with_kernel: only composites for which a plugin brings a kernel on the target's platform.
      of: only these composites, by name, as far as plugins bring them; empty means all but those that want to be
        asked for.
    """

    name: ClassVar[str] = "fuse"

    with_kernel: bool = False
    of: tuple[str, ...] = ()

    @classmethod
    def own_rules(cls) -> Sequence[Rule]:
        """None: all come with composites."""
        return ()

    @classmethod
    def known_rules(cls, registry: Registry) -> list[Rule]:
        """The rules of composites, and those that plugins add; each declines where it would compute something twice."""
        of_composites = [rule for composite in composites(registry).values() for rule in composite.rules]
        rules = [*of_composites, *super().known_rules(registry)]
        return [dataclasses.replace(rule, check=_also_unshared(rule.check)) for rule in rules]

    def rules(self, context: PassContext) -> list[Rule]:
        """The rules of this run; none are loaded where a kernel is asked for and no plugin brings one."""
        wanted = set(self.of)
        if self.with_kernel:
            having = kernel_names(context.registry, context.target.platform) if context.target is not None else set()
            wanted = having & wanted if self.of else having
            if not wanted:
                return []
        known = composites(context.registry)
        names = {name: {rule.name for rule in composite.rules} for name, composite in known.items()}
        if wanted:
            of_wanted = set[str]().union(*(rules for name, rules in names.items() if name in wanted))
            return [rule for rule in super().rules(context) if rule.name in of_wanted]
        left_out = set[str]().union(*(names[name] for name, composite in known.items() if not composite.by_default))
        return [rule for rule in super().rules(context) if rule.name not in left_out]

    def regions(self, graph: Graph) -> Iterator[Graph]:
        """All but the bodies of composites, in which the same operations stand again."""
        pending, seen, found = [graph], {id(graph)}, []
        while pending:
            region = pending.pop()
            found.append(region)
            for node in region.nodes():
                if node.name != "composite":
                    inner = [r for r in node.regions.values() if id(r) not in seen]
                    seen.update(map(id, inner))
                    pending.extend(inner)
        return iter(reversed(found))


def _also_unshared(check: Check | None) -> Check:
    def both(match: Match) -> str | None:
        reason = check(match) if check is not None else None
        return reason if reason is not None else used_elsewhere(match)

    return both
