"""The pass `legalize-tflite`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from ....core.graph import Graph
from ....core.pass_ import PassContext, RewritePass
from ....core.program import Program
from ....core.rewrite import Numerics, Rule, RuleIndex, rewrite
from .choice import choose
from .empty import compute_empty_outputs
from .known_keys import fold_known_keys
from .retype import Retyper, needs_retyping
from .rules import RULES

MOST_ROUNDS = 8
"""What a rule builds may hold loops, into whose bodies the next round goes."""


@dataclasses.dataclass(frozen=True)
class LegalizeTFLite(RewritePass):
    """Expresses what TFLite has no kernel for, or a wrong one, in operations that it has.

    First every type is carried in float32, int32, int64 or bool; then rules rewrite what is left, one by one.
    float64 becomes float32, and shorter floats are computed in float32 and rounded where the program converts to them.
    """

    name: ClassVar[str] = "legalize-tflite"
    numerics: ClassVar[Numerics] = "lossy"

    @classmethod
    def own_rules(cls) -> Sequence[Rule]:
        """The rules, one file per family of primitives."""
        return RULES

    def has_work(self, program: Program, context: PassContext) -> bool:
        """Always: even a program of common types may have an operation that a rule rewrites."""
        return True

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Carries types, then applies the rules to every region until none applies."""
        changed = any([fold_known_keys(region) for region in graph.walk()])
        if needs_retyping(graph.to_closed().jaxpr):
            retyper = Retyper(choose)
            retyper.retype_program(graph)
            context.details["carried"] = changed = True
        index = RuleIndex(self.rules(context))
        for _ in range(MOST_ROUNDS):
            again = False
            for region in list(graph.walk()):
                again |= rewrite(region, index, context.log)
            changed |= again
            if not again:
                break
        return compute_empty_outputs(graph) or changed

    def effective_numerics(self, context: PassContext) -> Numerics:
        """The loosest of the rules that applied; carrying types may drop precision."""
        return "lossy" if context.details.get("carried") else super().effective_numerics(context)
