"""`select-forms`: replace operations by equivalent forms that the backend runs faster."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax

from ..core.forms import loosest
from ..core.graph import Graph
from ..core.pass_ import GraphPass, PassContext
from ..core.rewrite import Numerics
from ..core.timings import Timings, this_environment
from ..core.tuning import Tuning, timings_path
from .forms.measure import local_device
from .forms.neighbours import ALONE, Neighbours
from .forms.selection import Selection, form_table
from .tune import tune

SHARE = 0.75
"""Of the time for tuning a program; ``compile-options`` has the rest."""


@dataclasses.dataclass(frozen=True)
class SelectForms(GraphPass):
    """Replaces operations by equivalent forms that the backend runs faster.

    What a run may do to results is that of the loosest form it used; forms that the permitted numerics exclude are not
    used.

    Attributes:
      only: forms to use, as ``primitive/form``; empty means all.
      skip: forms not to use.
      timings: a file of measured times, or ``cache`` for the user's own; without one, a static cost model decides.
      budget: seconds to spend, first, on measuring what the file does not know.
      least_gain: how many times faster a form must be to be used.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    timings: str = ""
    budget: float = 0.0
    least_gain: float = 1.03

    name: ClassVar[str] = "select-forms"

    def tuned(self, tuning: Tuning) -> SelectForms:
        """The pass that measures what it does not know yet."""
        return dataclasses.replace(self, timings=tuning.file, budget=SHARE * tuning.budget)

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Replaces in every region; choices are reported as ``forms`` in the details, measuring as ``tuned``."""
        table = form_table(context.registry, self.only, self.skip)
        timings = self._measured(graph, context)
        selection = Selection(table, timings, context.numerics, self.least_gain)
        found = [
            (region, node, ALONE if timings is None else Neighbours.of_node(node))
            for region in graph.walk()
            for node in region.nodes()
            if node.name in table.primitives and not node.effects
        ]
        for region, node, neighbours in found:
            selection.visit(region, node, neighbours)
        context.details["forms"] = selection.report
        return bool(selection.report)

    def _measured(self, graph: Graph, context: PassContext) -> Timings | None:
        if not self.timings:
            return None
        device = local_device(context.target)
        if device is None:
            return None
        path = timings_path(self.timings)
        timings = Timings.read(path, this_environment(device))
        if self.budget > 0:
            table = form_table(context.registry, self.only, self.skip)
            with jax.default_device(device):
                result = tune(
                    graph,
                    table,
                    timings,
                    path,
                    budget=self.budget,
                    numerics=context.numerics,
                    progress=context.report_progress,
                )
            context.details["tuned"] = dataclasses.asdict(result)
        return timings

    def effective_numerics(self, context: PassContext) -> Numerics:
        """The loosest of the forms that were used."""
        return loosest(entry["numerics"] for entry in context.details.get("forms", ()))
