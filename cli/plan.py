"""``--dry-run``: the passes that would run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..core.driver import Plan
from ..core.pass_ import within
from ..core.pipeline import Fixpoint
from ..core.rewrite import Numerics
from .console import aligned


def plan_lines(chosen: Plan, numerics: Numerics) -> Iterator[str]:
    """The resolved pipeline, one pass a line with its phase and the plugin that brought it."""
    yield aligned([("pass", "phase", "plugin"), *_rows(chosen.pipeline.items, numerics, 0)])
    yield ""
    yield f"backend {chosen.backend}, target {chosen.target.name}"


def _rows(items: Any, numerics: Numerics, depth: int) -> Iterator[tuple[str, str, str]]:
    indent = "  " * depth
    for item in items:
        if isinstance(item, Fixpoint):
            yield f"{indent}fixpoint, at most {item.limit} rounds:", "", ""
            yield from _rows(item.body, numerics, depth + 1)
            continue
        left_out = "" if within(item.pass_.numerics, numerics) else f"  (left out: it is {item.pass_.numerics})"
        yield f"{indent}{item.pass_}", item.phase or "-", f"{item.plugin}{left_out}"
