"""Repeated modules as ONNX functions.

Nodes carry the scope of the module that they come from (``Net/Block_0/Conv_0/Conv``). Modules that differ in their
number only (``Block_0``, ``Block_1``) and hold the same operators, connected alike, become calls of one function; what
differs, the weights, is passed to it. Runtimes inline functions when they load a file, so that nothing runs slower.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

#: Domain of the functions, which are local to the file.
DOMAIN = "xlapass"

#: Constants up to this size that all calls share stand in the function.
_SMALL = 1024


@dataclasses.dataclass(frozen=True)
class _Instance:
    """The nodes of one module: what they read from outside, in the order of reading, and what others read of them."""

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]


def extract_functions(model: ir.Model) -> None:
    """Replaces repeated modules, the outermost first, in place."""
    graph, taken = model.graph, {""}
    depth = 1
    while any(len(_scope(node)) >= depth for node in graph):
        for title, scopes in _repeated(graph, depth).items():
            groups: dict[Any, list[_Instance]] = {}
            for nodes in scopes:
                instance = _instance(nodes, graph)
                if instance is not None:
                    groups.setdefault(_structure(instance), []).append(instance)
            for alike in groups.values():
                if len(alike) > 1:
                    name = _free(title, taken)
                    shared = _shared(alike)
                    model.functions[(DOMAIN, name, "")] = _function(name, alike[0], shared, graph.opset_imports)
                    for instance in alike:
                        _call(graph, name, instance, shared)
        depth += 1
    if model.functions:
        graph.opset_imports[DOMAIN] = 1
        graph.sort()


def _scope(node: ir.Node) -> tuple[str, ...]:
    return tuple((node.name or "").split("/")[:-1]) if node.domain != DOMAIN else ()


def _repeated(graph: ir.Graph, depth: int) -> dict[str, list[list[ir.Node]]]:
    """Scopes of a depth that differ in their last number only: their common name -> the nodes of each."""
    scopes: dict[tuple[str, ...], list[ir.Node]] = {}
    for node in graph:
        if len(_scope(node)) >= depth:
            scopes.setdefault(_scope(node)[:depth], []).append(node)
    titles: dict[str, list[list[ir.Node]]] = {}
    for scope, nodes in scopes.items():
        titles.setdefault(re.sub(r"_?\d+$", "", scope[-1]), []).append(nodes)
    return {title: groups for title, groups in titles.items() if len(groups) > 1}


def _instance(nodes: Sequence[ir.Node], graph: ir.Graph) -> _Instance | None:
    """The nodes as a part that a call can stand for; None for a single node, a body, or a part that data re-enters."""
    inside = set(nodes)
    if len(nodes) < 2 or any(isinstance(a.value, ir.Graph) for node in nodes for a in node.attributes.values()):
        return None
    inputs = dict.fromkeys(v for node in nodes for v in node.inputs if v is not None and v.producer() not in inside)
    results = set(graph.outputs)
    outputs = tuple(
        v for node in nodes for v in node.outputs if v in results or any(user not in inside for user, _ in v.uses())
    )
    if _returns(outputs, inside) or not outputs:
        return None
    return _Instance(tuple(nodes), tuple(inputs), outputs)


def _returns(outputs: Iterable[ir.Value], inside: set[ir.Node]) -> bool:
    """Whether a node inside depends on an output by way of nodes outside."""
    pending = [user for v in outputs for user, _ in v.uses() if user not in inside]
    seen = set(pending)
    while pending:
        for value in pending.pop().outputs:
            for user, _ in value.uses():
                if user in inside:
                    return True
                if user not in seen:
                    seen.add(user)
                    pending.append(user)
    return False


def _structure(instance: _Instance) -> Any:
    """What two instances must have in common: operators, attributes, connections, types of what comes from outside."""
    places: dict[ir.Value | None, Any] = {v: ("in", k) for k, v in enumerate(instance.inputs)} | {None: None}
    rows = []
    for k, node in enumerate(instance.nodes):
        attributes = tuple((name, str(a.value)) for name, a in sorted(node.attributes.items()))
        rows.append((node.domain, node.op_type, attributes, tuple(places[v] for v in node.inputs), len(node.outputs)))
        places.update({v: (k, j) for j, v in enumerate(node.outputs)})
    types = tuple((v.dtype, str(v.shape)) for v in instance.inputs)
    return tuple(rows), types, tuple(places[v] for v in instance.outputs)


def _shared(alike: Sequence[_Instance]) -> tuple[bool, ...]:
    """For each input whether it is one small constant for all instances."""
    columns = zip(*(instance.inputs for instance in alike), strict=True)
    return tuple(
        all(v is column[0] for v in column)
        and column[0].const_value is not None
        and column[0].const_value.nbytes <= _SMALL
        for column in columns
    )


def _free(title: str, taken: set[str]) -> str:
    name = base = re.sub(r"\W", "_", title)
    count = 1
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    taken.add(name)
    return name


def _function(name: str, instance: _Instance, shared: Sequence[bool], opsets: Mapping[str, int]) -> ir.Function:
    """The body: the nodes of an instance, with constants that all share among them."""
    values: dict[ir.Value | None, ir.Value | None] = {None: None}
    formals, nodes = [], []
    for k, (value, is_shared) in enumerate(zip(instance.inputs, shared, strict=True)):
        copy = ir.Value(name=f"x{k}", type=value.type, shape=value.shape)
        tensor = value.const_value if is_shared else None
        if tensor is not None:
            constant = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[copy])
            nodes.append(constant)
        else:
            formals.append(copy)
        values[value] = copy
    for node in instance.nodes:
        copies = [ir.Value(name=f"v{len(values) + j}", type=v.type) for j, v in enumerate(node.outputs)]
        values.update(zip(node.outputs, copies, strict=True))
        inputs = [values[v] for v in node.inputs]
        label = "/".join((node.name or node.op_type).split("/")[-2:])
        nodes.append(ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), outputs=copies, name=label))
    results = [values[v] for v in instance.outputs]
    imports = {domain: version for domain, version in opsets.items() if domain != DOMAIN}
    graph = ir.Graph(formals, results, nodes=nodes, opset_imports=imports, name=name)  # type: ignore[arg-type]
    return ir.Function(DOMAIN, name, graph=graph, attributes=[])


def _call(graph: ir.Graph, name: str, instance: _Instance, shared: Sequence[bool]) -> None:
    """Puts a call in place of the nodes; the values keep their names and types."""
    inputs = [v for v, is_shared in zip(instance.inputs, shared, strict=True) if not is_shared]
    scope = "/".join((instance.nodes[0].name or name).split("/")[:-1])
    label = re.match(rf"(.*?{re.escape(name)}[^/]*)", scope)
    call = ir.Node(DOMAIN, name, inputs, num_outputs=len(instance.outputs), name=label[1] if label else f"{scope}/call")
    graph.insert_before(instance.nodes[0], call)
    results = list(graph.outputs)
    for old, new in zip(instance.outputs, call.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(new)
        for k, value in enumerate(results):
            if value is old:
                graph.outputs[k] = new
    graph.remove(instance.nodes, safe=True)
