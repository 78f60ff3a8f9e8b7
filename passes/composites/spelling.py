"""Ways in which people spell the same thing: patterns that several composites share."""

from __future__ import annotations

import itertools

from ...core.patterns import Either, Pattern, number, op


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


def over(x: Pattern, divisor: float) -> Pattern:
    """``x / divisor``, as a division or as a product with the reciprocal."""
    return x * about(1 / divisor) | op.div(x, about(divisor))


def about(value: float) -> Pattern:
    """A number that was rounded to the dtype."""
    return number(value, tolerance=1)
