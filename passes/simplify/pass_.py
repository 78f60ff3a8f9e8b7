"""The pass: all families together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from ...core.pass_ import RewritePass
from ...core.rewrite import Rule
from . import arithmetic, comparisons, conversions, joining, loops, reductions, reshaping, slicing


@dataclasses.dataclass(frozen=True)
class Simplify(RewritePass):
    """Removes what does nothing and shortens what can be said shorter, without changing a bit of any result."""

    name: ClassVar[str] = "simplify"
    idempotent: ClassVar[bool] = True

    @classmethod
    def own_rules(cls) -> Sequence[Rule]:
        """The rules of every family."""
        families = (arithmetic, comparisons, conversions, reshaping, slicing, joining, reductions, loops)
        return [rule for family in families for rule in family.RULES]
