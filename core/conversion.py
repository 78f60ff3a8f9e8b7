"""From an edited `Graph` back to a jaxpr: what was not touched comes back as the very object that it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jax.extend import core as jex_core

from . import _compat
from .node import Node, Value

if TYPE_CHECKING:
    from .graph import Graph


def settle(graph: Graph) -> jex_core.ClosedJaxpr:
    """As `Graph.to_closed`, after which the graph and its regions count as made from the result, and not as edited.

    So the next pass goes on with the graph where it would else build the same again.
    """
    if graph.edited:
        done: dict[Graph, Any] = {}
        body_of(graph, done)
        graph._regions.clear()
        for region, body in done.items():
            _settle_body(region, body)
            if region is not graph:
                graph._regions[id(body)] = (body, region)
    source = graph._source
    return source if isinstance(source, jex_core.ClosedJaxpr) else jex_core.ClosedJaxpr(source, ())


def _settle_body(region: Graph, body: Any) -> None:
    if body is not region._source:
        region._source = body
        region._jaxpr = body.jaxpr if isinstance(body, jex_core.ClosedJaxpr) else body
        region._constants = [constant for constant in region._constants if constant.uses]
        region._constant_of = {id(constant.const): constant for constant in reversed(region._constants)}
        for node in region.nodes():
            node.params = node._eqn.params  # with the new bodies
    region._edited = False


def body_of(graph: Graph, done: dict[Graph, Any]) -> Any:
    """The graph as a jaxpr, closed if it came from a closed one; ``done`` remembers the regions written already."""
    known = done.get(graph)
    if known is not None:
        return known
    eqns, changed = [], graph._edited
    for node in graph.nodes():
        params = _params(node, done)
        changed = changed or params is not node.params
        eqns.append(_equation(node, params))
    result = _rebuilt(graph, eqns) if changed else graph._source
    done[graph] = result
    return result


def _params(node: Node, done: dict[Graph, Any]) -> dict[str, Any]:
    if node._regions is None:
        return node.params
    changes: dict[str, Any] = {}
    for (param, index), region in node._regions.items():
        body = body_of(region, done)
        current = changes.get(param, node.params[param])
        if (current if index is None else current[index]) is body:
            continue
        changes[param] = body if index is None else (*current[:index], body, *current[index + 1 :])
    return {**node.params, **changes} if changes else node.params


def _rebuilt(graph: Graph, eqns: list[Any]) -> Any:
    old = graph._jaxpr
    outvars = [_atom(v) for v in graph.outputs]
    constants = [v for v in graph._constants if v.uses]
    constvars, invars = [_variable(v) for v in constants], [_variable(v) for v in graph.inputs]
    effects = old.effects | _compat.jaxpr_effects(constvars, invars, outvars, eqns)
    jaxpr = jex_core.Jaxpr(constvars, invars, outvars, eqns, effects, old.debug_info)
    return jex_core.ClosedJaxpr(jaxpr, [v.const for v in constants]) if graph._closed else jaxpr


def _equation(node: Node, params: dict[str, Any]) -> Any:
    """The node's equation: the original object where it still says the same, which makes changes cheap to see."""
    eqn = node._eqn
    if eqn is not None and eqn.params is params and not any(map(_is_revived, node.outputs)):
        return eqn
    invars = [_atom(v) for v in node.inputs]
    outvars = [_variable(v) for v in node.outputs]
    node._eqn = jex_core.JaxprEqn(invars, outvars, node.primitive, params, node.effects, node.source_info, node.ctx)
    return node._eqn


def _is_revived(value: Value) -> bool:
    """Whether a result that nothing used has got a user."""
    return isinstance(value.var, jex_core.DropVar) and bool(value.uses)


def operand(atom: Any, values: Mapping[Any, Value]) -> Value:
    """The value of a jaxpr's variable, or a new one for a literal."""
    if isinstance(atom, jex_core.Literal):
        return Value(atom.aval, const=atom.val, is_literal=True)
    return values[atom]


def _atom(value: Value) -> Any:
    if value.is_literal:
        return jex_core.Literal(value.const, value.aval)
    return _variable(value)


def _variable(value: Value) -> Any:
    if _is_revived(value):
        value.var = jex_core.Var(value.aval)
    return value.var
