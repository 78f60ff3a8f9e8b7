"""`tune`: measure the forms of a program's operations on this machine, and remember the times."""

from __future__ import annotations

import collections
import dataclasses
import gc
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
from jax.extend import core as jex_core

from ..core.forms import DIRECT, Form, FormTable, FormWarning, Measured, Signature
from ..core.graph import Graph
from ..core.pass_ import GraphPass, PassContext, Progress
from ..core.rewrite import Numerics
from ..core.timings import Timings, this_environment
from ..core.tuning import CACHE, DEFAULT_BUDGET, timings_path
from .forms.measure import Run, example_inputs, local_device, measure, repeated_run, single_operation, wrong_result
from .forms.neighbours import Neighbours, subject
from .forms.selection import Selection, form_table


@dataclasses.dataclass(frozen=True)
class Tune(GraphPass):
    """Measures the forms of the program's operations on this machine, for ``select-forms``; changes nothing.

    Attributes:
      timings: the file that keeps the times, or ``cache`` for the user's own.
      budget: seconds to spend; what comes late in the list is left to the cost model.
      only: forms to measure, as ``primitive/form``; empty means all.
      skip: forms not to measure.
    """

    timings: str = CACHE
    budget: float = DEFAULT_BUDGET
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    name: ClassVar[str] = "tune"

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Measures; how far it came is reported as ``tuned`` in the details."""
        table = form_table(context.registry, self.only, self.skip)
        path, device = timings_path(self.timings), local_device(context.target)
        if device is None:
            return False
        with jax.default_device(device):
            result = tune(
                graph,
                table,
                Timings.read(path, this_environment(device)),
                path,
                budget=self.budget,
                numerics=context.numerics,
                progress=context.report_progress,
            )
        context.details["tuned"] = dataclasses.asdict(result)
        return False


@dataclasses.dataclass(frozen=True)
class TuningResult:
    """How far a tuning run came.

    Attributes:
      signatures: distinct operations of the program that have more than one form.
      measured: those measured in this run.
      known: those whose times were in the file already.
      seconds: how long it took.
    """

    signatures: int
    measured: int
    known: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Pending:
    """An operation with the forms that it could take.

    Attributes:
      signature, neighbours: what it is, and what stands around it.
      primitive: the JAX primitive.
      forms: the candidates besides the primitive itself.
    """

    signature: Signature
    neighbours: Neighbours
    primitive: Any
    forms: tuple[Form, ...]

    @property
    def subject(self) -> str:
        """The key of its measured times."""
        return subject(self.signature, self.neighbours)


def tune(
    graph: Graph,
    table: FormTable,
    timings: Timings,
    path: Path,
    *,
    budget: float = DEFAULT_BUDGET,
    numerics: Numerics = "lossy",
    progress: Progress | None = None,
) -> TuningResult:
    """Measures every form of every distinct operation in a graph, those that take longest first.

    The file is written after each operation. An interruption by the user is a warning, and keeps what was measured.

    Args:
      timings: what is known; what is measured is added.
      path: the file that ``timings`` was read from.
      budget: seconds; no new operation is begun after them.
      progress: hears how many operations are done, of how many, and which one comes next.
    """
    start = time.perf_counter()
    operations = distinct_operations(graph, table, numerics)
    if not timings.is_writable:  # `Timings.read` has warned
        return TuningResult(len(operations), 0, 0, time.perf_counter() - start)
    missing = [pending for pending in operations if not _is_known(timings, pending)]
    done = 0
    try:
        for pending in missing:
            if time.perf_counter() - start > budget:
                break
            if progress is not None:
                progress(done, len(missing), pending.signature.key)
            for form, measured in measure_forms(pending, table).items():
                timings.record(pending.subject, form, measured)
            done += 1
            timings.try_to_write(path)
            gc.collect()  # the manager has paused collection, and what was compiled holds weights in cycles
    except KeyboardInterrupt:
        warnings.warn(
            f"tuning was interrupted after {done} of {len(missing)} operations; the cost model decides the others",
            FormWarning,
            stacklevel=2,
        )
    if progress is not None and missing:
        progress(done, len(missing), "")
    return TuningResult(len(operations), done, len(operations) - len(missing), time.perf_counter() - start)


def distinct_operations(graph: Graph, table: FormTable, numerics: Numerics) -> list[Pending]:
    """Operations with more than one form; by estimated time in the program, longest first."""
    counts: collections.Counter[str] = collections.Counter()
    found: dict[str, Pending] = {}
    for region in graph.walk():
        for node in region.nodes():
            if node.name in table.primitives and not node.effects:
                pending = Pending(Signature.of_node(node), Neighbours.of_node(node), node.primitive, ())
                counts[pending.subject] += 1
                found.setdefault(pending.subject, pending)
    candidates = []
    for pending in found.values():
        signature = pending.signature
        has_inputs = len(signature.constant_operands) < len(signature.operands)
        if signature.is_static and not signature.is_empty and has_inputs:
            forms = table.candidates(signature, numerics)[0]
            if forms:
                candidates.append(dataclasses.replace(pending, forms=tuple(forms)))
    return sorted(candidates, key=lambda one: -counts[one.subject] * table.direct_cost(one.signature))


def _is_known(timings: Timings, pending: Pending) -> bool:
    measured: Mapping[str, Measured] = timings.of(pending.subject) or {}
    return all(name in measured for name in (DIRECT, *(form.name for form in pending.forms)))


def time_forms(signature: Signature, primitive: Any, forms: Sequence[Form], table: FormTable) -> dict[str, float]:
    """Seconds of the primitive itself and of each form, by name; a form that fails is left out, with a warning."""
    measured = measure_forms(Pending(signature, Neighbours(), primitive, tuple(forms)), table)
    return {name: one.seconds for name, one in measured.items() if not one.problem}


def measure_forms(pending: Pending, table: FormTable) -> dict[str, Measured]:
    """What measuring shows of the primitive itself and of each form, by name.

    A form that raises, or whose results differ from the primitive's beyond what it declares, has a problem instead of a
    time, and is warned about.
    """
    operation = single_operation(pending.signature, pending.primitive, pending.neighbours)
    inputs = example_inputs(pending.signature, pending.neighbours)
    runs: dict[str, Run] = {DIRECT: repeated_run(operation, inputs, 1)}
    bodies, problems = {DIRECT: operation}, {}
    wanted = runs[DIRECT]()[0]
    for form in pending.forms:
        body = with_form(operation, form, table)
        problem = "it does not fit"  # `with_form` has warned
        if body is not None:
            try:
                run = repeated_run(body, inputs, 1)
                problem = wrong_result(wanted, run()[0], form.numerics)
            except Exception as error:  # a stranger's form may need what this device lacks; the primitive always works
                problem = f"it raised {type(error).__name__}: {error}"
            if problem:
                warnings.warn(
                    f"form {form} ({form.where}) is not used for {pending.signature.key}: {problem}",
                    FormWarning,
                    stacklevel=2,
                )
        if problem or body is None:
            problems[form.name] = Measured(problem=problem)
        else:
            bodies[form.name], runs[form.name] = body, run
    measured = measure(list(bodies.values()), inputs, list(runs.values()))
    return dict(zip(bodies, measured, strict=True)) | problems


def with_form(operation: jex_core.ClosedJaxpr, form: Form, table: FormTable) -> jex_core.ClosedJaxpr | None:
    """A program of one operation with the form in its place, as ``select-forms`` would put it; None where it fails."""
    graph = Graph(operation)
    (node,) = (node for node in graph.nodes() if node.name == form.primitive)
    selection = Selection(table, forced={Signature.of_node(node): form})
    selection.visit(graph, node)
    return graph.to_closed() if selection.report else None
