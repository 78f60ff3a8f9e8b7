"""All rules of the legalization, in the order in which they are tried."""

from __future__ import annotations

from ....core.rewrite import Rule
from . import (
    arithmetic,
    bits,
    branches,
    casts,
    convolution,
    empty,
    gathering,
    linear_algebra,
    loops,
    matrices,
    newer,
    rank,
    scattering,
    solves,
    sorting,
    special,
    transposes,
    windows,
)

_FAMILIES = (
    empty,
    newer,
    arithmetic,
    bits,
    branches,
    casts,
    gathering,
    scattering,
    sorting,
    matrices,
    convolution,
    windows,
    solves,
    linear_algebra,
    special,
    loops,
    rank,
    transposes,
)

RULES: tuple[Rule, ...] = tuple(rule for family in _FAMILIES for rule in family.RULES)
"""Rules by family."""
