"""`integer-products`: products of dequantized numbers as products of integers, where XLA computes those faster.

``sum((q - z) * s * w * t) = (sum(q * w) - z * sum(w)) * s * t``, where the second sum is known. Convolutions stay:
XLA:CPU gains nothing with integers over a whole network. So do products of few rows, which it computes much slower.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...core.errors import CompileError
from ...core.graph import Graph
from ...core.node import Node, Value
from ...core.pass_ import PassContext, RewritePass
from ...core.patterns import op
from ...core.rewrite import Build, Match, Numerics, Rule
from .composites import dequantized, parameters_of
from .operations import scope_of
from .tables import FEWEST_ROWS

LARGEST_DEPTH = 2**31 // (255 * 128)
"""Of a sum of products that surely fits an int32."""


def _declines(match: Match) -> str | None:
    node: Node = match.root
    rows, matrix = (dequantized(value) for value in node.inputs)
    if rows is None or matrix is None:
        return "its operands do not come from integers"
    if node.params["dimension_numbers"] != (((1,), (0,)), ((), ())) or len(node.inputs[0].shape) != 2:
        return "it is no product of rows and a matrix"
    mine, weights = parameters_of(rows), parameters_of(matrix)
    if mine is None or weights is None or not matrix.inputs[0].is_const:
        return "a scale, or the matrix, is not constant"
    if mine.axis is not None or mine.dtype != "int8" or weights.dtype != "int8" or weights.axis not in (None, 1):
        return "XLA multiplies int8 with one scale by int8 with one scale per column"
    if weights.zero_point.any():
        return "the matrix has a zero point"
    count, depth = node.inputs[0].shape
    if not isinstance(count, int) or count < FEWEST_ROWS:
        return "a product of few rows is faster in float"
    return None if depth < LARGEST_DEPTH else "the sum may overflow"


def _integers(match: Match) -> Value:
    rows, matrix = (dequantized(value) for value in match.root.inputs)
    assert rows is not None and matrix is not None
    p, weights = parameters_of(rows), parameters_of(matrix)
    assert p is not None and weights is not None
    known = (matrix.inputs[0].numpy().astype(np.int64).sum(0) * int(p.zero_point)).astype(np.int32)
    scale = np.asarray(weights.scale.astype(np.float64) * float(p.scale), np.float32)
    constants = [match.graph.constant(jnp.asarray(array)) for array in (known, scale)]
    return match.graph.splice(
        _product, rows.inputs[0], matrix.inputs[0], *constants, before=match.root, rule=match.rule, static=()
    )[0]


def _product(rows: jax.Array, matrix: jax.Array, known: jax.Array, scale: jax.Array) -> Any:
    dimensions = (((1,), (0,)), ((), ()))
    sums = jax.lax.dot_general(rows, matrix, dimensions, preferred_element_type=jnp.int32)
    return (sums - known).astype(jnp.float32) * scale


RULES = (Rule("integer-product", op.dot_general(), Build(_integers), _declines, "reassociating"),)


def _in_float(graph: Graph) -> list[str]:
    """The products of two quantized operands that no rule has made products of integers, each with its line."""
    left = []
    for region in graph.walk():
        for node in region.nodes():
            if node.name == "dot_general" and all(dequantized(value) is not None for value in node.inputs):
                left.append(f"{scope_of(node) or 'dot'} at {node.where or 'an unknown line'}")
    return left


@dataclasses.dataclass(frozen=True)
class IntegerProducts(RewritePass):
    """Multiplies quantized numbers as the integers that they are, where that is faster on a CPU.

    Attributes:
      required: whether it is an error when a product of two quantized operands stays in float.
    """

    name: ClassVar[str] = "integer-products"
    numerics: ClassVar[Numerics] = "reassociating"

    required: bool = False

    @classmethod
    def own_rules(cls) -> Sequence[Rule]:
        """The one for products of rows and a matrix."""
        return RULES

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Applies the rules; raises `CompileError` where products are left that had to become integers."""
        changed = super().apply(graph, context)
        left = _in_float(graph) if self.required else []
        if left:
            reasons = sorted(context.log.rules[RULES[0].name].declined) if RULES[0].name in context.log.rules else []
            listed = "\n".join(f"  {name}" for name in left)
            raise CompileError(
                f"{len(left)} products were quantized, and are none of integers ({'; '.join(reasons)}):\n{listed}",
                hint="quantize{keep=NAME} leaves a product in float",
            )
        return changed
