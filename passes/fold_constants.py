"""`fold-constants`: compute what is known now."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jax.extend import core as jex_core

from ..core.graph import Graph
from ..core.instruments.evaluation import UNFUSED
from ..core.node import Node, Value
from ..core.pass_ import GraphPass, PassContext
from . import numpy_operations

SMALL_BYTES = 64 * 1024
"""Results up to this size fold, whatever they are made from; larger ones only when they take no more room than the
constants that they are made from: so an ``iota`` or a broadcast of megabytes stays the one instruction that it is."""

LARGEST_OPERANDS = 2**30
"""An operation that reads more bytes than this stays: folding would hold them and the result in memory at once."""

LARGEST_INTERMEDIATE = 2**26
"""Bytes of a value that is made on the way to a folded result, and then dropped."""

MOST_MULTIPLICATIONS = 2**28
"""A product or convolution of more multiplications than this takes a good part of a second, and stays."""

# fmt: off
UNARY = frozenset({
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "bessel_i0e", "bessel_i1e", "cbrt", "ceil", "cos", "cosh",
    "digamma", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "lgamma", "log", "log1p", "log2", "logistic",
    "one_minus_square", "round", "rsqrt", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh", "abs", "neg",
    "integer_pow",
})
"""Elementwise functions of one operand."""

OTHERS = frozenset({
    "add", "add_jaxvals", "and", "argmax", "argmin", "atan2", "bitcast_convert_type", "broadcast_in_dim", "clamp",
    "clz", "complex", "concatenate", "conj", "conv_general_dilated", "convert_element_type", "copy", "cumlogsumexp",
    "cummax", "cummin", "cumprod", "cumsum", "div", "dot_general", "dynamic_slice", "dynamic_update_slice", "eq", "ge",
    "gather", "gt", "imag", "iota", "is_finite", "le", "lt", "max", "min", "mul", "ne", "nextafter", "not", "or", "pad",
    "population_count", "pow", "real", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_precision",
    "reduce_prod", "reduce_sum", "reduce_window_max", "reduce_window_min", "reduce_window_sum", "reduce_xor", "rem",
    "reshape", "rev", "scatter", "scatter_add", "select_n", "shift_left", "shift_right_arithmetic",
    "shift_right_logical", "slice", "sort", "squeeze", "stop_gradient", "sub", "top_k", "transpose", "xor",
})
"""The rest of what is folded. Not in it: anything random or with effects, loops, communication, linear algebra."""
# fmt: on


@dataclasses.dataclass(frozen=True)
class FoldConstants(GraphPass):
    """Computes now what depends on constants alone, and takes branches that are known.

    Attributes:
      max_bytes: results up to this size fold, larger ones only when they are no larger than what they are made from.
      max_input_bytes: operations that read more bytes than this stay.
    """

    name: ClassVar[str] = "fold-constants"
    idempotent: ClassVar[bool] = True

    max_bytes: int = SMALL_BYTES
    max_input_bytes: int = LARGEST_OPERANDS

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Folds every region, inner ones first."""
        changed, folded = False, 0
        for region in graph.walk():
            again = True
            while again:
                count = fold(region, self.max_bytes, self.max_input_bytes)
                again = take_known_branches(region)
                folded += count
                changed |= again or count > 0
        if folded:
            context.details["folded"] = folded
        return changed


def fold(graph: Graph, max_bytes: int = SMALL_BYTES, max_input_bytes: int = LARGEST_OPERANDS) -> int:
    """Replaces the operations of ``graph`` that are known and worth it by constants; returns how many."""
    sizes = _foldable(graph, max_bytes, max_input_bytes)
    kept = _worth_keeping(graph, sizes, max_bytes)
    if not kept:
        return 0
    values = _evaluate(sizes, kept)
    constants = as_constants(graph, [values[value] for value in kept], [value.aval for value in kept])
    for value, constant in zip(kept, constants, strict=True):
        graph.replace(value, constant)
    return sum(map(graph.erase_dead, _producers(kept)))


def as_constants(graph: Graph, arrays: Sequence[np.ndarray[Any, Any]], avals: Sequence[Any]) -> list[Value]:
    """Constants of ``graph`` with the weak types of ``avals``: scalars as literals, arrays on the default device."""
    with jax.ensure_compile_time_eval():
        held = jax.device_put([array if array.ndim else None for array in arrays])
    return [
        graph.constant(array if on_device is None else on_device, weak_type=bool(getattr(aval, "weak_type", False)))
        for array, on_device, aval in zip(arrays, held, avals, strict=True)
    ]


def aligned_empty(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An uninitialized array that JAX's CPU device takes over as it is: unless aligned to 64 bytes, it copies."""
    count = math.prod(shape) * dtype.itemsize
    memory = np.empty(count + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count].view(dtype).reshape(shape)


def is_known(value: Value) -> bool:
    """Whether ``value`` is a constant that NumPy can hold: not a random key."""
    return value.is_const and isinstance(value.dtype, np.dtype)


def _foldable(graph: Graph, max_bytes: int, max_input_bytes: int) -> dict[Value, int]:
    """The values that could be computed now, in order, each with the bytes of the constants it is made from.

    A small value counts with its own size, as it will when it has become a constant: a second run decides the same.
    """
    made_from: dict[Value, int] = {}
    for node in graph.nodes():
        if node.primitive not in _PRIMITIVES or node.effects or not all(map(_is_static, node.outputs)):
            continue
        sources = [_source_bytes(value, made_from) for value in dict.fromkeys(node.inputs)]
        if any(source is None for source in sources):
            continue
        read, written = sum(map(_bytes, node.inputs)), sum(map(_bytes, node.outputs))
        if read > max_input_bytes or written > max(read, LARGEST_INTERMEDIATE):
            continue
        if _multiplications(node) > MOST_MULTIPLICATIONS or _crashes_xla(node):
            continue
        source = written if written <= max_bytes else min(sum(s for s in sources if s is not None), written)
        made_from.update(dict.fromkeys(node.outputs, source))
    return made_from


def _crashes_xla(node: Node) -> bool:
    """XLA without its simplifier crashes on a scatter into a scalar (seen with jaxlib 0.10.2)."""
    return node.name.startswith("scatter") and not node.inputs[0].shape


def _source_bytes(value: Value, made_from: Mapping[Value, int]) -> int | None:
    if value in made_from:
        return made_from[value]
    return _bytes(value) if is_known(value) else None


def _is_static(value: Value) -> bool:
    return isinstance(value.dtype, np.dtype) and all(isinstance(size, int) for size in value.shape)


def _bytes(value: Value) -> int:
    return int(math.prod(value.shape) * value.dtype.itemsize)


def _multiplications(node: Node) -> int:
    if node.name == "dot_general":
        (contracting, _), _ = node.params["dimension_numbers"]
        return int(math.prod(node.outputs[0].shape) * math.prod(node.inputs[0].shape[d] for d in contracting))
    if node.name == "conv_general_dilated":
        kernel = node.inputs[1].shape
        features = kernel[node.params["dimension_numbers"].rhs_spec[0]]
        return int(math.prod(node.outputs[0].shape) * math.prod(kernel) // max(features, 1))
    return 0


def _worth_keeping(graph: Graph, sizes: Mapping[Value, int], max_bytes: int) -> list[Value]:
    """The values to turn into constants: those that something else reads, unless they would bloat the program.

    An operation that stays for that reason is itself something that reads.
    """
    kept: list[Value] = []
    stays: set[Node] = set()
    for node in reversed(_producers(sizes)):
        wanted = [v for v in node.outputs if any(user in stays or not _folds(user, sizes) for user, _ in v.uses)]
        if sum(map(_bytes, wanted)) > max(sizes[node.outputs[0]], max_bytes):
            stays.add(node)
        else:
            kept.extend(wanted)
    return kept


def _folds(node: Node, sizes: Mapping[Value, int]) -> bool:
    return bool(node.outputs) and node.outputs[0] in sizes


# -- evaluation --------------------------------------------------------------------------------------------------------


def _evaluate(sizes: dict[Value, int], wanted: Sequence[Value]) -> dict[Value, Any]:
    """Computes ``wanted``: with NumPy where that is exact, and what is left, round by round, by XLA."""
    pending = _needed(sizes, wanted)
    values: dict[Value, Any] = {}
    while pending:
        blocked = []
        for node in pending:
            if not _compute_with_numpy(node, values):
                blocked.append(node)
        ready = [node for node in blocked if all(v in values or v.is_const for v in node.inputs)]
        _compute_with_xla(ready, values)
        done = set(ready)
        pending = [node for node in blocked if node not in done]
    return values


def _needed(sizes: dict[Value, int], wanted: Sequence[Value]) -> list[Node]:
    needed = {value.producer for value in wanted}
    nodes = _producers(sizes)
    for node in reversed(nodes):
        if node in needed:
            needed.update(value.producer for value in node.inputs if value in sizes)
    return [node for node in nodes if node in needed]


def _producers(values: Iterable[Value]) -> list[Node]:
    """The nodes that compute ``values``, each once, in the same order."""
    return [node for node in dict.fromkeys(value.producer for value in values) if node is not None]


def _operand(value: Value, values: Mapping[Value, Any]) -> Any:
    known = values.get(value)
    return value.numpy() if known is None else known


def _compute_with_numpy(node: Node, values: dict[Value, Any]) -> bool:
    if len(node.outputs) != 1 or not all(v in values or v.is_const for v in node.inputs):
        return False
    operands = [_operand(value, values) for value in node.inputs]
    result = numpy_operations.evaluate(node.name, node.params, operands, node.outputs[0].aval)
    if result is None:
        return False
    values[node.outputs[0]] = result
    return True


def _compute_with_xla(nodes: Sequence[Node], values: dict[Value, Any]) -> None:
    """Evaluates independent operations in one compiled call; equal elementwise functions go as one long vector."""
    groups: dict[Any, list[Node]] = collections.defaultdict(list)
    for node in nodes:
        params = tuple(sorted(node.params.items()))
        apart = None if node.name in UNARY else node
        groups[node.primitive, params, node.inputs[0].dtype if node.inputs else None, apart].append(node)
    operations, operands = [], []
    for (primitive, params, _, apart), members in groups.items():
        arrays = [_operand(value, values) for value in members[0].inputs]
        if apart is None:
            arrays = [_joined([_operand(node.inputs[0], values) for node in members])]
        operations.append((primitive, params))
        operands.append(arrays)
    with jax.ensure_compile_time_eval(), jax.default_device(_cpu()):
        results = jax.device_get(_bind_all(tuple(operations), operands))
    for ((_, _, _, apart), members), result in zip(groups.items(), results, strict=True):
        if apart is not None:
            values.update(zip(apart.outputs, result, strict=True))
            continue
        start = 0
        for node in members:
            (output,) = node.outputs
            stop = start + math.prod(output.shape)
            values[output] = result[0][start:stop].reshape(output.shape)
            start = stop


def _joined(arrays: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """All elements in a row, filled up to a power of two: so that few lengths are ever compiled."""
    row = np.concatenate([array.reshape(-1) for array in arrays])
    return np.concatenate([row, np.ones((1 << max(row.size - 1, 0).bit_length()) - row.size, row.dtype)])


def _bind_all(operations: tuple[Any, ...], operands: Sequence[Sequence[Any]]) -> list[list[Any]]:
    results = []
    for (primitive, params), arrays in zip(operations, operands, strict=True):
        result = primitive.bind(*arrays, **dict(params))
        results.append(list(result) if primitive.multiple_results else [result])
    return results


_bind_all = jax.jit(_bind_all, static_argnums=0, compiler_options=dict(UNFUSED))


def _cpu() -> Any:
    """The CPU as a device of JAX's, or None, meaning the default one, where JAX was told not to have it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


# -- control flow ------------------------------------------------------------------------------------------------------


def take_known_branches(graph: Graph) -> bool:
    """Replaces every ``cond`` whose index is known by a copy of its branch.

    One with effects stays: they belong to the program's type, even those of branches that are never taken.
    """
    changed = False
    for node in graph.nodes():
        if node.name != "cond" or node.effects or not is_known(node.inputs[0]):
            continue
        branch = node.regions.get(("branches", int(node.inputs[0].numpy())))
        if branch is None:
            continue
        graph.inline(node, branch, node.inputs[1:])
        changed = True
    return changed


_PRIMITIVES = frozenset(getattr(jex_core.primitives, f"{name}_p", None) for name in UNARY | OTHERS)
"""Those that this release of JAX has; the others become None, which is nobody's primitive."""
