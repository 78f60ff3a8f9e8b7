"""Retyping: the whole program in the types that carry its own, bodies of control flow included."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jax.extend import core as jex_core

from ....core.graph import Graph
from ....core.node import REGION_PARAMS, Node, Value
from .carriers import carried, carried_constant, carrier_aval, kind_of, released
from .tracing import flat

RULE = "carry-types"
"""The name under which retyped operations are recorded."""


@dataclasses.dataclass(frozen=True)
class Site:
    """An operation that is retyped.

    Attributes:
      node: the operation, at its own types.
    """

    node: Node

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the operation."""
        return self.node.params

    @property
    def operands(self) -> list[Any]:
        """The types of its operands."""
        return [value.aval for value in self.node.inputs]

    @property
    def results(self) -> list[Any]:
        """The types of its results."""
        return [value.aval for value in self.node.outputs]

    @property
    def dtype(self) -> Any:
        """The element type of the first result."""
        return self.results[0].dtype


@dataclasses.dataclass(frozen=True)
class Retyping:
    """How an operation is done on carriers.

    Attributes:
      function: ``function(site, *arrays)`` returns the results, one or a list.
      opens: whether it works on the values' own types, in simpler operations that are retyped in turn; else the arrays
        are carriers.
    """

    function: Callable[..., Any]
    opens: bool = False


Chooser = Callable[[Site], Retyping | str]
"""Says how an operation is done on carriers, or why it cannot be."""


def needs_retyping(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a value of a type that is carried occurs, in bodies too."""
    if any(_foreign(atom.aval) for atom in (*jaxpr.invars, *jaxpr.constvars, *jaxpr.outvars)):
        return True
    for eqn in jaxpr.eqns:
        if any(_foreign(atom.aval) for atom in (*eqn.invars, *eqn.outvars)):
            return True
        if any(needs_retyping(body) for body in jex_core.jaxprs_in_params(eqn.params)):
            return True
    return False


def _foreign(aval: Any) -> bool:
    return kind_of(getattr(aval, "dtype", None)) not in ("native", "other")


class Retyper:
    """One run over a program.

    Attributes:
      kept: operations for which the chooser has no form, with the reason; they stay as they are.
    """

    def __init__(self, choose: Chooser) -> None:
        self._choose = choose
        self._bodies: dict[int, tuple[Any, Any]] = {}
        self.kept: list[tuple[Node, str]] = []

    def retype_program(self, graph: Graph) -> None:
        """Retypes all between the inputs and the outputs, which keep their types."""
        region, nodes = _Region(self, graph), graph.nodes()
        first = next(iter(nodes), graph.terminator)
        for value in graph.inputs:
            if _foreign(value.aval):
                region.carriers[value] = graph.splice(flat(carried), value, before=first, rule=RULE)[0]
        region.retype_nodes(nodes)
        for index, value in enumerate(graph.outputs):
            if _foreign(value.aval) and (value in region.carriers or value.is_const):
                held = region.carrier(value)
                new = graph.splice(released, held, before=graph.terminator, rule=RULE, static=(value.dtype,))[0]
                graph.set_operand(graph.terminator, index, new)
        region.erase_replaced()

    def body(self, body: Any) -> Any:
        """A body with carriers for inputs and outputs; the very same object when nothing in it is carried."""
        known = self._bodies.get(id(body))
        if known is None:
            known = self._bodies[id(body)] = (body, self._retyped_body(body))
        return known[1]

    def _retyped_body(self, body: Any) -> Any:
        if not needs_retyping(body.jaxpr if isinstance(body, jex_core.ClosedJaxpr) else body):
            return body
        graph = Graph(body)
        region = _Region(self, graph)
        for index, value in enumerate(list(graph.inputs)):
            if _foreign(value.aval):
                region.carriers[value] = graph.retype_input(index, carrier_aval(value.aval))
        region.retype_nodes(graph.nodes())
        for index, value in enumerate(graph.outputs):
            if _foreign(value.aval):
                graph.set_operand(graph.terminator, index, region.carrier(value, before=graph.terminator))
        region.erase_replaced()
        return graph.to_closed() if isinstance(body, jex_core.ClosedJaxpr) else graph.to_closed().jaxpr


class _Region:
    """One graph while its values get carriers."""

    def __init__(self, retyper: Retyper, graph: Graph) -> None:
        self.retyper = retyper
        self.graph = graph
        self.carriers: dict[Value, Value] = {}
        self.replaced: list[Node] = []

    def carrier(self, value: Value, before: Node | None = None) -> Value:
        """What carries ``value``: the value itself where its type is taken."""
        if not _foreign(value.aval):
            return value
        known = self.carriers.get(value)
        if known is None and value.is_const:
            known = self.carriers[value] = self.graph.constant(carried_constant(value.const))
        if known is None:  # the result of an operation that stays as it is
            assert value.producer is not None
            before = self.graph.after(value)
            known = self.carriers[value] = self.graph.splice(flat(carried), value, before=before, rule=RULE)[0]
        return known

    def retype_nodes(self, nodes: list[Node]) -> None:
        for node in nodes:
            self._retype(node)

    def erase_replaced(self) -> None:
        for node in reversed(self.replaced):
            self.graph.erase(node)

    def _retype(self, node: Node) -> None:
        foreign = any(_foreign(v.aval) for v in (*node.inputs, *node.outputs))
        if node.name in REGION_PARAMS:
            self._retype_bodies(node, foreign)
        elif foreign:
            site = Site(node)
            choice = self.retyper._choose(site)
            if isinstance(choice, str):
                self._keep(node, choice)
            else:
                self._apply(site, choice)

    def _keep(self, node: Node, reason: str) -> None:
        """The operation reads what its operands carry; it is refused later, by name."""
        self.retyper.kept.append((node, reason))
        for index, value in enumerate(node.inputs):
            if value in self.carriers:
                own = self.graph.splice(released, self.carriers[value], before=node, static=(value.dtype,))[0]
                self.graph.set_operand(node, index, own)

    def _retype_bodies(self, node: Node, foreign: bool) -> None:
        changes: dict[str, Any] = {}
        for param in REGION_PARAMS[node.name]:
            body = node.params.get(param)
            if isinstance(body, tuple):
                new: Any = tuple(map(self.retyper.body, body))
                changed = any(a is not b for a, b in zip(new, body, strict=True))
            elif isinstance(body, jex_core.Jaxpr | jex_core.ClosedJaxpr):
                new = self.retyper.body(body)
                changed = new is not body
            else:
                continue
            if changed:
                changes[param] = new
        if not (changes or foreign):
            return
        operands = [self._strong(self.carrier(v), v, node) for v in node.inputs]
        results = self.graph.emit(node.primitive, operands, {**node.params, **changes}, before=node, rule=RULE)
        self._settle(node, results)

    def _strong(self, held: Value, value: Value, before: Node) -> Value:
        """Carriers that enter a body are not weakly typed, as its inputs are not."""
        if held is value or not getattr(held.aval, "weak_type", False):
            return held
        params = {"new_dtype": held.dtype, "weak_type": False, "sharding": None}
        return self.graph.emit(jex_core.primitives.convert_element_type_p, [held], params, before=before, rule=RULE)[0]

    def _apply(self, site: Site, retyping: Retyping) -> None:
        node = site.node
        operands = node.inputs if retyping.opens else [self.carrier(v) for v in node.inputs]
        previous = node._prev

        def build(*arrays: Any) -> Any:
            return retyping.function(site, *arrays)

        results = self.graph.splice(flat(build), *operands, before=node, rule=RULE)
        if retyping.opens:
            for new in self.graph.nodes_between(previous, node):
                self._retype(new)
            results = [self.carrier(v) for v in results]
        self._settle(node, results)

    def _settle(self, node: Node, results: list[Value]) -> None:
        for old, new in zip(node.outputs, results, strict=True):
            want = carrier_aval(old.aval)
            if (new.aval.shape, new.aval.dtype) != (want.shape, want.dtype):
                raise TypeError(f"{node.name} on carriers gives {new.aval.str_short()}, not {want.str_short()}")
            if _foreign(old.aval):
                self.carriers[old] = self._strong(new, old, node)
            else:
                self.graph.replace(old, new)
        self.replaced.append(node)
