"""Arrays without elements, which some kernels do not expect."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex_core

from ....core.graph import Graph
from ....core.node import REGION_PARAMS, Node, Value
from .carriers import NATIVE
from .rule import node_lowering

Array = jax.Array

_MAKERS = frozenset({"broadcast_in_dim", *REGION_PARAMS})
"""What an empty array is made with, and what may do more than compute its results."""

_OTHERS = tuple(
    sorted(
        primitive.name
        for primitive in vars(jex_core.primitives).values()
        if isinstance(primitive, jex_core.Primitive) and primitive.name not in _MAKERS
    )
)


_CUTS = ("slice", "reshape", "convert_element_type")
"""What `compute_empty_outputs` makes an empty output of."""


def _nothing(node: Node, *operands: Array) -> list[Array]:
    return [lax.broadcast(np.zeros((), v.dtype), v.shape) for v in node.outputs]


def _why_not_nothing(node: Node) -> str | None:
    if node.effects or not node.outputs:
        return "it has effects"
    if node.name in _CUTS and all(user.name in (*_CUTS, "return") for user in node.outputs[0].users):
        return "it is what makes an output"
    return None if all(0 in v.shape for v in node.outputs) else "its result has elements"


def _joined(node: Node, *operands: Array) -> Array:
    axis = node.params["dimension"]
    full = [x for x in operands if x.shape[axis] != 0]
    return lax.concatenate(full, axis) if len(full) > 1 else full[0]


def _why_not_joined(node: Node) -> str | None:
    axis = node.params["dimension"]
    return None if any(v.shape[axis] == 0 for v in node.inputs) else "none of its operands is empty"


def _padded(node: Node, x: Array, value: Array) -> Array:
    return jnp.broadcast_to(value, node.outputs[0].shape)


def _why_not_padded(node: Node) -> str | None:
    return None if 0 in node.inputs[0].shape else "its operand has elements"


def _reduced(node: Node, x: Array) -> Array:
    """What a reduction starts from."""
    dtype = node.outputs[0].dtype
    return jnp.full(node.outputs[0].shape, _start(node.name, dtype), dtype)


def _start(name: str, dtype: Any) -> Any:
    if name in ("reduce_sum", "reduce_or", "reduce_xor"):
        return 0
    if name in ("reduce_prod", "reduce_and"):
        return -1 if name == "reduce_and" and dtype != np.bool_ else 1
    if dtype == np.bool_:
        return name == "reduce_min"
    if jnp.issubdtype(dtype, jnp.floating):
        return np.inf if name == "reduce_min" else -np.inf
    info = np.iinfo(dtype)
    return info.max if name == "reduce_min" else info.min


def _first(node: Node, x: Array, *rest: Array) -> Array:
    return x


def _why_not_unwritten(node: Node) -> str | None:
    update = node.inputs[1 if node.name == "dynamic_update_slice" else 2]
    return None if 0 in update.shape else "something is written"


def compute_empty_outputs(graph: Graph) -> bool:
    """Makes outputs without elements depend on an input: the interpreter does not return empty constants."""
    sources = [value for value in graph.inputs if is_native(value)]
    changed = False
    for index, value in enumerate(graph.outputs):
        is_input = value.producer is None and not value.is_const
        if 0 not in value.shape or is_input or not sources or not is_native(value) or _is_cut(value):
            continue
        static = (value.shape, value.dtype)
        new = graph.splice(_cut, sources[0], before=graph.terminator, rule="empty-output", static=static)[0]
        graph.set_operand(graph.terminator, index, new)
        changed = True
    return changed


def _cut(x: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Nothing of ``x``; not a slice that the rule for empty results would replace."""
    return lax.convert_element_type(lax.slice(x.reshape(-1), [0], [0]).reshape(shape), dtype)


def _is_cut(value: Value) -> bool:
    node = value.producer
    while node is not None and node.name in ("convert_element_type", "reshape"):
        node = node.inputs[0].producer
    return node is not None and node.name == "slice"


def is_native(value: Value) -> bool:
    """Whether a value has known sizes and a type that TFLite computes with."""
    return value.dtype in NATIVE and all(isinstance(size, int) for size in value.shape)


_REDUCTIONS = "reduce_sum reduce_prod reduce_max reduce_min reduce_and reduce_or reduce_xor"
_WRITES = (
    "dynamic_update_slice scatter scatter-add scatter_add scatter-sub scatter_sub scatter-mul scatter_mul "
    "scatter-min scatter_min scatter-max scatter_max"
)

RULES = (
    node_lowering("no-elements", _OTHERS, _nothing, _why_not_nothing, "exact"),
    node_lowering("joined-without-empty-ones", "concatenate", _joined, _why_not_joined, "exact"),
    node_lowering("padded-nothing", "pad", _padded, _why_not_padded, "exact"),
    node_lowering("reduced-nothing", _REDUCTIONS, _reduced, _why_not_padded, "exact"),
    node_lowering("written-nothing", _WRITES, _first, _why_not_unwritten, "exact"),
)
