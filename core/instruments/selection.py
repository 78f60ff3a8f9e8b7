"""Instruments that decide which passes run."""

from __future__ import annotations

from typing import Any

from ..errors import UsageError
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


def require_promised(pipeline: Pipeline, allowed: Numerics) -> None:
    """Raises `UsageError` where a pass with which the pipeline promises something may not run: see `Pass.promises`."""
    for step in pipeline.steps():
        pass_ = step.pass_
        if pass_.promises and not within(pass_.numerics, allowed):
            raise UsageError(
                f"{pass_.promises} is not allowed under numerics {allowed!r}: pass {pass_.name!r} is {pass_.numerics}",
                hint=f"permit numerics {pass_.numerics!r}, or choose a pipeline without {pass_.name!r}",
            )


class PermittedNumerics(Instrument):
    """Leaves out passes that may change results more than the user permits; see `require_promised`."""

    def __init__(self, allowed: Numerics) -> None:
        self.allowed = allowed

    def begin(self, pipeline: Pipeline, program: Program) -> None:
        """Fails at once where without the passes that are left out the pipeline would be another."""
        require_promised(pipeline, self.allowed)

    def should_run(self, step: Step, program: Program) -> bool:
        """Whether the pass's declared numerics is permitted."""
        return within(step.pass_.numerics, self.allowed)
