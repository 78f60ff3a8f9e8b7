"""What stands around an operation: transposes, whose cost depends on the form that takes the operation's place.

XLA:CPU folds a transpose into some products, loops and convolutions and copies for others. An operation is therefore
measured together with the transposes that it reads and that read it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jax import lax

from ...core.forms import Signature
from ...core.node import Node, Value

Permutation = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The transposes around an operation.

    Attributes:
      operands: per operand, how it was transposed right before, or None.
      results: per result, how every reader transposes it, or None.
    """

    operands: tuple[Permutation | None, ...] = ()
    results: tuple[Permutation | None, ...] = ()

    @classmethod
    def of_node(cls, node: Node) -> Neighbours:
        """What stands around a node of a graph."""
        return cls(tuple(map(_transposed_before, node.inputs)), tuple(map(_transposed_after, node.outputs)))

    def __str__(self) -> str:
        sides = [("after", self.operands), ("before", self.results)]
        return " ".join(f"{word} {_text(side)}" for word, side in sides if any(side))

    def operand(self, index: int, array: Any) -> Any:
        """The operand as the operation reads it, from what stands before the transpose."""
        permutation = self.operands[index] if self.operands else None
        return array if permutation is None else lax.transpose(array, permutation)

    def source(self, index: int, array: Any) -> Any:
        """What stands before the transpose, from the operand."""
        permutation = self.operands[index] if self.operands else None
        if permutation is None:
            return array
        return lax.transpose(array, sorted(range(len(permutation)), key=permutation.__getitem__))

    def result(self, index: int, array: Any) -> Any:
        """What the readers see of a result."""
        permutation = self.results[index] if self.results else None
        return array if permutation is None else lax.transpose(array, permutation)


ALONE = Neighbours()
"""No transposes around the operation."""


def subject(signature: Signature, neighbours: Neighbours) -> str:
    """The key of measured times: an operation and what stands around it."""
    return " ".join(filter(None, (signature.key, str(neighbours))))


def _transposed_before(value: Value) -> Permutation | None:
    producer = value.producer
    return tuple(producer.params["permutation"]) if producer is not None and producer.name == "transpose" else None


def _transposed_after(value: Value) -> Permutation | None:
    users = value.users
    if not users or any(user.name != "transpose" for user in users):
        return None
    permutations = {tuple(user.params["permutation"]) for user in users}
    return permutations.pop() if len(permutations) == 1 else None


def _text(side: tuple[Permutation | None, ...]) -> str:
    return ", ".join("-" if one is None else f"transpose{list(one)}".replace(" ", "") for one in side)
