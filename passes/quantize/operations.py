"""The operations of a graph that can become integer kernels, with all that such a kernel takes in: bias, activation."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Container
from typing import Any

import numpy as np

from ...core import _compat
from ...core.graph import Graph
from ...core.node import Node, Value
from ...core.patterns import scalar_of, through_no_ops
from ..fold_batch_norm import constant_of

Array = np.ndarray[Any, Any]

PRODUCTS = {"conv_general_dilated": "conv", "dot_general": "dot"}
"""Primitives that multiply by weights, and what their kind is called in names."""

MOVES = frozenset(
    {"reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "slice", "rev", "copy", "copy_p",
     "reduce_window_max", "reduce_max"}
)  # fmt: skip
"""Primitives whose results are some of the numbers of their only operand: they need no quantizer of their own."""

_ARITHMETIC = {"add": "add", "add_any": "add", "mul": "mul", "sub": "sub"}
_COMPOSITES = {"xlapass.softmax": "softmax", "xlapass.relu6": "relu6"}
_UNARY = {"logistic": "logistic", "tanh": "tanh"}


@dataclasses.dataclass(frozen=True)
class Activation:
    """A piecewise linear function that integer kernels apply by saturating: ``low`` to ``high``."""

    low: float
    high: float | None


@dataclasses.dataclass(eq=False)
class Operation:
    """What would be one integer kernel.

    Attributes:
      kind: ``conv``, ``dot``, or a name that tables list, such as ``add``.
      node: the product, or the first node of anything else.
      operands: positions of the activations among the operands of ``node``.
      output: the value at its end: after bias and activation.
      nodes: all of its nodes.
      bias: one number per output channel of a product, or None.
      activation: what is applied last, or None.
      name: the same in every trace of the model, and for every target.
    """

    kind: str
    node: Node
    operands: tuple[int, ...]
    output: Value
    nodes: list[Node]
    bias: Array | None = None
    activation: Activation | None = None
    name: str = ""

    @property
    def is_product(self) -> bool:
        """Whether it multiplies by weights."""
        return self.kind in ("conv", "dot")

    @property
    def weights(self) -> Value:
        """The constant operand of a product."""
        return self.node.inputs[1 - self.operands[0]]

    @property
    def channel_axis(self) -> int | None:
        """The axis of the result along which the output channels of a product lie, if it is one axis."""
        if self.kind == "conv":
            return int(self.node.params["dimension_numbers"].out_spec[1])
        free = free_axes(self.node, 1 - self.operands[0]) if self.kind == "dot" else ()
        if len(free) != 1:
            return None
        return len(self.output.shape) - 1 if self.operands[0] == 0 else 0

    @property
    def input_axis(self) -> int | None:
        """The axis of the data that a product sums over, if it is one axis (besides the window of a convolution)."""
        if self.kind == "conv":
            return int(self.node.params["dimension_numbers"].lhs_spec[1])
        summed = self.node.params["dimension_numbers"][0][self.operands[0]]
        return int(summed[0]) if len(summed) == 1 else None


def find_operations(graph: Graph) -> list[Operation]:
    """Every product of a graph that multiplies floats by constant weights, and all else that tables may list."""
    found: list[Operation] = []
    taken: set[int] = set()
    for node in graph.nodes():
        if id(node) in taken:
            continue
        operation = _product(node) if node.name in PRODUCTS else _other(node)
        if operation is not None:
            taken.update(map(id, operation.nodes))
            found.append(operation)
    _name(found)
    return found


def float_reason(node: Node) -> str | None:
    """Why a product is no candidate whatever the target; None where it is one."""
    if node.outputs[0].dtype != np.float32 or any(v.dtype != np.float32 for v in node.inputs):
        return f"it is computed in {node.outputs[0].dtype}, not float32"
    constants = [v.is_const for v in node.inputs]
    if any(size == 0 for v in (*node.inputs, *node.outputs) for size in v.shape if isinstance(size, int)):
        return "it is empty"
    if not any(constants):
        return "both operands are computed"
    if all(constants):
        return "both operands are constants"
    if not all(np.isfinite(v.numpy()).all() for v in node.inputs if v.is_const):
        return "its weights are not finite"
    if node.name == "conv_general_dilated":
        if not constants[1]:
            return "its kernel is computed"
        return "it groups its batch" if node.params["batch_group_count"] != 1 else None
    (contracting, batch) = node.params["dimension_numbers"]
    if batch[0]:
        return "its weights differ along the batch"
    return None if contracting[0] else "it sums over nothing"


def free_axes(node: Node, side: int) -> tuple[int, ...]:
    """The axes of one operand of a ``dot_general`` that appear in the result."""
    (contracting, batch) = node.params["dimension_numbers"]
    return tuple(k for k in range(len(node.inputs[side].shape)) if k not in (*contracting[side], *batch[side]))


def multiplications(node: Node) -> float:
    """How many a product takes; sizes that are not known count as one."""
    sizes = [size if isinstance(size, int) else 1 for size in node.outputs[0].shape]
    if node.name == "dot_general":
        (contracting, _), _ = node.params["dimension_numbers"]
        terms = [node.inputs[0].shape[axis] for axis in contracting]
    else:
        terms = [size for k, size in enumerate(node.inputs[1].shape) if k != _kernel_outputs(node)]
    return float(math.prod(sizes) * math.prod(size if isinstance(size, int) else 1 for size in terms))


def _kernel_outputs(node: Node) -> int:
    return int(node.params["dimension_numbers"].rhs_spec[0])


# -- products ----------------------------------------------------------------------------------------------------------


def _product(node: Node) -> Operation | None:
    if float_reason(node) is not None:
        return None
    side = 1 if node.inputs[0].is_const else 0
    operation = Operation(PRODUCTS[node.name], node, (side,), node.outputs[0], [node])
    _take_bias(operation)
    _take_activation(operation)
    return operation


def _only_user(value: Value) -> Node | None:
    """The only node that reads a value, once; None where there are more, or it is a result of the program."""
    if len(value.uses) != 1:
        return None
    (user,) = value.users
    return None if user.name == "return" else user


def _take_bias(operation: Operation) -> None:
    user = _only_user(operation.output)
    if user is None or user.name not in ("add", "add_any"):
        return
    other = user.inputs[1 - [v is operation.output for v in user.inputs].index(True)]
    constant = constant_of(other)
    if constant is None or user.outputs[0].shape != operation.output.shape:
        return
    bias = _per_channel(operation, constant)
    if bias is not None:
        operation.bias = bias
        operation.nodes.append(user)
        operation.output = user.outputs[0]


def _per_channel(operation: Operation, constant: Array) -> Array | None:
    """A constant, of the rank of the product's result or a scalar, as one number per output channel."""
    shape, node = operation.output.shape, operation.node
    if operation.kind == "conv":
        axes: tuple[int, ...] = (node.params["dimension_numbers"].out_spec[1],)
    else:
        count = len(free_axes(node, 1 - operation.operands[0]))
        axes = tuple(range(len(shape) - count, len(shape))) if operation.operands[0] == 0 else tuple(range(count))
    if constant.ndim == 0:
        constant = constant.reshape([1] * len(shape))
    if any(size != 1 and axis not in axes for axis, size in enumerate(constant.shape)):
        return None
    sizes = [shape[axis] if axis in axes else 1 for axis in range(len(shape))]
    return np.asarray(np.broadcast_to(constant, sizes).reshape(-1), np.float32)


def _take_activation(operation: Operation) -> None:
    """ReLU, ReLU6 and other clipping that follows and reads the result alone."""
    user = _only_user(operation.output)
    activation = None if user is None else _clipping(user, operation.output)
    if user is None or activation is None:
        return
    operation.activation = activation
    operation.nodes.append(user)
    operation.output = user.outputs[0]
    if user.name == "max":
        _take_upper_limit(operation)


def _take_upper_limit(operation: Operation) -> None:
    user = _only_user(operation.output)
    if user is None or user.name != "min":
        return
    high = _other_scalar(user, operation.output)
    if high is not None and high > 0:
        operation.activation = Activation(0.0, high)
        operation.nodes.append(user)
        operation.output = user.outputs[0]


def _clipping(node: Node, value: Value) -> Activation | None:
    """What a node does to ``value`` if it clips it from zero on."""
    if node.name == "max" and _other_scalar(node, value) == 0:
        return Activation(0.0, None)
    if node.name == "composite" and node.params["name"] == "xlapass.relu6":
        return Activation(0.0, 6.0)
    if node.name == "clamp" and node.inputs[1] is value:
        low, high = scalar_of(node.inputs[0]), scalar_of(node.inputs[2])
        if low is not None and high is not None and low == 0 and high > 0:
            return Activation(0.0, float(high))
    return None


def _other_scalar(node: Node, value: Value) -> float | None:
    others = [v for v in node.inputs if v is not value]
    number = scalar_of(others[0]) if len(others) == 1 else None
    return None if number is None else float(number)


# -- everything else ---------------------------------------------------------------------------------------------------


def _other(node: Node) -> Operation | None:
    """An elementwise operation, a mean, a concatenation; None for anything else."""
    if len(node.outputs) != 1 or node.outputs[0].dtype != np.float32 or node.effects:
        return None
    if node.name in _ARITHMETIC and not any(constant_of(v) is not None for v in node.inputs):
        operation = Operation(_ARITHMETIC[node.name], node, (0, 1), node.outputs[0], [node])
        _take_activation(operation)
        return operation
    if node.name == "concatenate" and len(node.inputs) > 1:
        return Operation("concatenate", node, tuple(range(len(node.inputs))), node.outputs[0], [node])
    if node.name in ("reduce_sum", "reduce_window_sum"):
        return _mean(node)
    kind = _UNARY.get(node.name) or (_COMPOSITES.get(node.params["name"]) if node.name == "composite" else None)
    if kind is not None and len(node.inputs) == 1:
        return Operation(kind, node, (0,), node.outputs[0], [node])
    return None


def _mean(node: Node) -> Operation | None:
    """A sum that is divided by a number."""
    user = _only_user(node.outputs[0])
    if user is None or user.name not in ("div", "mul") or user.inputs[0] is not node.outputs[0]:
        return None
    if scalar_of(user.inputs[1]) is None:
        return None
    kind = "mean" if node.name == "reduce_sum" else "average-pool"
    return Operation(kind, node, (0,), user.outputs[0], [node, user])


# -- seeing through what only moves numbers ----------------------------------------------------------------------------


def moved_operand(node: Node | None, rescales: bool = True) -> Value | None:
    """The operand of which a node's result holds numbers and nothing else; None where there is no such operand.

    Args:
      node: any node.
      rescales: whether these numbers may be multiplied by a positive constant, which only changes the scale.
    """
    if node is None or len(node.outputs) != 1 or node.effects:
        return None
    if node.name in MOVES:
        return node.inputs[0] if len(node.inputs) == 1 else None
    factor = scaling(node) if rescales else None
    return None if factor is None else factor[0]


def scaling(node: Node) -> tuple[Value, float] | None:
    """``(x, c)`` where a node multiplies ``x`` by a positive constant ``c``."""
    if node.name == "div":
        pairs = [(node.inputs[0], node.inputs[1])]
    elif node.name == "mul":
        pairs = [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])]
    else:
        return None
    for value, other in pairs:
        number = scalar_of(other)
        if number is None or np.iscomplexobj(number):
            continue
        if np.isfinite(number) and number > 0 and value.shape == node.outputs[0].shape:
            return value, float(number) if node.name == "mul" else 1 / float(number)
    return None


def source(value: Value, rescales: bool = True, known: Container[int] = ()) -> Value:
    """The value whose numbers ``value`` holds; one whose identity is ``known`` is not looked through."""
    value = through_no_ops(value)
    while id(value) not in known and (operand := moved_operand(value.producer, rescales)) is not None:
        value = through_no_ops(operand)
    return value


def readers(value: Value, rescales: bool = True) -> list[Node]:
    """Who reads the numbers of ``value``, those included that read them after they were moved."""
    found: list[Node] = []
    pending, seen = [value], {id(value)}
    while pending:
        for node in pending.pop().users:
            if moved_operand(node, rescales) is None:
                found.append(node)
                continue
            (output,) = node.outputs
            if id(output) not in seen:
                seen.add(id(output))
                pending.append(output)
    return found


# -- names -------------------------------------------------------------------------------------------------------------


def _name(operations: list[Operation]) -> None:
    """Scope of the module, kind, and a number where that is not unique: no variable, no layout, no pass is in it."""
    counts: dict[str, int] = collections.defaultdict(int)
    for operation in operations:
        scope = scope_of(operation.node)
        name = f"{scope}/{operation.kind}" if scope else operation.kind
        counts[name] += 1
        operation.name = name if counts[name] == 1 else f"{name}#{counts[name]}"


def scope_of(node: Node) -> str:
    """The modules in which a node stands: ``ResNet/Block_0``."""
    if node.source_info is None:
        return ""
    parts = str(_compat.name_stack(node.source_info)).split("/")
    return "/".join(part for part in parts if part and "(" not in part)
