"""All rules of the legalization, in the order in which they are tried."""

from __future__ import annotations

from ....core.rewrite import Rule
from . import (
    arithmetic,
    bits,
    casts,
    convolution,
    empty,
    gathering,
    linear_algebra,
    matrices,
    rank,
    scattering,
    sorting,
    windows,
)

_FAMILIES = (
    empty,
    arithmetic,
    bits,
    casts,
    gathering,
    scattering,
    sorting,
    matrices,
    convolution,
    windows,
    linear_algebra,
    rank,
)

RULES: tuple[Rule, ...] = tuple(rule for family in _FAMILIES for rule in family.RULES)
"""Rules by family."""
