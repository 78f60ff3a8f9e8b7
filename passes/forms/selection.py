"""Putting forms in the place of operations: which one, and how."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import jax
from jax.extend import core as jex_core

from ...core.errors import UsageError
from ...core.forms import DIRECT, Choice, Form, FormTable, FormWarning, Measured, Signature
from ...core.graph import Graph
from ...core.node import Node
from ...core.options import suggestion
from ...core.plugins import Registry
from ...core.rewrite import Numerics
from ...core.timings import Timings
from .known import SplitForm, split
from .neighbours import ALONE, Neighbours, subject

DEEPEST = 3
"""A form may be made of operations that have better forms themselves, and so on, this often."""


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
      timings: what was measured, which decides where there is something; else the cost model alone.
      numerics: the loosest change that is permitted.
      least_gain: how many times faster a form must be.
      forced: forms, by signature, to use in any case.

    Attributes:
      report: one entry per replaced operation.
    """

    def __init__(
        self,
        table: FormTable,
        timings: Timings | None = None,
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
        self._choices: dict[tuple[Signature, Neighbours], tuple[Choice, Form | None, SplitForm | None]] = {}

    def visit(self, region: Graph, node: Node, neighbours: Neighbours = ALONE, depth: int = 1) -> None:
        """Replaces ``node`` when a form is faster, and then the operations that the form consists of."""
        key = (Signature.of_node(node), neighbours)
        known = self._choices.get(key)
        if known is None:
            known = self._choices[key] = self._choose(*key, node)
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
                self.visit(region, part, depth=depth + 1)

    def _choose(
        self, signature: Signature, neighbours: Neighbours, node: Node
    ) -> tuple[Choice, Form | None, SplitForm | None]:
        measured = self._measured(signature, neighbours)
        choice = self.table.choose(signature, numerics=self.numerics, measured=measured)
        form = self.forced.get(signature)
        if form is None:
            form = self.table.find(signature.primitive, choice.form) if choice.gain >= self.least_gain else None
        if form is None or form.name == DIRECT:
            return choice, None, None
        body = traced(form, node)
        if body is None:
            return choice, None, None
        return choice, form, split(body, signature.constant_operands)

    def _measured(self, signature: Signature, neighbours: Neighbours) -> Mapping[str, Measured] | None:
        """What was measured between these neighbours, else between any others, else nothing."""
        if self.timings is None:
            return None
        return self.timings.of(subject(signature, neighbours)) or self.timings.of(signature.key)


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
