"""`PassManager`: runs a pipeline over a program. Everything that watches is an `Instrument` on its one seam."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
from jax.extend import core as jex_core

from .errors import PassError, UsageError, XlapassError
from .lowering import lower_to_stablehlo
from .options import suggestion
from .pass_ import NUMERICS_ORDER, GraphKeeper, PassContext, PassResult
from .pipeline import Fixpoint, Pipeline, PipelineLike, Step, resolve
from .plugins import Registry, load_registry
from .program import Program
from .rewrite import Numerics, RewriteLog
from .target import Target


@dataclasses.dataclass(frozen=True)
class PassEvent:
    """One run of one pass, as instruments see it afterwards.

    Attributes:
      step: the pass and its origin.
      before: the program that it was given.
      result: what it returned.
      context: what it knew, with its rewrite statistics.
      seconds: wall time of the pass alone.
      round: 0, or how often the enclosing fixpoint had gone round before.
    """

    step: Step
    before: Program
    result: PassResult
    context: PassContext
    seconds: float
    round: int

    @property
    def numerics(self) -> Numerics:
        """What the pass may have done to results in this run."""
        return self.result.numerics or self.step.pass_.numerics


class Instrument:
    """Something that watches a pipeline. Every method is optional."""

    def begin(self, pipeline: Pipeline, program: Program) -> None:
        """Before the first pass."""

    def should_run(self, step: Step, program: Program) -> bool:
        """Whether to run a pass; it runs when every instrument agrees."""
        return True

    def before(self, step: Step, program: Program) -> None:
        """Before a pass that will run."""

    def progress(self, done: int, total: int, what: str) -> None:
        """During a pass that takes long: how many of its parts are done, of how many, and which one comes next."""

    def after(self, event: PassEvent) -> None:
        """After a pass; raises to stop the pipeline."""

    def end(self, program: Program) -> None:
        """After the last pass."""


class PassManager:
    """Runs pipelines.

    Args:
      pipeline: text, passes, or a resolved `Pipeline`.
      registry: the plugins; by default those that are installed.
      target: what the program is for, when passes should know.
      numerics: the loosest change to results that is permitted.
      instruments: what watches; by default structural verification.
      explain: names of rules whose near misses are recorded in the rewrite logs.
      pipeline_name: the name by which plugins' phases know the pipeline.
    """

    def __init__(
        self,
        pipeline: PipelineLike = "",
        *,
        registry: Registry | None = None,
        target: Target | None = None,
        numerics: Numerics = "lossy",
        instruments: Sequence[Instrument] | None = None,
        explain: Iterable[str] = (),
        pipeline_name: str | None = None,
    ) -> None:
        if numerics not in NUMERICS_ORDER:
            raise UsageError(f"numerics cannot be {numerics!r}", hint=suggestion(str(numerics), NUMERICS_ORDER))
        self.registry = registry if registry is not None else load_registry()
        self.pipeline = resolve(pipeline, self.registry, name=pipeline_name)
        self.target = target
        self.numerics = numerics
        self.instruments = default_instruments(numerics) if instruments is None else list(instruments)
        self.explain = frozenset(explain)
        self._graphs = GraphKeeper()

    def run(self, program: Program) -> Program:
        """Returns the program after every pass.

        Raises:
          UsageError: ``program`` is no `Program`.
          PassError: a pass raised or returned nonsense; the message names it and its plugin.
          VerificationError: a pass broke the program.
        """
        if not isinstance(program, Program):
            raise UsageError(
                f"passes run over an xlapass.Program, and not over something of type {type(program).__name__}",
                hint="xlapass.trace(fn, *example_args) makes one of a function",
            )
        for instrument in self.instruments:
            instrument.begin(self.pipeline, program)
        with _paused_garbage_collection():
            program, _ = self._run_items(self.pipeline.items, program, 0)
            self._graphs = GraphKeeper()
        for instrument in self.instruments:
            instrument.end(program)
        return program

    def _run_items(self, items: Sequence[Step | Fixpoint], program: Program, round_: int) -> tuple[Program, bool]:
        changed = False
        for item in items:
            if isinstance(item, Step):
                program, step_changed = self._run_step(item, program, round_)
            else:
                program, step_changed = self._run_fixpoint(item, program)
            changed |= step_changed
        return program, changed

    def _run_fixpoint(self, fixpoint: Fixpoint, program: Program) -> tuple[Program, bool]:
        changed = False
        for round_ in range(fixpoint.limit):
            program, again = self._run_items(fixpoint.body, program, round_)
            changed |= again
            if not again:
                break
        return program, changed

    def _run_step(self, step: Step, program: Program, round_: int) -> tuple[Program, bool]:
        if not all(instrument.should_run(step, program) for instrument in self.instruments):
            return program, False
        if step.pass_.level == "stablehlo" and program.level == "jaxpr":
            program = lower_to_stablehlo(program, self.target)
        for instrument in self.instruments:
            instrument.before(step, program)
        context = PassContext(
            self.registry,
            self.target,
            self.numerics,
            RewriteLog(explain=self.explain),
            report_progress=self._report_progress,
            graphs=self._graphs,
        )
        start = time.perf_counter()
        result = _run_pass(step, program, context)
        event = PassEvent(step, program, result, context, time.perf_counter() - start, round_)
        for instrument in self.instruments:
            instrument.after(event)
        if not result.changed:
            return program, False
        numerics = max(program.numerics, event.numerics, key=NUMERICS_ORDER.index)
        return result.program.replace(history=(*program.history, str(step.pass_)), numerics=numerics), True

    def _report_progress(self, done: int, total: int, what: str) -> None:
        for instrument in self.instruments:
            instrument.progress(done, total, what)


@contextlib.contextmanager
def _paused_garbage_collection() -> Iterator[None]:
    """Graphs are many small objects that live until their pass ends; collecting among them takes longer than passes."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _run_pass(step: Step, program: Program, context: PassContext) -> PassResult:
    """Runs one pass; whatever goes wrong becomes a `PassError` that names the pass and its plugin."""
    name = f"pass {step.pass_.name!r} (plugin {step.plugin!r})"
    try:
        # A pipeline may run while JAX traces, under xlapass.jit; what passes compute is computed, not traced.
        with jax.core.eval_context(), jax.enable_x64(program.x64):
            result = step.pass_.run(program, context)
    except XlapassError as error:
        if isinstance(error, PassError):
            raise type(error)(f"{name}: {error.message}", where=error.where, hint=error.hint) from error
        raise
    except (Exception, SystemExit) as error:  # a stranger's pass may raise anything; say whose it is
        raise PassError(f"{name} raised {type(error).__name__}: {error}") from error
    if problem := _nonsense(result):
        raise PassError(f"{name} {problem}")
    return result


def _nonsense(result: Any) -> str | None:
    """What is wrong with the answer of a pass, as an answer."""
    if not isinstance(result, PassResult) or not isinstance(result.program, Program):
        return f"returned {type(result).__name__}, not a PassResult with a Program"
    if not isinstance(result.program.jaxpr, jex_core.ClosedJaxpr):
        return f"returned a program whose jaxpr is a {type(result.program.jaxpr).__name__}"
    if not isinstance(result.changed, bool):
        return f"says neither that it changed something nor that it did not, but {result.changed!r}"
    if result.numerics is not None and result.numerics not in NUMERICS_ORDER:
        return f"declares the numerics {result.numerics!r}, which is none of {', '.join(NUMERICS_ORDER)}"
    return None


def default_instruments(numerics: Numerics = "lossy") -> list[Instrument]:
    """What watches unless told otherwise: the permitted numerics, and structural verification."""
    from .instruments.selection import PermittedNumerics, SkipSettled
    from .instruments.structure import StructuralVerifier

    return [PermittedNumerics(numerics), SkipSettled(), StructuralVerifier()]
