"""The pass: what the policy names goes into the small type, then casts move to where they cost least."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax.numpy as jnp

from ...core.graph import Graph
from ...core.pass_ import GraphPass, PassContext, PassResult
from ...core.precision import AUTO, find_policy
from ...core.program import Program
from ...core.rewrite import Numerics
from .constants import Constants
from .motion import CastMotion
from .placement import Placement
from .whole import parts_of


@dataclasses.dataclass(frozen=True)
class MixedPrecision(GraphPass):
    """Computes products and convolutions in a small float, added up in float32; keeps float32 where digits matter.

    Inputs and outputs keep their types. Only float32 is made smaller: float64, integers, and what is in a small type
    already stay.

    Attributes:
      dtype: the small type.
      policy: a table of what is computed how; ``auto`` is the target's own, else ``products``.
      keep: names of scopes, such as those of Flax modules, in which everything stays as it is; ``*`` and ``?`` stand
        for any letters.
    """

    dtype: Literal["bfloat16", "float16"] = "bfloat16"
    policy: str = AUTO
    keep: tuple[str, ...] = ()

    name: ClassVar[str] = "mixed-precision"
    numerics: ClassVar[Numerics] = "lossy"

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Places operations, then moves casts; says in the details what it did, and why not more."""
        policy = find_policy(context.registry, self.policy, context.target)
        constants = Constants(jnp.dtype(self.dtype))
        details: dict[str, Any] = context.details
        details["policy"] = policy.name
        whole = parts_of(policy.kept_composites, graph, context.registry)
        changed = Placement(policy, constants, context, self.keep, whole).run(graph)
        changed |= CastMotion(policy, constants).run(graph)
        if constants.bytes:
            details["constant bytes"] = {"before": constants.bytes, "after": constants.bytes // 2}
        return changed

    def run(self, program: Program, context: PassContext) -> PassResult:
        """As every pass on graphs; and verification hears to which dtype values were rounded."""
        return dataclasses.replace(super().run(program, context), rounding=self.dtype)

    def effective_numerics(self, context: PassContext) -> Numerics:
        """Moving casts is exact; only what was put in the small type is rounded."""
        return self.numerics if "small" in context.details else "exact"
