"""What the normalizations share: patterns of statistics, of where scale and bias were put, and how they are read.

A normalization is found without a scale, or with one that was multiplied into the reciprocal deviation, as Flax does.
Then it grows: by a conversion back to the type of ``x``, a scale and a bias.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...core.composites import Composite
from ...core.node import Node
from ...core.patterns import Either, Op, Pattern, op, scalar, var
from ...core.rewrite import Match, Rule
from .alignment import Alignment, Part, align
from .spelling import (
    Describe,
    Through,
    composite_of,
    declines,
    is_movement,
    is_regrouping,
    number_of,
    outlined,
    product,
    same_attributes,
    square_of,
    widened,
)

X, SCALE, BIAS = var("x"), var("scale"), var("bias")

COUNT, SHARE = "_count", "_share"
"""Ends of the names of numbers that a sum is divided by, or multiplied with."""


def statistic(pattern: Pattern) -> Through:
    """A statistic, perhaps spread along other dimensions or rounded."""
    return Through(pattern, is_movement)


def mean(x: Pattern, name: str) -> Through:
    """The mean of ``x`` over some axes, as a division or a product; its numbers are called after ``name``."""
    total = statistic(op.reduce_sum(x))
    return statistic(op.div(total, scalar(name + COUNT)) | op.mul(total, scalar(name + SHARE)))


_IN_GROUPS = Through(X, is_regrouping)
"""``x``, in groups of channels perhaps, with the statistics taken over a group."""

CENTERED = op.sub(widened(X), mean(_IN_GROUPS, "mean"))
_ONE_PASS = op.sub(mean(square_of(_IN_GROUPS), "square"), square_of(mean(_IN_GROUPS, "mean")))
CENTERED_ROUNDED = Through(CENTERED, is_movement)
_VARIANCE = mean(square_of(CENTERED_ROUNDED), "variance") | statistic(_ONE_PASS)
VARIANCE = statistic(op.max(0.0, _VARIANCE)) | _VARIANCE
MEAN_SQUARE = mean(square_of(widened(X)), "square")


def over_root(numerator: Pattern, power: Pattern) -> Either:
    """``numerator / sqrt(power + epsilon)``."""
    inverse, root = _inverse_and_root(power)
    return op.mul(numerator, inverse) | op.div(numerator, root)


def scaled_over_root(numerator: Pattern, power: Pattern) -> Either:
    """``scale * numerator / sqrt(power + epsilon)``, where the scale does not come last."""
    inverse, root = _inverse_and_root(power)
    scale = Through(SCALE)
    divided = (op.mul(numerator, op.div(scale, root)), op.div(op.mul(numerator, scale), root))
    return Either((*product(numerator, inverse, scale).choices, *divided))


def _inverse_and_root(power: Pattern) -> tuple[Pattern, Pattern]:
    shifted = statistic(op.add(power, scalar("epsilon")))
    root = statistic(op.sqrt(shifted) | op.pow(shifted, 0.5))
    return statistic(op.rsqrt(shifted) | op.div(1.0, root) | op.pow(shifted, -0.5)), root


# -- meaning ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What the statistics of a match are taken over.

    Attributes:
      alignment: of the operands.
      axes: dimensions of ``x`` in full.
      divided: dimensions of ``x`` in parts: each a number of groups, and elements of one group.
      kept: the others.
    """

    alignment: Alignment
    axes: tuple[int, ...]
    divided: tuple[int, ...]
    kept: tuple[int, ...]

    def parts(self, name: str) -> list[Part | None]:
        """The parts of an operand's dimensions, in order."""
        return [part for dim in self._dims(name) for part in dim]

    def parts_along(self, axes: tuple[int, ...]) -> list[Part | None]:
        """The parts of some dimensions of ``x``, in order."""
        dims = self._dims("x")
        return [part for axis in axes for part in dims[axis]]

    def _dims(self, name: str) -> tuple[tuple[Part | None, ...], ...]:
        return self.alignment.of(self.alignment.operands[name])


def statistics(match: Match) -> Statistics | str:
    """Reads a match with statistics in it; its operands are ``x`` and perhaps ``scale``."""
    alignment = align(match, *(("x", "scale") if "scale" in match.bindings else ("x",)))
    if isinstance(alignment, str):
        return alignment
    dims = alignment.of(match["x"])
    if alignment.of(match.root.outputs[0]) != dims:
        return "its result does not lie along its operand"
    first, *others = alignment.reductions
    if any(other != first for other in others):
        return "its statistics are not all over the same axes"
    reason = _wrong_count(match, [alignment.size_of(part) for part in first])
    if reason is not None:
        return reason
    axes = tuple(i for i, dim in enumerate(dims) if dim and all(part in first for part in dim))
    kept = tuple(i for i, dim in enumerate(dims) if not any(part in first for part in dim))
    divided = tuple(i for i in range(len(dims)) if i not in axes and i not in kept)
    return Statistics(alignment, axes, divided, kept)


def _wrong_count(match: Match, sizes: list[object]) -> str | None:
    """Declines where a mean does not divide by the number of elements, rounded to its type."""
    if not all(isinstance(size, int) for size in sizes):
        return "the number of elements is symbolic"
    count = math.prod(size for size in sizes if isinstance(size, int))
    for name in match.bindings:
        if name.endswith((COUNT, SHARE)):
            have = match.numpy(name).reshape(())
            want = np.asarray(count if name.endswith(COUNT) else 1 / count if count else np.inf).astype(have.dtype)
            if abs(float(have) - float(want)) > float(jnp.finfo(have.dtype).eps) * abs(float(want)):
                return f"a mean of {count} elements does not divide by their number"
    return None


def one_or_all(axes: tuple[int, ...]) -> int | tuple[int, ...]:
    """A single axis as a number."""
    return axes[0] if len(axes) == 1 else axes


def all_of(axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """An attribute ``axis`` as a tuple."""
    return axis if isinstance(axis, tuple) else (axis,)


def over_axes(match: Match) -> dict[str, Any] | str:
    """``axis`` and ``epsilon`` of layer and RMS norm; a scale has the dimensions of the axes."""
    read = statistics(match)
    if isinstance(read, str):
        return read
    if read.divided or not read.axes:
        return "its statistics are not over whole dimensions"
    if "scale" in match.bindings and read.parts("scale") != read.parts_along(read.axes):
        return "its scale does not lie along the axes of its statistics"
    return {"axis": one_or_all(read.axes), "epsilon": number_of(match, "epsilon")}


def lies_along(match: Match, name: str, axes: tuple[int, ...]) -> bool:
    """Whether, in a match without statistics, an operand lies along just these dimensions of ``x``."""
    operands = [n for n in ("x", "scale", "bias") if n in match.bindings]
    alignment = align(match, *operands)
    if isinstance(alignment, str) or alignment.of(match.root.outputs[0]) != alignment.of(match["x"]):
        return False
    dims = alignment.of(match["x"])
    have = [part for dim in alignment.of(match[name]) for part in dim]
    return have == [part for axis in axes for part in dims[axis]]


# -- rules ---------------------------------------------------------------------------------------------------------


def finding_rules(
    composite: Composite, title: str, numerator: Pattern, power: Pattern, describe: Describe
) -> tuple[Rule, ...]:
    """The rules that find a normalization: without a scale, and with one that comes early."""
    plain, scaled = over_root(numerator, power), scaled_over_root(numerator, power)
    return (
        Rule(title, plain, outlined(composite, ("x",), describe), declines(describe)),
        Rule(f"{title}-scaled", scaled, outlined(composite, ("x", "scale"), describe), declines(describe)),
    )


def growing_rules(composite: Composite, title: str) -> tuple[Rule, ...]:
    """The rules by which a normalization takes in a conversion to the type of ``x``, a scale and a bias."""
    bare, scaled = (composite_of(composite.name, *o, binds="inner") for o in ((X,), (X, SCALE)))
    return (
        rounded(composite, f"{title}-rounded", bare, ("x",)),
        Rule(
            f"{title}-times-scale",
            op.mul(bare, Through(SCALE)),
            outlined(composite, ("x", "scale"), _with_parameter("scale")),
            declines(_with_parameter("scale")),
        ),
        *biased_rules(composite, title, scaled),
    )


def biased_rules(composite: Composite, title: str, scaled: Op) -> tuple[Rule, ...]:
    """The rules by which a normalization with a scale takes in a bias and conversions to the type of ``x``."""
    both = composite_of(composite.name, X, SCALE, BIAS, binds="inner")
    return (
        rounded(composite, f"{title}-scaled-rounded", scaled, ("x", "scale")),
        Rule(
            f"{title}-plus-bias",
            op.add(scaled, Through(BIAS)),
            outlined(composite, ("x", "scale", "bias"), _with_parameter("bias")),
            declines(_with_parameter("bias")),
        ),
        rounded(composite, f"{title}-biased-rounded", both, ("x", "scale", "bias")),
    )


def rounded(composite: Composite, name: str, inner: Op, operands: tuple[str, ...]) -> Rule:
    """A conversion back to the type of ``x``."""
    return Rule(name, op.convert_element_type(inner), outlined(composite, operands, same_attributes), _narrows_to_x)


def _narrows_to_x(match: Match) -> str | None:
    inner: Node = match["inner"]
    wide, narrow = inner.outputs[0].dtype, match.root.outputs[0].dtype
    return None if narrow == match["x"].dtype != wide else "it does not convert back to the type of its operand"


def _with_parameter(name: str) -> Describe:
    def describe(match: Match) -> dict[str, Any] | str:
        attributes = same_attributes(match)
        if not lies_along(match, name, all_of(attributes["axis"])):
            return f"its {name} does not lie along its axis"
        return attributes

    return describe


# -- decompositions --------------------------------------------------------------------------------------------------


def spread(parameter: jax.Array, x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """A scale or bias along ``axes`` of ``x``, with ones elsewhere."""
    return parameter.reshape([x.shape[i] if i in axes else 1 for i in range(x.ndim)])
