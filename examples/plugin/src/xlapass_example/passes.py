"""Two passes: one that changes programs, and one that only looks."""

import collections
import dataclasses
from typing import Any, ClassVar

import numpy as np
from xlapass import Graph, GraphPass, PassContext

MANTISSA_BITS = 23
"""Of float32."""


@dataclasses.dataclass(frozen=True)
class RoundWeights(GraphPass):
    """Rounds float32 weights, to nearest and ties to even, so that a saved model compresses well.

    Attributes:
      mantissa_bits: how many bits of the mantissa stay, 0 to 23.
    """

    name: ClassVar[str] = "round-weights"
    numerics: ClassVar[Any] = "lossy"

    mantissa_bits: int = 7

    def __post_init__(self) -> None:
        if not 0 <= self.mantissa_bits <= MANTISSA_BITS:
            raise ValueError(f"mantissa-bits must be 0 to {MANTISSA_BITS}, and is {self.mantissa_bits}")

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Replaces every closed-over array that rounding changes."""
        changed = False
        for region in graph.walk():
            for weights in region.constants:
                if weights.dtype != np.float32 or not weights.uses:
                    continue
                before = weights.numpy()
                after = rounded(before, self.mantissa_bits)
                if before.tobytes() != after.tobytes():
                    region.replace(weights, region.constant(after))
                    changed = True
        return changed


def rounded(array: np.ndarray, bits: int) -> np.ndarray:
    """float32 numbers with ``bits`` bits of mantissa; infinities and NaN stay."""
    dropped = MANTISSA_BITS - bits
    if dropped == 0:
        return array
    raw = array.view(np.uint32).astype(np.uint64)
    half, odd = (1 << (dropped - 1)) - 1, (raw >> dropped) & 1
    rounded_up = ((raw + half + odd) >> dropped << dropped).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(array), rounded_up, array)


@dataclasses.dataclass(frozen=True)
class CountWeights(GraphPass):
    """Adds to the report how many weights of which type the program holds; changes nothing."""

    name: ClassVar[str] = "count-weights"

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Counts elements by dtype."""
        counts: collections.Counter[str] = collections.Counter()
        for region in graph.walk():
            for weights in region.constants:
                counts[str(weights.dtype)] += int(np.prod(weights.shape))
        context.details["weights"] = dict(counts)
        return False
