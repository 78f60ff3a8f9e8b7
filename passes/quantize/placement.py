"""Where quantizers stand: which operations become integer kernels, and which values are rounded for them.

Integer kernels want company: one between float operations converts its operand and its result, which costs more than it
saves for all but products. So products are always taken, and other operations where everything that reads them is an
integer kernel. That leaves LayerNorm, softmax, GELU and the residual stream of a transformer in float, which costs
accuracy otherwise, and takes the whole of a convolutional network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from ...core.graph import Graph
from ...core.node import Node, Value
from .calibration import Tap
from .operations import PRODUCTS, Operation, find_operations, float_reason, readers, scope_of, source
from .tables import Scheme, Table


@dataclasses.dataclass
class Placement:
    """What is to be done with a graph.

    Attributes:
      operations: those that become integer kernels, in order.
      outputs: of those, the ones whose result is quantized; the name is that of the operation.
      inputs: values that are quantized before an operation reads them, with their names.
      floats: for every product that stays float, its name and the reason.
      others: products whose results this target leaves in float, and another may not.
    """

    operations: list[Operation]
    outputs: list[Operation]
    inputs: dict[Value, str]
    floats: dict[str, str]
    others: list[Operation] = dataclasses.field(default_factory=list)

    def taps(self) -> list[Tap]:
        """The values whose range must be known."""
        return [
            *(Tap(name, value, self._input_axis(value)) for value, name in self.inputs.items()),
            *(Tap(op.name, op.output, op.channel_axis if op.is_product else None) for op in self.outputs),
        ]

    def _input_axis(self, value: Value) -> int | None:
        """The axis of the input channels of the product that reads a value."""
        for op in self.operations:
            if op.is_product and op.node.inputs[op.operands[0]] is value:
                return op.input_axis
        return None

    def observed(self) -> list[Tap]:
        """These, and those that make the calibration serve other targets, each name once."""
        more = [Tap(op.name, op.output, op.channel_axis) for op in self.others]
        return list({tap.name: tap for tap in (*self.taps(), *more)}.values())


def place(graph: Graph, table: Table, scheme: Scheme, keep: Collection[str] = ()) -> Placement:
    """Decides for every operation of ``graph``, regions excluded.

    Args:
      graph: not to be edited.
      table: what the runtime has.
      scheme: how activations are treated.
      keep: names of products that are to stay float.
    """
    found = find_operations(graph)
    floats = _products_without_weights(graph)
    operations: list[Operation] = []
    for operation in found:
        reason = _declined(operation, table, scheme, keep)
        if reason is None:
            operations.append(operation)
        elif operation.is_product:
            floats[operation.name] = reason
    if scheme != "static":
        return Placement(operations, [], {}, floats)
    operations = _in_company(operations, table)
    outputs = [op for op in operations if _rounds_output(op, operations, table)]
    others = [op for op in found if op.is_product and op not in outputs]
    names = {id(op.output): op.name for op in found if op not in outputs}
    return Placement(operations, outputs, _inputs(operations, outputs, table, names), floats, others)


def _declined(operation: Operation, table: Table, scheme: Scheme, keep: Collection[str]) -> str | None:
    if operation.name in keep:
        return "it was asked to stay float"
    if not operation.is_product:
        return None if scheme == "static" and operation.kind in table.elementwise else "not in the table"
    if scheme == "static":
        return (table.convolution if operation.kind == "conv" else table.product)(operation.node)
    if scheme == "dynamic":
        return (table.dynamic_convolution if operation.kind == "conv" else table.dynamic_product)(operation.node)
    return None


def _products_without_weights(graph: Graph) -> dict[str, str]:
    """Products of two computed values, such as attention scores, and those inside control flow."""
    floats: dict[str, str] = {}

    def add(node: Node, reason: str) -> None:
        scope = scope_of(node)
        name = f"{scope}/{PRODUCTS[node.name]}" if scope else PRODUCTS[node.name]
        floats.setdefault(f"{name} at {node.where or 'an unknown line'}", reason)

    for region in graph.walk():
        for node in region.nodes():
            if node.name not in PRODUCTS or not all(str(v.dtype).startswith(("float", "bf")) for v in node.inputs):
                continue
            reason = float_reason(node)
            if region is not graph and reason is None:
                reason = "it stands inside control flow or a composite"
            if reason is not None:
                add(node, reason)
    return floats


# -- which operations --------------------------------------------------------------------------------------------------


def _in_company(operations: list[Operation], table: Table) -> list[Operation]:
    """Without the elementwise operations that something in float reads, or that read floats nobody else quantizes."""
    chosen = {id(op): op for op in operations}
    again = True
    while again:
        inside = {id(op.node) for op in chosen.values()}
        made = {id(op.output) for op in chosen.values()}
        rounded = {id(op.node.inputs[k]) for op in chosen.values() if op.is_product for k in op.operands}
        alone = [
            key
            for key, op in chosen.items()
            if not op.is_product and not (_read_by(op.output, inside, table) and _reads(op, made | rounded, table))
        ]
        for key in alone:
            del chosen[key]
        again = bool(alone)
    return [op for op in operations if id(op) in chosen]


def _read_by(value: Value, inside: set[int], table: Table) -> bool:
    """Whether integer kernels, and nothing else, read a value."""
    users = readers(value, table.rescales)
    return bool(users) and all(id(user) in inside for user in users)


def _reads(operation: Operation, quantized: set[int], table: Table) -> bool:
    operands = [operation.node.inputs[k] for k in operation.operands]
    return all(id(v) in quantized or id(source(v, table.rescales, quantized)) in quantized for v in operands)


# -- which values ------------------------------------------------------------------------------------------------------


def _rounds_output(operation: Operation, operations: list[Operation], table: Table) -> bool:
    if operation.kind != "dot" or table.product_output == "always":
        return True
    return _read_by(operation.output, {id(op.node) for op in operations}, table)


def _inputs(
    operations: list[Operation], outputs: list[Operation], table: Table, names: Mapping[int, str]
) -> dict[Value, str]:
    """The operands that are not results of integer kernels; ``names`` has those that are results of other products."""
    made = {id(op.output) for op in outputs}
    inputs: dict[Value, str] = {}
    for operation in operations:
        for number, position in enumerate(operation.operands):
            value = operation.node.inputs[position]
            if value not in inputs and id(source(value, table.rescales, made)) not in made:
                suffix = ":input" if len(operation.operands) == 1 else f":input{number}"
                inputs[value] = names.get(id(value), operation.name + suffix)
    return inputs
