"""Where the dimensions of matched operands end up: whether a mean stands along the axis that it was taken over.

A pattern that looks through broadcasts and reshapes does not see where they put things. Here the dimensions of the
operands are followed through the matched operations, which tells for each value to which dimensions of the operands its
own belong. A dimension that a reshape divides, as group normalization does, becomes several parts side by side;
dimensions of size one belong to nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ...core.composites import inner_nodes
from ...core.node import Node, Value
from ...core.patterns import element_of, through_no_ops
from ...core.rewrite import Match

ELEMENTWISE = frozenset(
    {"abs", "add", "add_any", "convert_element_type", "copy", "copy_p", "div", "exp", "integer_pow", "is_finite", "log",
     "max", "min", "mul", "ne", "neg", "pow", "rsqrt", "select_n", "sqrt", "square", "stop_gradient", "sub", "tanh"}
)  # fmt: skip
REDUCTIONS = frozenset({"reduce_sum", "reduce_max"})

Part = tuple[str, int, int]
"""Of a dimension: the operand, the dimension, and which of the parts that it falls into."""


@dataclasses.dataclass(frozen=True)
class _Factor:
    """A part of a dimension of some value, with its size; ``part`` is None where a broadcast made it."""

    size: Any
    part: Part | None


_Dim = tuple[_Factor, ...]


class _Misaligned(Exception):
    """Says why dimensions cannot be followed."""


class _Divided(Exception):
    """A dimension turned out to consist of parts: begin again."""


def align(match: Match, *names: str) -> Alignment | str:
    """The alignment of the operands bound to ``names`` in a match, or why there is none."""
    try:
        return Alignment(match, names)
    except _Misaligned as misaligned:
        return str(misaligned)


class Alignment:
    """Which dimensions of the operands of a match go together.

    Attributes:
      operands: by name.
      reductions: for each reduction of the match, the parts that it goes over.
    """

    def __init__(self, match: Match, names: Sequence[str]) -> None:
        self.operands: dict[str, Value] = {name: match[name] for name in names}
        self._nodes = inner_nodes(match.root, list(self.operands.values()))
        self._sizes = {(n, d): (s,) for n, v in self.operands.items() for d, s in enumerate(v.shape)}
        while True:
            try:
                self._follow()
                break
            except _Divided:
                continue
        for name in names:
            parts = [part for dim in self.of(self.operands[name]) for part in dim]
            if len(set(parts)) < len(parts):
                raise _Misaligned(f"two dimensions of its {name} come to lie on each other")

    def of(self, value: Value) -> tuple[tuple[Part | None, ...], ...]:
        """For each dimension of ``value``, the parts in it; equal parts lie along each other, None is a broadcast."""
        dims = self._dims_of(value)
        return tuple(tuple(None if f.part is None else self._leader(f.part) for f in dim) for dim in dims)

    def size_of(self, part: Part) -> Any:
        """The size of a part."""
        name, dim, index = part
        return self._sizes[name, dim][index]

    # -- following ---------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        self.reductions: list[frozenset[Part]] = []
        self._leaders: dict[Part, Part] = {}
        self._dims: dict[int, tuple[_Dim, ...]] = {}
        reduced: list[list[_Factor]] = []
        for name, value in self.operands.items():
            self._dims[id(through_no_ops(value))] = tuple(self._own(name, d) for d in range(len(value.shape)))
        for node in self._nodes:
            dims = self._result(node, reduced)
            self._dims.update((id(output), dims) for output in node.outputs)
        for factors in reduced:
            if any(factor.part is None for factor in factors):
                raise _Misaligned("it reduces over what was broadcast")
            self.reductions.append(frozenset(self._leader(f.part) for f in factors if f.part is not None))

    def _own(self, name: str, dim: int) -> _Dim:
        return tuple(_Factor(s, (name, dim, i)) for i, s in enumerate(self._sizes[name, dim]) if not _is_one(s))

    def _dims_of(self, value: Value) -> tuple[_Dim, ...]:
        known = self._dims.get(id(value), self._dims.get(id(through_no_ops(value))))
        if known is not None:
            return known
        if not value.is_const or (value.shape and element_of(value) is None):
            raise _Misaligned("it reads an array besides its operands")
        return _broadcast(value.shape)

    def _result(self, node: Node, reduced: list[list[_Factor]]) -> tuple[_Dim, ...]:
        if all(value.is_const for value in node.inputs):
            return _broadcast(node.outputs[0].shape)
        inputs = [self._dims_of(value) for value in node.inputs]
        if node.name in ELEMENTWISE:
            return self._joined(inputs)
        if node.name == "composite":
            return inputs[0]  # those that are parts of others keep the shape of their first operand
        if node.name in REDUCTIONS:
            axes = set(map(int, node.params["axes"]))
            reduced.append([factor for axis in axes for factor in inputs[0][axis]])
            return tuple(dim for i, dim in enumerate(inputs[0]) if i not in axes)
        if node.name == "dot_general":
            return self._contracted(node, *inputs)
        if node.name == "reshape" and node.params["dimensions"] is None:
            return self._reshaped(inputs[0], node.outputs[0].shape)
        return _moved(node, inputs[0])

    def _joined(self, inputs: list[tuple[_Dim, ...]]) -> tuple[_Dim, ...]:
        rank = max(map(len, inputs))
        if any(len(dims) not in (0, rank) for dims in inputs):
            raise _Misaligned("it joins arrays of different ranks")
        result: tuple[_Dim, ...] = ((),) * rank
        for dims in inputs:
            result = tuple(map(self._join, result, dims)) if dims else result
        return result

    def _join(self, a: _Dim, b: _Dim) -> _Dim:
        if not a or not b:
            return a or b
        sizes = _common_parts([f.size for f in a], [f.size for f in b])
        return tuple(
            _Factor(f.size, self._united(f.part, g.part))
            for f, g in zip(self._divided(a, sizes), self._divided(b, sizes), strict=True)
        )

    def _contracted(self, node: Node, lhs: tuple[_Dim, ...], rhs: tuple[_Dim, ...]) -> tuple[_Dim, ...]:
        (lhs_inner, rhs_inner), (lhs_batch, rhs_batch) = node.params["dimension_numbers"]
        for left, right in zip(lhs_inner, rhs_inner, strict=True):
            self._join(lhs[left], rhs[right])
        batch = tuple(self._join(lhs[i], rhs[j]) for i, j in zip(lhs_batch, rhs_batch, strict=True))
        return batch + tuple(
            dims[i]
            for dims, inner, outer in ((lhs, lhs_inner, lhs_batch), (rhs, rhs_inner, rhs_batch))
            for i in range(len(dims))
            if i not in inner and i not in outer
        )

    def _reshaped(self, dims: tuple[_Dim, ...], shape: Sequence[Any]) -> tuple[_Dim, ...]:
        factors = [factor for dim in dims for factor in dim]
        wanted = [size for size in shape if not _is_one(size)]
        pieces = list(self._divided(tuple(factors), _common_parts([f.size for f in factors], wanted)))
        result = []
        for size in shape:
            taken: list[_Factor] = []
            while not _is_one(size) and (not taken or math.prod(f.size for f in taken) != size):
                taken.append(pieces.pop(0))
            result.append(tuple(taken))
        return tuple(result)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _divided(self, dim: _Dim, sizes: list[Any]) -> _Dim:
        """``dim`` in pieces of these sizes, which are parts of its own; remembers a part that falls apart."""
        pieces, rest = [], list(sizes)
        for factor in dim:
            taken = [rest.pop(0)]
            while math.prod(taken) != factor.size:
                taken.append(rest.pop(0))
            if len(taken) > 1 and factor.part is not None:
                name, d, index = factor.part
                old = self._sizes[name, d]
                self._sizes[name, d] = (*old[:index], *taken, *old[index + 1 :])
                raise _Divided
            pieces += [factor] if len(taken) == 1 else [_Factor(size, None) for size in taken]
        return tuple(pieces)

    def _leader(self, part: Part) -> Part:
        while part in self._leaders:
            part = self._leaders[part]
        return part

    def _united(self, a: Part | None, b: Part | None) -> Part | None:
        if a is None or b is None:
            return a or b
        a, b = self._leader(a), self._leader(b)
        if a != b:
            self._leaders[b] = a
        return a


def _moved(node: Node, dims: tuple[_Dim, ...]) -> tuple[_Dim, ...]:
    if node.name == "transpose":
        return tuple(dims[i] for i in node.params["permutation"])
    if node.name == "squeeze":
        return tuple(dim for i, dim in enumerate(dims) if i not in node.params["dimensions"])
    if node.name == "broadcast_in_dim":
        result = list(_broadcast(node.outputs[0].shape))
        for dim, place in zip(dims, node.params["broadcast_dimensions"], strict=True):
            result[place] = dim or result[place]
        return tuple(result)
    raise _Misaligned(f"its dimensions cannot be followed through {node.name}")


def _broadcast(shape: Sequence[Any]) -> tuple[_Dim, ...]:
    return tuple(() if _is_one(size) else (_Factor(size, None),) for size in shape)


def _is_one(size: Any) -> bool:
    return bool(size == 1)


def _common_parts(a: list[Any], b: list[Any]) -> list[Any]:
    """The coarsest sizes from which both lists can be put together by multiplying neighbours."""
    parts, a, b = [], list(a), list(b)
    while a and b:
        if a[0] == b[0]:
            parts.append(a.pop(0))
            b.pop(0)
        elif (quotient := _quotient(a[0], b[0])) is not None:
            parts.append(b.pop(0))
            a[0] = quotient
        elif (quotient := _quotient(b[0], a[0])) is not None:
            parts.append(a.pop(0))
            b[0] = quotient
        else:
            break
    if a or b:
        raise _Misaligned("a reshape mixes its dimensions")
    return parts


def _quotient(a: Any, b: Any) -> Any:
    """``a / b`` where that is a number, or surely an integer; else None."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a and a % b == 0 else None
    quotient = a // b if not isinstance(b, int) or b else None
    return quotient if quotient is not None and quotient * b == a else None
