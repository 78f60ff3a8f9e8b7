"""A model as one protobuf message in parts: large weights go from their arrays to the file, and are copied by nobody.

A message may have its fields in any order, and one message within another is its length and its bytes: so the graph can
be ended by its large initializers, and the model by its graph.
https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir

LEAST_BYTES = 2**16
"""Smaller initializers stay in the message that protobuf makes."""

_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_LENGTH_DELIMITED = 2


def split(model: ir.Model, least: int = LEAST_BYTES) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The model without its initializers of at least so many bytes, and these by name."""
    initializers = model.graph.initializers
    large = {name: value for name, value in initializers.items() if _is_large(value.const_value, least)}
    for name in large:
        del initializers[name]
    try:
        proto = ir.to_proto(model)
    finally:
        initializers.update(large)
    return proto, {name: value.const_value for name, value in large.items() if value.const_value is not None}


def parts(proto: onnx.ModelProto, initializers: Mapping[str, ir.TensorProtocol]) -> Iterator[bytes | memoryview]:
    """The bytes of the whole model, in order; the same for the same model."""
    tensors = [(_header(name, tensor), _data(tensor)) for name, tensor in initializers.items()]
    graph = proto.graph.SerializeToString(deterministic=True)
    sizes = [len(header) + len(data) for header, data in tensors]
    total = len(graph) + sum(len(_field(_INITIALIZER, size)) + size for size in sizes)
    rest = onnx.ModelProto()
    rest.CopyFrom(proto)
    rest.ClearField("graph")
    yield rest.SerializeToString(deterministic=True)
    yield _field(_GRAPH, total)
    yield graph
    for (header, data), size in zip(tensors, sizes, strict=True):
        yield _field(_INITIALIZER, size)
        yield header
        yield data


def _is_large(tensor: ir.TensorProtocol | None, least: int) -> bool:
    """Whether it is, and its elements are as many bytes in its array as they are in a file."""
    return tensor is not None and tensor.nbytes >= least and tensor.numpy().nbytes == tensor.nbytes


def _header(name: str, tensor: ir.TensorProtocol) -> bytes:
    """All of a tensor that comes before its data."""
    shape = [int(size) for size in tensor.shape.numpy()]
    proto = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=shape)
    before: bytes = proto.SerializeToString(deterministic=True)
    return before + _field(_RAW_DATA, tensor.nbytes)


def _data(tensor: ir.TensorProtocol) -> memoryview:
    """The elements, least significant byte first as ONNX has them."""
    array = np.ascontiguousarray(tensor.numpy())
    if not np.little_endian:
        array = array.byteswap()
    return array.reshape(-1).view(np.uint8).data


def _field(number: int, length: int) -> bytes:
    """The beginning of a field whose content has so many bytes."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    """A number in groups of seven bits, the least significant first, of which all but the last are marked."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
