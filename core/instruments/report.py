"""The report of a pipeline as data, and as a table."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..cost import flops
from ..manager import Instrument, PassEvent
from ..pipeline import Pipeline
from ..program import Program, operation_count


@dataclasses.dataclass(frozen=True)
class PassRecord:
    """One run of one pass.

    Attributes:
      pass_: the pass with its options, as text.
      plugin: who brought it.
      phase: the phase it stands in, or empty.
      round: round of the enclosing fixpoint, from 0.
      changed: whether it changed the program.
      seconds: wall time of the pass, without what watches.
      operations_before, operations_after: equations, bodies included.
      constant_bytes: size of all constants afterwards.
      flops: estimated operations per run afterwards.
      rules: hits by rule, those that applied.
      declined: how often checks declined, by rule and reason.
      details: what the pass itself had to say.
    """

    pass_: str
    plugin: str
    phase: str
    round: int
    changed: bool
    seconds: float
    operations_before: int
    operations_after: int
    constant_bytes: int
    flops: float
    rules: Mapping[str, int]
    declined: Mapping[str, Mapping[str, int]]
    details: Mapping[str, Any]


class Report(Instrument):
    """Records what every pass did. ``to_json()`` is the data; ``print(report)`` and rich show it as a table."""

    def __init__(self) -> None:
        self.program = ""
        self.pipeline = ""
        self.records: list[PassRecord] = []
        self._measured: tuple[Any, int, int, float] | None = None

    def begin(self, pipeline: Pipeline, program: Program) -> None:
        """Forgets the previous run."""
        self.program, self.pipeline, self.records, self._measured = program.name, str(pipeline), [], None

    def after(self, event: PassEvent) -> None:
        """Adds a record."""
        before, _, _ = self._measure(event.before)
        after, constant_bytes, cost = self._measure(event.result.program)
        rules = event.context.log.rules
        self.records.append(
            PassRecord(
                pass_=str(event.step.pass_),
                plugin=event.step.plugin,
                phase=event.step.phase,
                round=event.round,
                changed=event.result.changed,
                seconds=event.seconds,
                operations_before=before,
                operations_after=after,
                constant_bytes=constant_bytes,
                flops=cost,
                rules={name: s.hits for name, s in rules.items() if s.hits},
                declined={name: dict(s.declined) for name, s in rules.items() if s.declined},
                details=dict(event.result.details),
            )
        )

    def _measure(self, program: Program) -> tuple[int, int, float]:
        """Operations, bytes of constants and flops; kept for the program measured last, where the next pass starts."""
        jaxpr = program.jaxpr
        if self._measured is None or self._measured[0] is not jaxpr:
            self._measured = (jaxpr, operation_count(jaxpr), program.constant_bytes, flops(jaxpr.jaxpr))
        return self._measured[1:]

    def to_json(self) -> str:
        """The whole report as JSON text."""
        data = {
            "program": self.program,
            "pipeline": self.pipeline,
            "seconds": sum(r.seconds for r in self.records),
            "passes": [{f.name.rstrip("_"): getattr(r, f.name) for f in dataclasses.fields(r)} for r in self.records],
        }
        return json.dumps(data, indent=2, default=str)

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        table = Table(title=f"{self.program}: {len(self.records)} passes", title_justify="left")
        for heading in ("pass", "plugin"):
            table.add_column(heading)
        for heading in ("ms", "operations", "constants", "flops"):
            table.add_column(heading, justify="right")
        table.add_column("rules")
        for r in self.records:
            count = str(r.operations_after)
            if r.changed and r.operations_before != r.operations_after:
                count = f"{r.operations_before} -> {r.operations_after}"
            rules = ", ".join(f"{name} {hits}" for name, hits in r.rules.items())
            size, work = _si(r.constant_bytes) + "B", _si(r.flops)
            style = None if r.changed else "dim"
            table.add_row(r.pass_, r.plugin, f"{1e3 * r.seconds:.1f}", count, size, work, rules, style=style)
        return Group(table, *self._choices())

    def _choices(self) -> Iterator[Any]:
        """Tables of what passes chose, and of what they gain by it."""
        from rich.table import Table

        forms = [choice for r in self.records for choice in r.details.get("forms", ())]
        if forms:
            table = Table("operation", "where", "form", title="forms", title_justify="left")
            table.add_column("count", justify="right")
            table.add_column("gain", justify="right")
            counts = collections.Counter(
                (c["operation"], c["where"] or "", c["form"], f"{c['gain']:.2f}x {_how_known(c)}") for c in forms
            )
            for (operation, where, form, gain), count in counts.items():
                table.add_row(operation, where, form, str(count), gain)
            yield table
        for title, rows in (t for r in self.records for t in r.details.get("tables", {}).items()):
            table = Table(*(rows[0] if rows else ()), title=title, title_justify="left")
            for row in rows:
                table.add_row(*map(str, row.values()))
            yield table
        for choice in (c for r in self.records for c in r.details.get("options", ())):
            yield f"compile options: {choice['set']} ({choice['gain']:.2f}x measured)"
        for tuned in (r.details["tuned"] for r in self.records if "tuned" in r.details):
            left = tuned["signatures"] - tuned["measured"] - tuned["known"]
            rest = f", {left} left to the cost model" if left else ""
            yield (
                f"tuning: {tuned['measured']} operations measured in {tuned['seconds']:.1f} s, "
                f"{tuned['known']} known before{rest}"
            )

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


def _how_known(choice: Mapping[str, Any]) -> str:
    return "measured" if choice["measured"] else "estimated"


def _si(value: float) -> str:
    """1234567 as ``1.2M``."""
    for suffix in ("", "k", "M", "G", "T"):
        if value < 1000 or suffix == "T":
            return f"{value:.0f}{suffix}" if not suffix else f"{value:.1f}{suffix}"
        value /= 1000
    raise AssertionError
