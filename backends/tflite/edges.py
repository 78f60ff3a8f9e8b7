"""Inputs and outputs of types that a file cannot have: what the file has in their place.

float64, bfloat16 and the floats of 8 bits become float32, integers of 2 and 4 bits those of 8, complex numbers pairs of
float32 on a trailing axis, random keys their words as uint32. `legalize` leaves a conversion from each such input, and
one to each such output; here both go, and whoever runs the file converts on the outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...core.errors import UnsupportedError
from ...core.graph import Graph
from ...core.node import Node, Value
from ...core.program import Program

KEPT = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32"]
)
"""The types that a file can have at its edges."""


def edge_aval(aval: Any) -> Any:
    """The type that a file has in the place of ``aval``.

    Raises:
      UnsupportedError: there is none.
    """
    dtype = aval.dtype
    if str(dtype) in KEPT:
        return aval
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        words = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), dtype)).shape
        return jax.core.ShapedArray((*aval.shape, *words), np.uint32)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return jax.core.ShapedArray((*aval.shape, 2), np.float32)
    if jnp.issubdtype(dtype, jnp.floating):
        return jax.core.ShapedArray(aval.shape, np.float32)
    if jnp.issubdtype(dtype, jnp.integer):
        return jax.core.ShapedArray(aval.shape, np.int8 if jnp.issubdtype(dtype, jnp.signedinteger) else np.uint8)
    raise UnsupportedError(f"a TFLite file has no inputs or outputs of type {dtype}")


def to_edge(value: Any, aval: Any) -> np.ndarray[Any, Any]:
    """A value of type ``aval`` as the file takes it."""
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(value))
    array = np.asarray(value, aval.dtype)
    if jnp.issubdtype(aval.dtype, jnp.complexfloating):
        return np.stack([array.real, array.imag], axis=-1).astype(np.float32)
    return array.astype(edge_aval(aval).dtype, copy=False)


def from_edge(array: np.ndarray[Any, Any], aval: Any) -> Any:
    """What the file gave, as a value of type ``aval``."""
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=str(aval.dtype._impl.name))
    if jnp.issubdtype(aval.dtype, jnp.complexfloating):
        return (array[..., 0] + 1j * array[..., 1]).astype(aval.dtype)
    return array.astype(aval.dtype, copy=False)


def with_edges(program: Program) -> Program:
    """The program with the types that its file will have at its inputs and outputs.

    Raises:
      UnsupportedError: something other than a conversion reads such an input, or makes such an output.
    """
    if all(str(aval.dtype) in KEPT for aval in (*program.in_avals, *program.out_avals)):
        return program
    graph = Graph(program.jaxpr, provenance=program.provenance)
    for index, name in enumerate(program.input_names):
        if str(graph.inputs[index].dtype) not in KEPT:
            _convert_input(graph, index, name)
    for index, name in enumerate(program.output_names):
        if str(graph.outputs[index].dtype) not in KEPT:
            _convert_output(graph, index, name)
    return program.replace(jaxpr=graph.to_closed(), provenance=graph.made_by, examples=None, traced=None)


def _convert_input(graph: Graph, index: int, name: str) -> None:
    old = graph.inputs[index]
    readers = old.users
    new = graph.retype_input(index, edge_aval(old.aval))
    for node in readers:
        if node is graph.terminator:
            continue  # an output that is the input itself: converted with the outputs
        results = _read(graph, node, new)
        if results is None:
            raise UnsupportedError(
                f"{node.name} reads the input {name!r}, which is {old.dtype}: TFLite has no such type", where=node.where
            )
        graph.replace(node.outputs[0], results)
        graph.erase(node)
    for node, position in list(old.uses):
        graph.set_operand(node, position, new)


def _read(graph: Graph, node: Node, new: Value) -> Value | None:
    """What ``node`` computes of an input, from its new form; None when it is no conversion."""
    forms: dict[str, Callable[[Any], Any]] = {
        "real": lambda x: x[..., 0],
        "imag": lambda x: x[..., 1],
        "random_unwrap": lambda x: x,
        "convert_element_type": lambda x: lax.convert_element_type(x, node.outputs[0].dtype),
    }
    if node.name not in forms or str(node.outputs[0].dtype) not in KEPT:
        return None
    return graph.splice(forms[node.name], new, before=node)[0]


def _convert_output(graph: Graph, index: int, name: str) -> None:
    old = graph.outputs[index]
    if old.producer is None and not old.is_const:
        return  # an input, which has its new type already
    want = edge_aval(old.aval)
    node = old.producer
    end = graph.terminator
    if node is None:
        new = graph.constant(to_edge(old.const, old.aval))
    elif node.name == "convert_element_type" and str(node.inputs[0].dtype) in KEPT:
        new = graph.splice(lambda x: lax.convert_element_type(x, want.dtype), node.inputs[0], before=end)[0]
    elif node.name == "random_wrap":
        new = node.inputs[0]
    elif node.name == "complex":
        new = graph.splice(lambda *parts: jnp.stack(parts, axis=-1), *node.inputs, before=end)[0]
    else:
        raise UnsupportedError(
            f"{node.name} makes the output {name!r}, which is {old.dtype}: TFLite has no such type", where=node.where
        )
    graph.set_operand(end, index, new)
    if node is not None:
        graph.erase_dead(node)
