"""`materialize`: have XLA:CPU compute once what it would compute again for each of its users.

XLA puts cheap element-wise operations into every loop that reads their result, however many of them there are: the 49
multiply-adds of a depthwise convolution once for a mean, once for a variance and once for what is normalized by them;
the sum of a residual network from its first block on in each of the later ones; and a cache that is updated once for
every reader, each time in a copy of its own. Where the paths from a value meet again, as in ``x * sigmoid(x)``, they
are one loop anyway.

``optimization_barrier`` does not help, for XLA:CPU removes it before it makes loops. A call that XLA may not inline
does: its operand is written to memory, and returned as it is. The call itself takes less than a microsecond.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import ClassVar

import jax
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

from ..core.graph import Graph
from ..core.node import Node, Value
from ..core.pass_ import GraphPass, PassContext
from ..core.primitives import ELEMENTWISE

MOVEMENTS = frozenset(
    {"broadcast_in_dim", "expand_dims", "iota", "pad", "reshape", "rev", "slice", "squeeze", "transpose"}
)
"""What XLA makes part of a loop besides element-wise operations."""

REDUCTIONS = frozenset({"argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod"}) | {
    "reduce_sum"
}
"""They end a loop, and may have what they read computed within."""

COSTLY = frozenset(
    {"acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "digamma", "erf", "erf_inv"}
    | {"erfc", "exp", "exp2", "expm1", "igamma", "igammac", "lgamma", "log", "log1p", "log2", "logistic", "pow"}
    | {"rsqrt", "sin", "sinh", "sqrt", "tan", "tanh"}
)
"""XLA computes these once by itself."""

LEAST_BYTES = 2**16
"""Smaller values are not worth a loop of their own."""

SMALL_PART = 4
"""An operand this many times smaller than the result, such as a bias, costs nothing to read."""

MOST_READ_AT_ONCE = 8
LEAST_READ_BYTES = 2**24
"""A loop that reads more arrays, and this much in all, keeps them alive for too long: its sum is written half-way."""

MOST_SOURCES = LEAST_READ_BYTES // LEAST_BYTES
"""So many arrays are too many for a value of any size: more need not be told apart."""


@dataclasses.dataclass(frozen=True)
class Materialize(GraphPass):
    """Has values written to memory that XLA:CPU would compute several times over.

    Attributes:
      least_reads: from how many array reads per element on a value is rather written and read.
    """

    least_reads: int = 3

    name: ClassVar[str] = "materialize"
    idempotent: ClassVar[bool] = True

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Goes through every region; how many values are written is reported as ``written``."""
        count = sum(_Region(region, self.least_reads).materialize() for region in graph.walk())
        context.details["written"] = count
        return count > 0


def materialized(x: jax.Array) -> jax.Array:
    """Its operand; as a function of its own, whose name can be seen in the HLO."""
    return x


def _written(x: jax.Array) -> jax.Array:
    with set_xla_metadata(inlineable="false"):
        written: jax.Array = jax.jit(materialized)(x)
    return written


class _Region:
    """One region, whose values are visited in order.

    Attributes:
      meets: for each value, the next one through which all paths from it to the ends of their loops lead, or None.
      reads: for each value visited, how many array elements are read for one of its own, up to what is too many.
      sources: for each value visited, the arrays that are read, or `MOST_SOURCES` of them.
    """

    def __init__(self, graph: Graph, least_reads: int) -> None:
        self.graph = graph
        self.least_reads = least_reads
        self.meets = _meeting_points(graph.nodes())
        self.reads: dict[Value, int] = {}
        self.sources: dict[Value, frozenset[Value]] = {}

    def materialize(self) -> int:
        """Has values written; returns how many."""
        count = 0
        for node in self.graph.nodes():
            if node.name == "dynamic_update_slice" and self._is_updated_again(node.outputs[0]):
                self._insert(node.outputs[0])
                count += 1
                continue
            if not _is_fusible(node) or not all(isinstance(size, int) for size in node.outputs[0].shape):
                continue
            for value in node.outputs:
                self._visit(node, value)
                if self._is_worth_it(value):
                    self._insert(value)
                    count += 1
        return count

    def _is_updated_again(self, value: Value) -> bool:
        """Whether readers of an updated array would each have a copy of the array to update."""
        readers = len(value.users) + (value in self.graph.outputs)
        return readers > 1 and _bytes(value) >= LEAST_BYTES and not all(map(_is_writing, value.users))

    def _visit(self, node: Node, value: Value) -> None:
        large = [v for v in node.inputs if v.const is None and SMALL_PART * _size(v) >= _size(value)]
        if node.name in COSTLY and len(value.users) > 1:
            return
        self.reads[value] = min(sum(self.reads.get(v, 1) for v in large), max(2, self.least_reads))
        found = [self.sources[v] if v in self.sources else frozenset((v,)) for v in dict.fromkeys(large)]
        several = frozenset().union(*found) if len(found) != 1 else found[0]
        if len(several) > MOST_SOURCES:
            several = frozenset(itertools.islice(several, MOST_SOURCES))
        self.sources[value] = several

    def _is_worth_it(self, value: Value) -> bool:
        users = value.users
        if _bytes(value) < LEAST_BYTES or value not in self.reads or all(map(_is_writing, users)):
            return False
        sources = self.sources[value]
        if len(sources) >= MOST_READ_AT_ONCE and len(sources) * _bytes(value) >= LEAST_READ_BYTES:
            return True
        if len(users) < 2 or self.meets.get(value) is not None:
            return False
        again = sum(_is_fusible(user) or user.name in REDUCTIONS for user in users)
        written_anyway = again < len(users)
        return again > 0 and self.reads[value] >= (2 if written_anyway else self.least_reads)

    def _insert(self, value: Value) -> None:
        readers = list(value.uses)
        before = self.graph.after(value)
        (written,) = self.graph.splice(_written, value, before=before, rule="materialize", static=())
        for node, index in readers:
            self.graph.set_operand(node, index, written)


def _meeting_points(nodes: Iterable[Node]) -> dict[Value, Value | None]:
    """The immediate post-dominators in the graph of fusible operations.

    K. Cooper, T. Harvey and K. Kennedy, "A Simple, Fast Dominance Algorithm", 2001; without cycles one sweep suffices.
    """
    meets: dict[Value, Value | None] = {}
    depth: dict[Value, int] = {}
    for node in reversed(list(nodes)):
        for value in node.outputs:
            points = [user.outputs[0] if _is_fusible(user) else None for user in value.users]
            point = points[0] if points else None
            for other in points[1:]:
                while point is not other and point is not None and other is not None:
                    if depth[point] >= depth[other]:
                        point = meets[point]
                    else:
                        other = meets[other]
                point = point if point is other else None
            meets[value] = point
            depth[value] = 0 if point is None else depth[point] + 1
    return meets


def _is_fusible(node: Node) -> bool:
    return (node.name in ELEMENTWISE or node.name in MOVEMENTS) and not node.effects


def _is_writing(node: Node) -> bool:
    return bool(node.name == "jit" and node.params["name"] == materialized.__name__)


def _size(value: Value) -> int:
    """How many elements; 0 where that is not known."""
    sizes = [size for size in value.shape if isinstance(size, int)]
    return math.prod(sizes) if len(sizes) == len(value.shape) else 0


def _bytes(value: Value) -> int:
    try:
        return _size(value) * int(np.dtype(value.dtype).itemsize)
    except TypeError:  # PRNG keys have types of their own
        return 0
