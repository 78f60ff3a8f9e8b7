"""TFLite models as objects and back: the schema's classes, and what they do not do.

A model holds subgraphs of operators over tensors; a tensor names the buffer of its constant data, buffer 0 being the
empty one. The schema is https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import flatbuffers
import numpy as np

from .runtime import require_litert

_IDENTIFIER = b"TFL3"

_ALIGNMENT = 16
"""Of constant data, in bytes, as kernels and memory-mapped files want it; the generated classes align elements only."""


@functools.cache
def schema() -> Any:
    """The module of classes that were generated from the schema."""
    require_litert()
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def read(model: bytes) -> Any:
    """The ``ModelT`` of a file's bytes; constant data refers to them."""
    return schema().ModelT.InitFromObj(schema().Model.GetRootAs(model, 0))


def write(model: Any) -> bytes:
    """The file's bytes of a ``ModelT``."""
    buffers = model.buffers
    model.buffers = [_AlignedBuffer(buffer) for buffer in buffers]
    try:
        size = sum(len(buffer.data) for buffer in buffers if buffer.data is not None)
        builder = flatbuffers.Builder(size + 2**16)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())
    finally:
        model.buffers = buffers


class _AlignedBuffer:
    """Writes a buffer with its data aligned; stands where a ``BufferT`` is expected."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def Pack(self, builder: Any) -> Any:
        """What the generated classes call."""
        data = self.buffer.data
        if data is None or len(data) == 0:
            return schema().BufferT().Pack(builder)
        raw = np.asarray(data, np.uint8).tobytes()
        builder.StartVector(1, len(raw), _ALIGNMENT)
        builder.head -= len(raw)
        builder.Bytes[builder.head : builder.head + len(raw)] = raw
        vector = builder.EndVector()
        schema().BufferStart(builder)
        schema().BufferAddData(builder, vector)
        return schema().BufferEnd(builder)


@functools.cache
def _names(enumeration: str) -> dict[int, str]:
    return {value: name for name, value in vars(getattr(schema(), enumeration)).items() if isinstance(value, int)}


def operator_name(model: Any, operator: Any) -> str:
    """The builtin operator that ``operator`` is, such as ``CONV_2D``, or the name of its custom operator."""
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return str(code.customCode, "utf-8") if isinstance(code.customCode, bytes) else str(code.customCode)
    # Old readers know the first 127 operators from a field of one byte.
    return _names("BuiltinOperator")[max(code.builtinCode, code.deprecatedBuiltinCode)]


def type_name(tensor: Any) -> str:
    """The element type of a tensor in the schema's words, such as ``FLOAT32``."""
    return _names("TensorType")[tensor.type]


def operators(model: Any) -> Iterator[tuple[Any, Any]]:
    """``(subgraph, operator)`` of all subgraphs, in order."""
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or ():
            yield subgraph, operator


def drop_unused(model: Any) -> None:
    """Removes subgraphs, operator codes and buffers to which nothing refers, and renumbers the rest."""
    _keep_subgraphs(model)
    used = sorted({operator.opcodeIndex for _, operator in operators(model)})
    _renumber_codes(model, used)
    _keep_buffers(model)


def referred_subgraphs(operator: Any) -> Iterator[tuple[Any, str, int]]:
    """``(options, field, number)`` of every subgraph that an operator runs."""
    for options in (operator.builtinOptions, operator.builtinOptions2):
        for field, value in vars(options).items() if options is not None else ():
            if field.lower().endswith("subgraphindex") and value >= 0:
                yield options, field, value


def _keep_subgraphs(model: Any) -> None:
    roots = [signature.subgraphIndex for signature in model.signatureDefs or ()]
    reached, pending = set(), [0, *roots]
    while pending:
        number = pending.pop()
        if number not in reached:
            reached.add(number)
            for operator in model.subgraphs[number].operators or ():
                pending.extend(inner for _, _, inner in referred_subgraphs(operator))
    new_number = {old: new for new, old in enumerate(sorted(reached))}
    model.subgraphs = [model.subgraphs[old] for old in sorted(reached)]
    for _, operator in operators(model):
        for options, field, number in list(referred_subgraphs(operator)):
            setattr(options, field, new_number[number])
    for signature in model.signatureDefs or ():
        signature.subgraphIndex = new_number[signature.subgraphIndex]


def _renumber_codes(model: Any, used: list[int]) -> None:
    new_number = {old: new for new, old in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[old] for old in used]
    for _, operator in operators(model):
        operator.opcodeIndex = new_number[operator.opcodeIndex]


def _keep_buffers(model: Any) -> None:
    tensors = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors]
    holders = [*tensors, *(model.metadata or ())]
    used = sorted({0, *(holder.buffer for holder in holders)})
    new_number = {old: new for new, old in enumerate(used)}
    model.buffers = [model.buffers[old] for old in used]
    for holder in holders:
        holder.buffer = new_number[holder.buffer]
    model.metadataBuffer = None  # an old form of the metadata, which nothing reads
