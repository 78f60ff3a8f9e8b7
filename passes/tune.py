"""`tune`: measure the forms of a program's operations on this machine, and remember the times."""

from __future__ import annotations

import collections
import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from jax.extend import core as jex_core

from ..core.forms import DIRECT, Form, FormTable, FormWarning, Signature
from ..core.graph import Graph
from ..core.pass_ import GraphPass, PassContext
from ..core.rewrite import Numerics
from ..core.timings import Timings, timings_path
from .forms.measure import example_operands, measure, single_operation
from .select_forms import Selection, form_table

Progress = Callable[[int, int, str], None]
"""Is told how many signatures are done, of how many, and which one comes next."""


@dataclasses.dataclass(frozen=True)
class Tune(GraphPass):
    """Measures the forms of the program's operations on this machine, for ``select-forms``; changes nothing.

    Attributes:
      timings: the file that keeps the times, or ``cache`` for the user's own.
      budget: seconds to spend; what comes late in the list is left to the cost model.
      only: forms to measure, as ``primitive/form``; empty means all.
      skip: forms not to measure.
    """

    timings: str = "cache"
    budget: float = 60.0
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    name: ClassVar[str] = "tune"

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Measures; how far it came is reported as ``tuned`` in the details."""
        table = form_table(context.registry, self.only, self.skip)
        result = tune(graph, table, self.timings, budget=self.budget, numerics=context.numerics)
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


def tune(
    graph: Graph,
    table: FormTable,
    timings: str,
    *,
    budget: float = 60.0,
    numerics: Numerics = "lossy",
    progress: Progress | None = None,
) -> TuningResult:
    """Measures every form of every distinct signature in a graph, those that take longest first.

    The file is written after each signature. An interruption by the user is a warning, and keeps what was measured.

    Args:
      timings: the file, or ``cache``.
      budget: seconds; no new signature is begun after them.
    """
    start, path = time.perf_counter(), timings_path(timings)
    known = Timings.read(path)
    pending = _distinct(graph, table, numerics)
    if known.from_foreign_file:  # `Timings.read` has warned
        return TuningResult(len(pending), 0, 0, 0.0)
    missing = [entry for entry in pending if not _is_known(known, entry[0], entry[2])]
    done = 0
    try:
        for signature, primitive, forms in missing:
            if time.perf_counter() - start > budget:
                break
            if progress is not None:
                progress(done, len(missing), signature.key)
            for form, seconds in time_forms(signature, primitive, forms, table).items():
                known.record(signature, form, seconds)
            known.write(path)
            done += 1
    except KeyboardInterrupt:
        warnings.warn(
            f"tuning was interrupted after {done} of {len(missing)} operations; the cost model decides the others",
            FormWarning,
            stacklevel=2,
        )
    if progress is not None:
        progress(done, len(missing), "")
    return TuningResult(len(pending), done, len(pending) - len(missing), time.perf_counter() - start)


def _distinct(graph: Graph, table: FormTable, numerics: Numerics) -> list[tuple[Signature, Any, list[Form]]]:
    """Signatures with more than one form, with primitive and forms; by estimated time in the program, longest first."""
    counts: collections.Counter[Signature] = collections.Counter()
    primitives: dict[Signature, Any] = {}
    for region in graph.walk():
        for node in region.nodes():
            if node.name in table.primitives and not node.effects:
                signature = Signature.of_node(node)
                counts[signature] += 1
                primitives[signature] = node.primitive
    found = []
    for signature in counts:
        if not signature.is_static or signature.is_empty or len(signature.constant_operands) == len(signature.operands):
            continue
        forms = table.candidates(signature, numerics)[0]
        if forms:
            found.append((signature, primitives[signature], forms))
    return sorted(found, key=lambda entry: -counts[entry[0]] * table.direct_cost(entry[0]))


def _is_known(timings: Timings, signature: Signature, forms: list[Form]) -> bool:
    times: Mapping[str, float] = timings.of(signature) or {}
    return all(name in times for name in (DIRECT, *(form.name for form in forms)))


def time_forms(signature: Signature, primitive: Any, forms: list[Form], table: FormTable) -> dict[str, float]:
    """Seconds of the primitive itself and of each form, by name; a form that fails is left out, with a warning."""
    operation = single_operation(signature, primitive)
    bodies = {DIRECT: operation}
    for form in forms:
        body = with_form(operation, form, table)
        if body is not None:
            bodies[form.name] = body
    inputs = [
        array for index, array in enumerate(example_operands(signature)) if index not in signature.constant_operands
    ]
    return dict(zip(bodies, measure(list(bodies.values()), inputs), strict=True))


def with_form(operation: jex_core.ClosedJaxpr, form: Form, table: FormTable) -> jex_core.ClosedJaxpr | None:
    """A program of one operation with the form in its place, as ``select-forms`` would put it; None where it fails."""
    graph = Graph(operation)
    (node,) = (node for node in graph.nodes() if node.name == form.primitive)
    selection = Selection(table, Timings(), forced={Signature.of_node(node): form})
    selection.visit(graph, node)
    return graph.to_closed() if selection.report else None
