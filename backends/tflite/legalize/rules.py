"""All rules of the legalization, in the order in which they are tried."""

from __future__ import annotations

from ....core.rewrite import Rule
from . import arithmetic, bits, casts

_FAMILIES = (arithmetic, bits, casts)

RULES: tuple[Rule, ...] = tuple(rule for family in _FAMILIES for rule in family.RULES)
"""Rules by family."""
