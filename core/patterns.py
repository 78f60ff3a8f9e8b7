"""Patterns over values: what a rule looks for.

A pattern sees through what does not change a value: conversions to the type it has already, copies, and, where a scalar
is wanted, broadcasts. Operands of commutative primitives match in either order. So one spelling finds the usual ones:

    x = var("x")
    silu = op.mul(x, op.logistic(x))        # also logistic(x) * x
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .node import Node, Value
from .values import LOOKED_THROUGH as LOOKED_THROUGH
from .values import TRANSPARENT as TRANSPARENT
from .values import as_scalar, epsilon_of, is_numeric, may_be_scalar, rounded_to
from .values import describe as describe
from .values import element_of as element_of
from .values import same_value as same_value
from .values import scalar_of as scalar_of
from .values import through_broadcasts as through_broadcasts
from .values import through_no_ops as through_no_ops

COMMUTATIVE = frozenset({"add", "add_any", "mul", "max", "min", "and", "or", "xor", "eq", "ne"})
"""Primitives whose two operands may be exchanged without changing a bit of the result."""


class Attempt:
    """One try of a pattern, with how far it came: the explanation of a near miss."""

    __slots__ = ("_parts", "_template", "depth")

    def __init__(self) -> None:
        self.depth = 0
        self._template = ""
        self._parts: tuple[Any, ...] = ()

    def failed(self, depth: int, template: str, *parts: Any) -> None:
        """Remembers why, when the match had come further than before; ``{}`` in the template stands for a part."""
        if depth > self.depth or not self._template:
            self.depth, self._template, self._parts = depth, template, parts

    @property
    def reason(self) -> str:
        """Why it failed, as text, which is made only when it is wanted: nearly every attempt fails."""
        if not self._parts:
            return self._template
        return self._template.format(*(describe(part) if isinstance(part, Value) else part for part in self._parts))


Bindings = dict[str, Any]
"""Pattern names to what they matched: a `Value` for variables and constants, a `Node` for named operations."""


class Pattern:
    """Something that matches a value. Arithmetic on patterns builds larger ones."""

    def matches(self, value: Value, bindings: Bindings, attempt: Attempt, depth: int) -> Iterator[Bindings]:
        """Yields the bindings of every way in which ``value`` matches, given those made so far."""
        raise NotImplementedError

    def may_be(self, value: Value) -> bool:
        """False where ``value`` surely does not match: a quick look, to save the full attempt."""
        return True

    def __add__(self, other: Pattern | float) -> Op:
        return Op(("add", "add_any"), (self, as_pattern(other)))

    def __radd__(self, other: Pattern | float) -> Op:
        return as_pattern(other) + self

    def __mul__(self, other: Pattern | float) -> Op:
        return Op(("mul",), (self, as_pattern(other)))

    def __rmul__(self, other: Pattern | float) -> Op:
        return as_pattern(other) * self

    def __sub__(self, other: Pattern | float) -> Op:
        return Op(("sub",), (self, as_pattern(other)))

    def __rsub__(self, other: Pattern | float) -> Op:
        return as_pattern(other) - self

    def __truediv__(self, other: Pattern | float) -> Op:
        return Op(("div",), (self, as_pattern(other)))

    def __rtruediv__(self, other: Pattern | float) -> Op:
        return as_pattern(other) / self

    def __neg__(self) -> Op:
        return Op(("neg",), (self,))

    def __or__(self, other: Pattern) -> Either:
        return Either((self, other))


@dataclasses.dataclass(frozen=True, eq=False)
class Var(Pattern):
    """Any value; where the same name stands twice, the same value twice."""

    name: str
    const: bool = False

    def may_be(self, value: Value) -> bool:
        """Whether the value is a constant, where it should be."""
        return not self.const or value.const is not None

    def matches(self, value: Value, bindings: Bindings, attempt: Attempt, depth: int) -> Iterator[Bindings]:
        if self.const and not value.is_const:
            attempt.failed(depth, "{} should be a constant and is {}", self.name, value)
            return
        bound = bindings.get(self.name)
        if bound is None:
            yield {**bindings, self.name: value}
        elif same_value(bound, value):
            yield bindings
        else:
            attempt.failed(depth, "{} stands for two different values here", self.name)


@dataclasses.dataclass(frozen=True, eq=False)
class Number(Pattern):
    """A scalar constant, perhaps broadcast.

    It is compared in the dtype of the constant, so 0.1 matches any float type's nearest number; zeros of different sign
    differ. ``tolerance`` is relative, in units of that dtype's epsilon.
    """

    value: complex
    tolerance: float = 0.0

    def may_be(self, value: Value) -> bool:
        """Whether one number may stand behind the value."""
        return may_be_scalar(value)

    def matches(self, value: Value, bindings: Bindings, attempt: Attempt, depth: int) -> Iterator[Bindings]:
        have = scalar_of(value)
        if have is not None and self._equals(have):
            yield bindings
        else:
            attempt.failed(depth, "expected the number {:g} and found {}", self.value, value)

    def _equals(self, have: Any) -> bool:
        if self.tolerance:
            return bool(abs(complex(have) - self.value) <= self.tolerance * epsilon_of(have.dtype) * abs(self.value))
        if abs(complex(have) - self.value) > abs(self.value) / 2:  # farther than any rounding, and quick to see
            return False
        want = rounded_to(self.value, have.dtype)
        if want is None or have != want:
            return False
        return bool(have != 0 or np.iscomplexobj(have) or np.signbit(float(have)) == np.signbit(float(want)))


@dataclasses.dataclass(frozen=True, eq=False)
class ScalarVar(Pattern):
    """A scalar constant of any value, perhaps broadcast; bound to a value of shape ``()``."""

    name: str

    def may_be(self, value: Value) -> bool:
        """Whether one number may stand behind the value."""
        return may_be_scalar(value)

    def matches(self, value: Value, bindings: Bindings, attempt: Attempt, depth: int) -> Iterator[Bindings]:
        inner = through_broadcasts(value)
        if inner.is_const and is_numeric(inner.aval.dtype) and np.size(inner.const) == 1:
            yield from Var(self.name).matches(as_scalar(inner), bindings, attempt, depth)
        else:
            attempt.failed(depth, "{} should be a scalar constant and is {}", self.name, value)


@dataclasses.dataclass(frozen=True, eq=False)
class Op(Pattern):
    """An equation with one of ``names`` as its primitive, whose operands match ``operands``.

    Attributes:
      names: names of primitives.
      operands: one pattern per operand; None matches any operands.
      where: a further condition on the node.
      name: binds the node under this name.
      output: which result of the node is meant.
    """

    names: tuple[str, ...]
    operands: tuple[Pattern, ...] | None = None
    where: Callable[[Node], bool] | None = None
    name: str | None = None
    output: int = 0

    def matches(self, value: Value, bindings: Bindings, attempt: Attempt, depth: int) -> Iterator[Bindings]:
        value = value if _produced_by(value, self.names) else through_no_ops(value)
        node = value.producer
        if node is None or node.name not in self.names or value.index != self.output:
            attempt.failed(depth, "expected {} and found {}", " or ".join(self.names), value)
            return
        yield from self.matches_node(node, bindings, attempt, depth)

    def may_be(self, value: Value) -> bool:
        """Whether the producer has one of the names, perhaps behind what changes nothing."""
        node = value.producer
        if node is None:
            return False
        if node.name in self.names:
            return True
        return node.name in TRANSPARENT and _produced_by(through_no_ops(value), self.names)

    @functools.cached_property
    def may_match(self) -> Callable[[Node], bool]:
        """False of a node that surely does not match: its parameters and the operands one level up are looked at."""
        if self.operands is None:
            return self.where or (lambda node: True)
        where, count, looks = self.where, len(self.operands), self._quick_looks
        one, same = self._repeated

        def look(node: Node) -> bool:
            inputs = node.inputs
            if len(inputs) != count or (where is not None and not where(node)):
                return False
            if one != same and not same_value(inputs[one], inputs[same]):
                return False
            for index, may_be in looks:
                if not may_be(inputs[index]):
                    break
            else:
                return True
            return node.name in COMMUTATIVE and all([may_be(inputs[count - 1 - index]) for index, may_be in looks])

        return look

    @functools.cached_property
    def _quick_looks(self) -> list[tuple[int, Callable[[Value], bool]]]:
        """The operands about which a quick look says anything."""
        operands = enumerate(self.operands or ())
        return [(index, p.may_be) for index, p in operands if _can_tell(p)]

    @functools.cached_property
    def _repeated(self) -> tuple[int, int]:
        """Two operands that must be one value; twice the same where there are none."""
        first: dict[str, int] = {}
        for index, pattern in enumerate(self.operands or ()):
            if isinstance(pattern, Var) and first.setdefault(pattern.name, index) != index:
                return first[pattern.name], index
        return 0, 0

    def matches_node(self, node: Node, bindings: Bindings, attempt: Attempt, depth: int) -> Iterator[Bindings]:
        """As `matches`, for a node."""
        if node.name not in self.names or node.effects:
            return
        if self.where is not None and not self.where(node):
            attempt.failed(depth, "the parameters of {} do not fit", node.name)
            return
        if self.name is not None:
            bindings = {**bindings, self.name: node}
        if self.operands is None:
            yield bindings
            return
        if len(self.operands) != len(node.inputs):
            counts = len(node.inputs), len(self.operands)
            attempt.failed(depth, "{} has {} operands, not {}", node.name, *counts)
            return
        yield from self._match_operands(node.inputs, bindings, attempt, depth + 1)
        if node.name in COMMUTATIVE and node.inputs[0] is not node.inputs[1]:
            yield from self._match_operands(node.inputs[::-1], bindings, attempt, depth + 1)

    def _match_operands(
        self, values: list[Value], bindings: Bindings, attempt: Attempt, depth: int
    ) -> Iterator[Bindings]:
        assert self.operands is not None
        if not values:
            yield bindings
            return
        position = 0
        stack = [self.operands[0].matches(values[0], bindings, attempt, depth)]
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
                position -= 1
                continue
            if position == len(values) - 1:
                yield found
                continue
            position += 1
            stack.append(self.operands[position].matches(values[position], found, attempt, depth + position))


@dataclasses.dataclass(frozen=True, eq=False)
class Either(Pattern):
    """The first of several patterns that matches; on backtracking, the next. A choice of operations can be a root."""

    choices: tuple[Pattern, ...]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the primitives at the roots of the choices."""
        return tuple(dict.fromkeys(itertools.chain.from_iterable(c.names for c in self._operations())))

    def may_be(self, value: Value) -> bool:
        """Whether one of the choices may match."""
        return any(choice.may_be(value) for choice in self.choices)

    @functools.cached_property
    def may_match(self) -> Callable[[Node], bool]:
        """False of a node that surely does not match."""
        looks = {name: [c.may_match for c in self._operations() if name in c.names] for name in self.names}
        return lambda node: any([look(node) for look in looks.get(node.name, ())])

    def matches_node(self, node: Node, bindings: Bindings, attempt: Attempt, depth: int) -> Iterator[Bindings]:
        """As `matches`, for a node."""
        return itertools.chain.from_iterable(c.matches_node(node, bindings, attempt, depth) for c in self._operations())

    def _operations(self) -> Iterator[Op | Either]:
        for choice in self.choices:
            if not isinstance(choice, Op | Either):
                raise TypeError(f"{type(choice).__name__} is no operation, and cannot be the root of a rule")
            yield choice

    def matches(self, value: Value, bindings: Bindings, attempt: Attempt, depth: int) -> Iterator[Bindings]:
        return itertools.chain.from_iterable(c.matches(value, bindings, attempt, depth) for c in self.choices)


class _Operations:
    """``op.tanh(x)`` is the pattern of a ``tanh`` equation; keywords are `Op`'s ``where``, ``name`` and ``output``."""

    def __getattr__(self, primitive: str) -> Callable[..., Op]:
        def build(*operands: Pattern | float, **keywords: Any) -> Op:
            return Op((primitive.rstrip("_"),), tuple(map(as_pattern, operands)) or None, **keywords)

        return build


op = _Operations()


def var(name: str) -> Var:
    """Any value, bound to ``name``."""
    return Var(name)


def const(name: str) -> Var:
    """A constant array or scalar, bound to ``name``."""
    return Var(name, const=True)


def scalar(name: str) -> ScalarVar:
    """A scalar constant, perhaps broadcast, bound to ``name``."""
    return ScalarVar(name)


def number(value: complex, *, tolerance: float = 0.0) -> Number:
    """The scalar ``value``; ``tolerance`` in units of the dtype's epsilon, relative."""
    return Number(value, tolerance)


def as_pattern(value: Pattern | complex) -> Pattern:
    """Numbers stand for themselves."""
    return value if isinstance(value, Pattern) else Number(value)


def _can_tell(pattern: Pattern) -> bool:
    """Whether a quick look can rule the pattern out."""
    return pattern.const if isinstance(pattern, Var) else type(pattern).may_be is not Pattern.may_be


def _produced_by(value: Value, names: tuple[str, ...]) -> bool:
    return value.producer is not None and value.producer.name in names
