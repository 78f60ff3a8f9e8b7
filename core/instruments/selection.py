"""Instruments that decide which passes run."""

from __future__ import annotations

from typing import Any

from ..manager import Instrument, PassEvent
from ..pass_ import within
from ..pipeline import Pipeline, Step
from ..program import Program
from ..rewrite import Numerics


class SkipSettled(Instrument):
    """Leaves out an idempotent pass where the program is still the one that it gave back last."""

    def __init__(self) -> None:
        self._results: dict[str, Any] = {}

    def begin(self, pipeline: Pipeline, program: Program) -> None:
        """Forgets the previous run."""
        self._results = {}

    def should_run(self, step: Step, program: Program) -> bool:
        """Whether the pass could find anything that it has not seen."""
        return not step.pass_.idempotent or self._results.get(str(step.pass_)) is not program.jaxpr

    def after(self, event: PassEvent) -> None:
        """Remembers what the pass gave back."""
        if event.step.pass_.idempotent:
            self._results[str(event.step.pass_)] = event.result.program.jaxpr


class PermittedNumerics(Instrument):
    """Leaves out passes that may change results more than the user permits."""

    def __init__(self, allowed: Numerics) -> None:
        self.allowed = allowed

    def should_run(self, step: Step, program: Program) -> bool:
        """Whether the pass's declared numerics is permitted."""
        return within(step.pass_.numerics, self.allowed)
