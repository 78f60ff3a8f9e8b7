"""Quantizers in the form in which the converters read them, and which products of a file are integer kernels.

Both converters turn the composite ``quant.fake_quant``, a number rounded to a step and still a float, into integer
kernels, in their strict mode: every activation that a product reads, its weights, and its result must have one, and no
value two of different scales.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from ...core.composites import Composite
from ...core.errors import CompileError
from ...core.kernel_report import Kernel, KernelReport
from ...core.node import Node, Value
from ...core.pass_ import RewritePass
from ...core.patterns import Op
from ...core.rewrite import Build, Match, Numerics, Rule
from . import flatbuffer

NAME = "quant.fake_quant"

PRODUCTS = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "FULLY_CONNECTED", "BATCH_MATMUL"}
)  # fmt: skip

_QUANTIZER, _DEQUANTIZER, _DYNAMIC = "xlapass.quantize", "xlapass.dequantize", "xlapass.dynamic_range"


def _fake_quant(x: jax.Array, *, scale: Any, zero_point: Any = None, narrow_range: bool, **rest: Any) -> jax.Array:
    """``x`` rounded to int8 steps; as it is where the scale is empty, which leaves it to the runtime."""
    scale = np.asarray(scale)
    if scale.size == 0:
        return jnp.asarray(x) + 0.0
    shape = [1] * x.ndim
    if "quantization_dimension" in rest:
        shape[int(rest["quantization_dimension"])] = -1
    steps, zero = scale.reshape(shape), np.asarray(zero_point, np.float32).reshape(shape)
    low = np.float32(-127 if narrow_range else -128)
    reciprocal = (1 / steps.astype(np.float64)).astype(np.float32)
    numbers = jax.lax.round(x * reciprocal, jax.lax.RoundingMethod.TO_NEAREST_EVEN) + zero
    rounded: jax.Array = (jnp.clip(numbers, low, np.float32(127)) - zero) * steps
    return rounded


FAKE_QUANT = Composite(NAME, _fake_quant)
"""``FAKE_QUANT(x, dtype="i8", scale=..., zero_point=..., narrow_range=...)``, as the converters know it."""


def is_quantized(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a program has quantizers, so that the converters are to be strict about them."""
    return any(
        (eqn.primitive.name == "composite" and eqn.params["name"] == NAME)
        or any(map(is_quantized, jex_core.jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


# -- the pass ----------------------------------------------------------------------------------------------------------


def _applied(match: Match, x: Value, scale: np.ndarray[Any, Any], **attributes: Any) -> Value:
    keywords = {"dtype": "i8", "scale": np.atleast_1d(np.asarray(scale, np.float32)), **attributes}
    return match.graph.splice(lambda x: FAKE_QUANT(x, **keywords), x, before=match.root, rule=match.rule)[0]


def _attributes(node: Node) -> dict[str, Any]:
    from ...core.composites import attributes_of

    given = attributes_of(node)
    zero_point = np.atleast_1d(node.inputs[2].numpy().astype(np.int32))
    found = {"zero_point": zero_point, "narrow_range": bool(given["narrow"])}
    if given["axis"] >= 0:
        found["quantization_dimension"] = np.int32(given["axis"])
    return found


def _convertible(match: Match) -> str | None:
    node: Node = match.root
    given = _attributes(node) if node.inputs[1].is_const and node.inputs[2].is_const else None
    if given is None:
        return "a scale is not constant"
    numbers = node.inputs[0]
    if numbers.dtype != np.int8:
        return f"TFLite's quantized numbers are int8, not {numbers.dtype}"
    if not numbers.is_const and not _is(numbers.producer, _QUANTIZER):
        return "its operand is no constant, and does not come from a quantizer"
    return None


def _is(node: Node | None, name: str) -> bool:
    return node is not None and node.name == "composite" and node.params["name"] == name


def _paired(match: Match) -> Value:
    """What was quantized and dequantized, or the floats that constant integers stand for, with a fake quantizer."""
    node: Node = match.root
    numbers, scale, zero_point = node.inputs
    attributes = _attributes(node)
    if numbers.producer is not None:
        return _applied(match, numbers.producer.inputs[0], scale.numpy(), **attributes)
    shape = [1] * len(numbers.shape)
    if "quantization_dimension" in attributes:
        shape[int(attributes["quantization_dimension"])] = -1
    offset = numbers.numpy().astype(np.float32) - zero_point.numpy().reshape(shape)
    floats = jnp.asarray((offset * scale.numpy().reshape(shape)).astype(np.float32))
    return _applied(match, match.graph.constant(floats), scale.numpy(), **attributes)


def _left_to_runtime(match: Match) -> Value:
    return _applied(match, match.root.inputs[0], np.zeros(0), narrow_range=False)


def _composite(name: str) -> Op:
    return Op(("composite",), None, lambda node: bool(node.params["name"] == name))


RULES = (
    Rule("fake-quantize", _composite(_DEQUANTIZER), Build(_paired), _convertible, "reassociating"),
    Rule("dynamic-range", _composite(_DYNAMIC), Build(_left_to_runtime), None, "lossy"),
)


@dataclasses.dataclass(frozen=True)
class FakeQuantize(RewritePass):
    """Quantizers as the composite that TFLite's converters read."""

    name: ClassVar[str] = "fake-quantize"
    numerics: ClassVar[Numerics] = "reassociating"

    @classmethod
    def own_rules(cls) -> Sequence[Rule]:
        """Pairs of quantizers, quantized constants, and ranges that are left to the runtime."""
        return RULES


# -- int8 at the edges -------------------------------------------------------------------------------------------------


def with_integer_edges(model: bytes, inputs: bool, outputs: bool) -> bytes:
    """The file with int8 inputs, outputs or both in place of float32 ones, whose scales and zero points it says.

    Raises:
      CompileError: a float32 input is read by something else than a quantizer, or an output is not a dequantizer's.
    """
    found = flatbuffer.read(model)
    (signature,) = found.signatureDefs
    graph = found.subgraphs[signature.subgraphIndex]
    for entry in signature.inputs if inputs else ():
        if flatbuffer.type_name(graph.tensors[entry.tensorIndex]) == "FLOAT32":
            _integer_input(found, graph, entry)
    for entry in signature.outputs if outputs else ():
        if flatbuffer.type_name(graph.tensors[entry.tensorIndex]) == "FLOAT32":
            _integer_output(found, graph, entry)
    flatbuffer.drop_unused(found)
    return flatbuffer.write(found)


def _integer_input(model: Any, graph: Any, entry: Any) -> None:
    index = int(entry.tensorIndex)
    readers = [op for op in graph.operators if index in map(int, op.inputs)]
    if [flatbuffer.operator_name(model, op) for op in readers] != ["QUANTIZE"] or index in map(int, graph.outputs):
        raise CompileError(
            f"the input {_text(entry.name)!r} cannot be int8: something in float reads it",
            hint="leave out int8-inputs, or begin the model with a product",
        )
    graph.inputs = _taking_place(graph, entry, graph.inputs, int(readers[0].outputs[0]))
    graph.operators.remove(readers[0])


def _integer_output(model: Any, graph: Any, entry: Any) -> None:
    index = int(entry.tensorIndex)
    makers = [op for op in graph.operators if index in map(int, op.outputs)]
    if [flatbuffer.operator_name(model, op) for op in makers] != ["DEQUANTIZE"]:
        raise CompileError(
            f"the output {_text(entry.name)!r} cannot be int8: something in float computes it",
            hint="leave out int8-outputs, or end the model with a product",
        )
    graph.outputs = _taking_place(graph, entry, graph.outputs, int(makers[0].inputs[0]))
    if not any(index in map(int, op.inputs) for op in graph.operators):
        graph.operators.remove(makers[0])


def _taking_place(graph: Any, entry: Any, ends: Any, index: int) -> Any:
    """The inputs or outputs of a graph with another tensor as the one that ``entry`` names."""
    replaced = np.where(np.asarray(ends, np.int32) == entry.tensorIndex, np.int32(index), ends).astype(np.int32)
    graph.tensors[index].name = entry.name
    entry.tensorIndex = index
    return replaced


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


# -- what became of it -------------------------------------------------------------------------------------------------


def kernel_report(model: bytes) -> KernelReport:
    """Every product of a file, with the types that it multiplies."""
    found = flatbuffer.read(model)
    kernels = []
    for graph, op in flatbuffer.operators(found):
        name = flatbuffer.operator_name(found, op)
        if name not in PRODUCTS:
            continue
        data = 2 if name == "TRANSPOSE_CONV" else 0  # whose first operand is the shape of its result
        activation, weights = (graph.tensors[op.inputs[k]] for k in (data, 1))
        types = [flatbuffer.type_name(t) for t in (activation, weights)]
        hybrid = types[0] == "FLOAT32" and types[1] == "INT8"
        integer = types == ["INT8", "INT8"] or hybrid
        kind = f"{name} {'dynamic ' if hybrid else ''}{types[1].lower()}"
        kernels.append(
            Kernel(_text(graph.tensors[op.outputs[0]].name), kind, integer, _is_promised(found, weights, graph))
        )
    return KernelReport("LiteRT", tuple(kernels))


def _is_promised(model: Any, weights: Any, graph: Any) -> bool:
    """Whether weights are constant integers, perhaps to be dequantized: then the product was to be of integers."""
    if flatbuffer.data_of(model, weights) is not None:
        return flatbuffer.type_name(weights) == "INT8"
    return any(
        flatbuffer.operator_name(model, op) == "DEQUANTIZE"
        and graph.tensors[op.outputs[0]] is weights
        and flatbuffer.data_of(model, graph.tensors[op.inputs[0]]) is not None
        for op in graph.operators
    )
