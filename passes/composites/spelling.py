"""Ways in which people spell the same thing: patterns that several composites share."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ...core.composites import Composite, attributes_of
from ...core.node import Node, Value
from ...core.patterns import (
    Attempt,
    Bindings,
    Either,
    Op,
    Pattern,
    ScalarVar,
    element_of,
    number,
    op,
    through_broadcasts,
)
from ...core.rewrite import Build, Check, Match
from ..simplify.conversions import is_lossless


def product(*factors: Pattern) -> Either:
    """The product of two or more factors, in whatever order they are multiplied."""
    first, *rest = factors
    ways: list[Pattern] = []
    for size in range(len(rest)):
        for with_first in itertools.combinations(range(len(rest)), size):
            left = [first, *(rest[i] for i in with_first)]
            right = [factor for i, factor in enumerate(rest) if i not in with_first]
            ways.append(op.mul(_one_of(left), _one_of(right)))
    return Either(tuple(ways))


def _one_of(factors: list[Pattern]) -> Pattern:
    return factors[0] if len(factors) == 1 else product(*factors)


def half_of(x: Pattern, factor: Pattern) -> Either:
    """``x * factor / 2``."""
    halved = (op.div(x * factor, 2.0), x * op.div(factor, 2.0), factor * op.div(x, 2.0))
    return Either((*product(number(0.5), x, factor).choices, *halved))


def cube(x: Pattern) -> Pattern:
    """``x ** 3``, other than as a product."""
    return op.integer_pow(x, where=lambda node: node.params["y"] == 3) | op.pow(x, 3.0)


def square(x: Pattern) -> Pattern:
    """``x ** 2``, other than as a product."""
    return op.integer_pow(x, where=lambda node: node.params["y"] == 2) | op.square(x) | op.pow(x, 2.0)


def over(x: Pattern, divisor: float) -> Either:
    """``x / divisor``, as a division or as a product with the reciprocal."""
    return x * about(1 / divisor) | op.div(x, about(divisor))


def about(value: float) -> Pattern:
    """A number that was rounded to the dtype."""
    return number(value, tolerance=1)


def square_of(x: Pattern) -> Pattern:
    """``x ** 2`` in every way, as a product too."""
    return square(x) | op.mul(x, x)


def is_widening(node: Node) -> bool:
    """Whether it converts floats to a wider type, and so keeps every value."""
    if node.name != "convert_element_type":
        return False
    source = node.inputs[0].dtype
    return bool(jnp.issubdtype(source, jnp.floating)) and is_lossless(source, node.outputs[0].dtype)


def is_spreading(node: Node) -> bool:
    """Whether it only adds dimensions of size one, repeats along new dimensions, or takes such away again."""
    return node.name in ("broadcast_in_dim", "reshape", "squeeze", "stop_gradient") or is_widening(node)


def is_regrouping(node: Node) -> bool:
    """Whether it reshapes, or keeps every value in a wider type."""
    return node.name == "reshape" or is_widening(node)


def is_rearrangement(node: Node) -> bool:
    """Whether it only puts dimensions in another order, or takes away some of size one."""
    return node.name in ("transpose", "squeeze")


def is_movement(node: Node) -> bool:
    """Whether it only rearranges or rounds floats."""
    if node.name == "convert_element_type":
        return bool(jnp.issubdtype(node.inputs[0].dtype, jnp.floating))
    return node.name == "transpose" or is_spreading(node)


@dataclasses.dataclass(frozen=True, eq=False)
class Through(Pattern):
    """``inner`` behind any number of operations that ``passes`` accepts; the furthest first.

    Where the inner pattern's dimensions end up is for an `Alignment` to say.
    """

    inner: Pattern
    passes: Callable[[Node], bool] = is_spreading

    def may_be(self, value: Value) -> bool:
        return any(self.inner.may_be(step) for step in self._steps(value))

    def matches(self, value: Value, bindings: Bindings, attempt: Attempt, depth: int) -> Iterator[Bindings]:
        for step in reversed(self._steps(value)):
            yield from self.inner.matches(step, bindings, attempt, depth)

    def _steps(self, value: Value) -> list[Value]:
        steps = [value]
        while (node := steps[-1].producer) is not None and self.passes(node):
            steps.append(node.inputs[0])
        return steps


def widened(x: Pattern) -> Through:
    """``x`` of floats, or converted to a wider type."""
    return Through(x, is_widening)


@dataclasses.dataclass(frozen=True, eq=False)
class Filled(Pattern):
    """A constant array of which all elements are the same number, or a broadcast number; bound as a scalar."""

    name: str

    def may_be(self, value: Value) -> bool:
        return value.is_const or ScalarVar(self.name).may_be(value)

    def matches(self, value: Value, bindings: Bindings, attempt: Attempt, depth: int) -> Iterator[Bindings]:
        constant = through_broadcasts(value)
        number = element_of(constant)
        if number is None:
            attempt.failed(depth, "{} should be one number everywhere and is {}", self.name, value)
            return
        aval = jax.core.ShapedArray((), constant.dtype, weak_type=constant.aval.weak_type)
        scalar_value = Value(aval, const=number, is_literal=True)
        yield from ScalarVar(self.name).matches(scalar_value, bindings, attempt, depth)


def composite_of(name: str, *operands: Pattern, binds: str | None = None) -> Op:
    """A composite that was found already."""
    return op.composite(*operands, where=lambda node: node.params["name"] == name, name=binds)


# -- rules -----------------------------------------------------------------------------------------------------------

Describe = Callable[[Match], "dict[str, Any] | str"]
"""What a match means in terms of a composite's attributes, or why it means nothing."""


def declines(describe: Describe) -> Check:
    """The check of a rule: declines with the reason that ``describe`` gives."""

    def check(match: Match) -> str | None:
        description = describe(match)
        return description if isinstance(description, str) else None

    return check


def no_attributes(match: Match) -> dict[str, Any]:
    """The operation is what its name says."""
    return {}


def outlined(composite: Composite, operands: Sequence[str], describe: Describe = no_attributes) -> Build:
    """The replacement of a rule: the matched operations as ``composite`` of the values bound to ``operands``."""

    def build(match: Match) -> list[Value]:
        attributes = describe(match)
        assert not isinstance(attributes, str)

        def apply(*arrays: Any) -> Any:
            return composite.outline(match, dict(zip(operands, arrays, strict=True)), **attributes)

        return match.graph.splice(apply, *(match[n] for n in operands), before=match.root, rule=match.rule)

    return Build(build)


def same_attributes(match: Match) -> dict[str, Any]:
    """Those of the composite bound to ``inner``, which grows."""
    return attributes_of(match["inner"])


def number_of(match: Match, name: str) -> float:
    """A scalar constant that was bound."""
    return float(match.numpy(name).reshape(()))
