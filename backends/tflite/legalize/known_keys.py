"""Random numbers of keys that are known are constants: `jax.random.key(0)` in a model is one."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from ....core.graph import Graph
from ....core.node import REGION_PARAMS, Node, Value

LARGEST_BYTES = 2**26
"""Of a constant that is made; more random numbers than this are computed when the file runs."""

_SOURCES = frozenset({"random_seed", "random_wrap", "threefry2x32", "random_bits", "random_split", "random_fold_in"})


def fold_known_keys(graph: Graph) -> bool:
    """Computes what depends on constant keys alone, in one graph; returns whether there was anything."""
    made: set[Value] = set()
    for node in graph.nodes():
        if not _is_known(node, made):
            continue
        values = [v.const if _is_key(v) else v.numpy() for v in node.inputs]
        with jax.ensure_compile_time_eval():
            results = node.primitive.bind(*values, **node.params)
        for old, array in zip(node.outputs, results if node.primitive.multiple_results else [results], strict=True):
            array = array if _is_key(old) else np.asarray(array)
            new = graph.constant(array, weak_type=bool(getattr(old.aval, "weak_type", False)))
            graph.replace(old, new)
            made.add(new)
        graph.erase_dead(node)
    return bool(made)


def _is_key(value: Value) -> bool:
    return bool(jax.numpy.issubdtype(value.dtype, jax.dtypes.extended))


def _is_known(node: Node, made: set[Value]) -> bool:
    if node.effects or node.name in REGION_PARAMS or not all(value.is_const for value in node.inputs):
        return False
    if node.name not in _SOURCES and not any(value in made for value in node.inputs):
        return False
    return all(_bytes(value.aval) <= LARGEST_BYTES for value in node.outputs)


def _bytes(aval: Any) -> int:
    return int(math.prod(aval.shape)) * int(getattr(aval.dtype, "itemsize", 8))
