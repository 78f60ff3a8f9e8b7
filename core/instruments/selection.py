"""Instruments that decide which passes run."""

from __future__ import annotations

from ..manager import Instrument
from ..pass_ import within
from ..pipeline import Step
from ..program import Program
from ..rewrite import Numerics


class PermittedNumerics(Instrument):
    """Leaves out passes that may change results more than the user permits."""

    def __init__(self, allowed: Numerics) -> None:
        self.allowed = allowed

    def should_run(self, step: Step, program: Program) -> bool:
        """Whether the pass's declared numerics is permitted."""
        return within(step.pass_.numerics, self.allowed)
