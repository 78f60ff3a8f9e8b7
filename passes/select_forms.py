"""`select-forms`: replace operations by equivalent forms that the backend runs faster."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from jax.extend import core as jex_core

from ..core.errors import UsageError
from ..core.forms import DIRECT, Choice, Form, FormTable, FormWarning, Signature, loosest
from ..core.graph import Graph
from ..core.node import Node
from ..core.options import suggestion
from ..core.pass_ import GraphPass, PassContext
from ..core.plugins import Registry
from ..core.rewrite import Numerics
from ..core.timings import Timings, timings_path
from .forms.known import SplitForm, split

DEEPEST = 3
"""A form may be made of operations that have better forms themselves, and so on, this often."""


@dataclasses.dataclass(frozen=True)
class SelectForms(GraphPass):
    """Replaces operations by equivalent forms that the backend runs faster.

    What a run may do to results is that of the loosest form it used; forms that the permitted numerics exclude are not
    used.

    Attributes:
      only: forms to use, as ``primitive/form``; empty means all.
      skip: forms not to use.
      timings: a file of measured times, as ``tune`` writes it, or ``cache`` for the user's own; without one, a static
        cost model decides.
      least_gain: how many times faster a form must be to be used.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    timings: str = ""
    least_gain: float = 1.03

    name: ClassVar[str] = "select-forms"

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Replaces in every region; choices are reported as ``forms`` in the details."""
        table = form_table(context.registry, self.only, self.skip)
        timings = Timings.read(timings_path(self.timings)) if self.timings else Timings()
        selection = Selection(table, timings, context.numerics, self.least_gain)
        for region in graph.walk():
            for node in region.nodes():
                if node.name in table.primitives and not node.effects:
                    selection.visit(region, node)
        context.details["forms"] = selection.report
        return bool(selection.report)

    def effective_numerics(self, context: PassContext) -> Numerics:
        """The loosest of the forms that were used."""
        return loosest(entry["numerics"] for entry in context.details.get("forms", ()))


def form_table(registry: Registry, only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> FormTable:
    """The forms that plugins bring, or some of them by their names ``primitive/form``.

    Raises:
      UsageError: a name that no form has.
    """
    forms = [form for family in registry.all_of("form family").values() for form in family]
    known = {str(form) for form in forms}
    for name in (*only, *skip):
        if name not in known:
            raise UsageError(f"there is no form {name!r}", hint=suggestion(name, known))
    return FormTable(
        form for form in forms if form.name == DIRECT or ((not only or str(form) in only) and str(form) not in skip)
    )


class Selection:
    """One run over a program; forms are traced once per signature.

    Args:
      table: the forms to choose from.
      timings: measured times, which decide where there are some.
      numerics: the loosest change that is permitted.
      least_gain: how many times faster a form must be.
      forced: forms, by signature, to use in any case.

    Attributes:
      report: one entry per replaced operation.
    """

    def __init__(
        self,
        table: FormTable,
        timings: Timings,
        numerics: Numerics = "lossy",
        least_gain: float = 1.0,
        forced: Mapping[Signature, Form] | None = None,
    ) -> None:
        self.table = table
        self.timings = timings
        self.numerics = numerics
        self.least_gain = least_gain
        self.forced = forced or {}
        self.report: list[Mapping[str, Any]] = []
        self._choices: dict[Signature, tuple[Choice, Form | None, SplitForm | None]] = {}

    def visit(self, region: Graph, node: Node, depth: int = 1) -> None:
        """Replaces ``node`` when a form is faster, and then the operations that the form consists of."""
        signature = Signature.of_node(node)
        known = self._choices.get(signature)
        if known is None:
            known = self._choices[signature] = self._choose(signature, node)
        choice, form, body = known
        if form is None or body is None:
            return
        prepared = iter(body.prepare([node.inputs[index].const for index in body.constants]))
        operands = [value for index, value in enumerate(node.inputs) if index not in body.constants]
        for source in body.sources:
            operands.append(region.constant(next(prepared)) if source is None else node.inputs[source])
        predecessor = node._prev
        outputs = region.insert_jaxpr(body.rest, operands, before=node, rule=f"form {form}", relocate=True)
        self.report.append(
            {
                "operation": node.name,
                "where": node.where,
                "form": form.name,
                "numerics": form.numerics,
                "gain": round(choice.gain, 2),
                "measured": choice.measured,
            }
        )
        for old, new in zip(node.outputs, outputs, strict=True):
            region.replace(old, new)
        inserted = region.nodes_between(predecessor, node)
        region.erase(node)
        for part in inserted:
            if depth < DEEPEST and part.name in self.table.primitives:
                self.visit(region, part, depth + 1)

    def _choose(self, signature: Signature, node: Node) -> tuple[Choice, Form | None, SplitForm | None]:
        choice = self.table.choose(signature, numerics=self.numerics, seconds=self.timings.of(signature))
        form = self.forced.get(signature)
        if form is None:
            form = self.table.find(signature.primitive, choice.form) if choice.gain >= self.least_gain else None
        if form is None or form.name == DIRECT:
            return choice, None, None
        body = traced(form, node)
        if body is None:
            return choice, None, None
        return choice, form, split(body, signature.constant_operands)


def traced(form: Form, node: Node) -> jex_core.ClosedJaxpr | None:
    """The form's equations at the types of the node's operands; None, with a warning, where it does not fit."""
    avals = [jax.ShapeDtypeStruct(v.shape, v.dtype, weak_type=v.aval.weak_type) for v in node.inputs]
    try:
        body = jax.make_jaxpr(functools.partial(form.fn, **node.params))(*avals)
    except Exception as error:  # a stranger's form may raise anything; the primitive itself always works
        reason = f"raised {type(error).__name__}: {error}"
    else:
        types = [(v.aval.shape, v.aval.dtype) for v in body.jaxpr.outvars]
        if types == [(v.aval.shape, v.aval.dtype) for v in node.outputs]:
            return body
        reason = f"gives {types} in place of {[(v.aval.shape, v.aval.dtype) for v in node.outputs]}"
    warnings.warn(f"form {form} ({form.where}) {reason}; it is not used", FormWarning, stacklevel=2)
    return None
