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
    quantized = [tensor for graph in model.subgraphs for tensor in graph.tensors if tensor.quantization is not None]
    vectors: dict[Any, int] = {}
    for tensor in quantized:
        tensor.quantization = _SharingQuantization(tensor.quantization, vectors)
    try:
        size = sum(len(buffer.data) for buffer in buffers if buffer.data is not None)
        builder = flatbuffers.Builder(size + 2**16)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())
    finally:
        model.buffers = buffers
        for tensor in quantized:
            tensor.quantization = tensor.quantization.quantization


class _SharingQuantization:
    """Writes scales and zero points once where several tensors have the same: zeros for every channel take as much room
    as a good part of the weights. Stands where a ``QuantizationParametersT`` is expected.
    """

    def __init__(self, quantization: Any, vectors: dict[Any, int]) -> None:
        self.quantization = quantization
        self.vectors = vectors

    def Pack(self, builder: Any) -> Any:
        """What the generated classes call."""
        q = self.quantization
        if q.details is not None:
            return q.Pack(builder)
        fields: dict[str, tuple[Any, Any]] = {
            "Min": (q.min, np.float32),
            "Max": (q.max, np.float32),
            "Scale": (q.scale, np.float32),
        }
        fields["ZeroPoint"] = (q.zeroPoint, np.int64)
        places = {name: self._vector(builder, data, dtype) for name, (data, dtype) in fields.items()}
        schema().QuantizationParametersStart(builder)
        for name, place in places.items():
            if place is not None:
                getattr(schema(), f"QuantizationParametersAdd{name}")(builder, place)
        schema().QuantizationParametersAddQuantizedDimension(builder, q.quantizedDimension)
        return schema().QuantizationParametersEnd(builder)

    def _vector(self, builder: Any, data: Any, dtype: Any) -> int | None:
        if data is None:
            return None
        array = np.asarray(data, dtype)
        key = (array.dtype.str, array.tobytes())
        if key not in self.vectors:
            self.vectors[key] = builder.CreateNumpyVector(array)
        return self.vectors[key]


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


MOST_DIMENSIONS = 8
"""Of a tensor, for any kernel."""

_VERSIONS: dict[str, int] = {"RESIZE_BILINEAR": 3, "RESIZE_NEAREST_NEIGHBOR": 3, "BROADCAST_TO": 2}
"""Operators that are wanted in a later version than the first: ``half_pixel_centers`` came with 3, BROADCAST_TO was a
custom operator before 2."""

_ONE_BYTE = 127
"""The largest operator that fits into the field that old readers know; they see this one for all later ones."""


def operator_code(model: Any, name: str) -> int:
    """The index of a builtin operator among those of a model, where it is put if it is not there.

    Raises:
      KeyError: the schema has no such operator.
    """
    numbers = {known: number for number, known in _names("BuiltinOperator").items()}
    number, version = numbers[name], _VERSIONS.get(name, 1)
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number and code.version >= version:
            return index
    code = schema().OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, _ONE_BYTE), version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


_DTYPES: dict[str, Any] = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
    "COMPLEX64": np.complex64,
    "COMPLEX128": np.complex128,
}


def dtype_of(tensor: Any) -> np.dtype[Any] | None:
    """The dtype of a tensor; None for a type that NumPy has not."""
    found = _DTYPES.get(type_name(tensor))
    return None if found is None else np.dtype(found)


def type_of(dtype: Any) -> int:
    """The element type of the schema for a dtype."""
    names = {np.dtype(known): name for name, known in _DTYPES.items()}
    return int(getattr(schema().TensorType, names[np.dtype(dtype)]))


def data_of(model: Any, tensor: Any) -> np.ndarray[Any, Any] | None:
    """The array of a constant tensor; None for what is computed, or of a type that NumPy has not."""
    raw, dtype = model.buffers[tensor.buffer].data, dtype_of(tensor)
    if raw is None or len(raw) == 0 or dtype is None:
        return None
    shape = () if tensor.shape is None else tuple(tensor.shape)
    return np.frombuffer(np.asarray(raw, np.uint8).tobytes(), dtype).reshape(shape)


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
