"""Which operations the backend takes, and the NumPy expression that each becomes."""

import dataclasses
from collections.abc import Callable

from xlapass import Legality, LegalityTable, Node

DTYPES = frozenset({"float32", "int32", "bool"})

Render = Callable[..., str]
"""``render(node, *operands)``: the expression for a node, given the names of its operands."""


@dataclasses.dataclass(frozen=True)
class Lowering:
    """How one operation is written."""

    render: Render
    check: Callable[[Node], str | None] | None = None


def _same(template: str, check: Callable[[Node], str | None] | None = None) -> Lowering:
    """An operation whose expression depends on its operands alone."""
    return Lowering(lambda node, *operands: template.format(*operands), check)


def _floats_only(node: Node) -> str | None:
    return None if node.outputs[0].dtype == "float32" else "NumPy rounds quotients of integers differently"


def _two_cases(node: Node) -> str | None:
    by_bool = len(node.inputs) == 3 and node.inputs[0].dtype == "bool"
    return None if by_bool else "only a choice between two, by a bool, is supported"


def _not_reordered(node: Node) -> str | None:
    return None if node.params["dimensions"] is None else "a reshape that reorders is not supported"


def _sum(node: Node, x: str) -> str:
    dtype = str(node.outputs[0].dtype)  # NumPy would add up integers in 64 bits
    return f"np.sum({x}, axis={tuple(node.params['axes'])}, dtype='{dtype}')"


def _not_empty(node: Node) -> str | None:
    return "NumPy has no maximum of nothing" if 0 in node.inputs[0].shape else None


def _broadcast(node: Node, x: str) -> str:
    shape, dimensions = node.params["shape"], node.params["broadcast_dimensions"]
    sizes = dict(zip(dimensions, node.inputs[0].shape, strict=True))
    aligned = tuple(sizes.get(i, 1) for i in range(len(shape)))
    return f"np.broadcast_to(np.reshape({x}, {aligned}), {tuple(shape)})"


def _contraction(node: Node, a: str, b: str) -> str:
    """``np.einsum`` with one letter per axis: batch axes first, then those left over of ``a`` and of ``b``."""
    (contract_a, contract_b), (batch_a, batch_b) = node.params["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    names_a = [next(letters) for _ in node.inputs[0].shape]
    names_b = [next(letters) for _ in node.inputs[1].shape]
    for i, j in zip((*contract_a, *batch_a), (*contract_b, *batch_b), strict=True):
        names_b[j] = names_a[i]
    rest_a = [n for i, n in enumerate(names_a) if i not in (*contract_a, *batch_a)]
    rest_b = [n for j, n in enumerate(names_b) if j not in (*contract_b, *batch_b)]
    result = [*(names_a[i] for i in batch_a), *rest_a, *rest_b]
    return f"np.einsum('{''.join(names_a)},{''.join(names_b)}->{''.join(result)}', {a}, {b})"


LOWERINGS: dict[str, Lowering] = {
    "abs": _same("np.abs({})"),
    "add": _same("np.add({}, {})"),
    "broadcast_in_dim": Lowering(_broadcast),
    "clamp": _same("np.minimum(np.maximum({1}, {0}), {2})"),
    "composite:example.squared_relu": _same("squared_relu({})", _floats_only),
    "convert_element_type": Lowering(lambda node, x: f"np.asarray({x}).astype('{node.params['new_dtype']}')"),
    "copy": _same("{}"),
    "div": _same("np.divide({}, {})", _floats_only),
    "dot_general": Lowering(_contraction),
    "eq": _same("np.equal({}, {})"),
    "exp": _same("np.exp({})"),
    "gt": _same("np.greater({}, {})"),
    "integer_pow": Lowering(lambda node, x: f"np.power({x}, {node.params['y']})", _floats_only),
    "log": _same("np.log({})"),
    "logistic": _same("1 / (1 + np.exp(-{}))"),
    "lt": _same("np.less({}, {})"),
    "max": _same("np.maximum({}, {})"),
    "min": _same("np.minimum({}, {})"),
    "mul": _same("np.multiply({}, {})"),
    "neg": _same("np.negative({})"),
    "reduce_max": Lowering(lambda node, x: f"np.max({x}, axis={tuple(node.params['axes'])})", _not_empty),
    "reduce_sum": Lowering(_sum),
    "reshape": Lowering(lambda node, x: f"np.reshape({x}, {tuple(node.outputs[0].shape)})", _not_reordered),
    "rsqrt": _same("1 / np.sqrt({})"),
    "select_n": _same("np.where({0}, {2}, {1})", _two_cases),
    "sqrt": _same("np.sqrt({})"),
    "square": _same("np.square({})"),
    "squeeze": Lowering(lambda node, x: f"np.squeeze({x}, {tuple(node.params['dimensions'])})"),
    "stop_gradient": _same("{}"),
    "sub": _same("np.subtract({}, {})"),
    "tanh": _same("np.tanh({})"),
    "transpose": Lowering(lambda node, x: f"np.transpose({x}, {tuple(node.params['permutation'])})"),
}

TABLE = LegalityTable(
    Legality(name, DTYPES, lowering.check, f"NumPy, {name.removeprefix('composite:')}")
    for name, lowering in LOWERINGS.items()
)
