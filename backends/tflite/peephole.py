"""Reshapes that converters leave around matrix products and convolutions, taken out of the finished model.

Both converters make two-dimensional arrays for FULLY_CONNECTED, and four-dimensional ones for one-dimensional
convolutions, and XNNPACK copies at every RESHAPE. FULLY_CONNECTED can keep its input's dimensions, a reshape of a
reshape is one, and a bias that a reshape keeps from a convolution can go before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import flatbuffer

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")

_BIAS = 2
"""The operand of products and convolutions that is the bias."""


def simplify_reshapes(model: Any) -> int:
    """Edits a ``ModelT`` of known sizes; returns how many operators went."""
    before = sum(1 for _ in flatbuffer.operators(model))
    for subgraph in model.subgraphs:
        editor = _Editor(model, subgraph)
        editor.edit()
    removed = before - sum(1 for _ in flatbuffer.operators(model))
    if removed:
        flatbuffer.drop_unused(model)
    return removed


class _Editor:
    """One subgraph with the producers and readers of its tensors."""

    def __init__(self, model: Any, subgraph: Any) -> None:
        self.model = model
        self.subgraph = subgraph
        self.operators = list(subgraph.operators or ())
        self.producer: dict[int, Any] = {}
        self.readers: dict[int, list[Any]] = {}
        for operator in self.operators:
            self._enter(operator)

    def _enter(self, operator: Any) -> None:
        for index in operator.outputs:
            self.producer[int(index)] = operator
        for index in {int(index) for index in operator.inputs}:
            self.readers.setdefault(index, []).append(operator)

    def edit(self) -> None:
        for operator in self.operators:
            name = self._name(operator)
            if name == "RESHAPE":
                self._merge_reshape(operator)
            elif name == "ADD":
                self._move_bias(operator)
        for operator in self.operators:
            if self._name(operator) == "FULLY_CONNECTED":
                self._keep_dimensions(operator)
        self._remove_dead()

    # -- rewrites ------------------------------------------------------------------------------------------------------

    def _merge_reshape(self, operator: Any) -> None:
        """A reshape reads what the reshape before it read."""
        inner = self.producer.get(int(operator.inputs[0]))
        if inner is not None and self._name(inner) == "RESHAPE":
            self._set_input(operator, 0, int(inner.inputs[0]))

    def _move_bias(self, add: Any) -> None:
        """``reshape(convolution) + constant`` is ``reshape(convolution with that bias)``."""
        for position in (0, 1):
            reshape = self.producer.get(int(add.inputs[position]))
            bias = self._data(int(add.inputs[1 - position]))
            if reshape is None or bias is None or not self._is_only_read(reshape, "RESHAPE"):
                continue
            product = self.producer.get(int(reshape.inputs[0]))
            if product is None or self._name(product) not in _CONVOLUTIONS or not self._is_only_read(product):
                continue
            if self._takes_bias(product, reshape, add, bias):
                self._give_bias(product, reshape, add, bias)
                return

    def _takes_bias(self, product: Any, reshape: Any, add: Any, bias: np.ndarray[Any, Any]) -> bool:
        """Whether a constant is one number per channel, and the product has no bias and no activation yet."""
        shape = self._shape(int(reshape.outputs[0]))
        channels = self._shape(int(product.outputs[0]))[-1]
        along_last = bias.shape[-1:] == (channels,) == shape[-1:] and bias.size == channels
        alone = bias.size == channels == int(np.prod(shape))
        own = None if len(product.inputs) <= _BIAS else self._data(int(product.inputs[_BIAS]))
        return (
            (along_last or alone)
            and self._shape(int(add.outputs[0])) == shape
            and own is not None
            and own.dtype == bias.dtype == np.float32
            and not own.any()
            and not product.builtinOptions.fusedActivationFunction
        )

    def _give_bias(self, product: Any, reshape: Any, add: Any, bias: np.ndarray[Any, Any]) -> None:
        self._set_input(product, _BIAS, self._constant(bias.reshape(-1), int(product.inputs[_BIAS])))
        product.builtinOptions.fusedActivationFunction = add.builtinOptions.fusedActivationFunction
        self._replace(int(add.outputs[0]), reshape)

    def _keep_dimensions(self, product: Any) -> None:
        """FULLY_CONNECTED on the array before the reshape, where all that reads its result reshapes it anyway."""
        reshape = self.producer.get(int(product.inputs[0]))
        if reshape is None or self._name(reshape) != "RESHAPE":
            return
        source, output = int(reshape.inputs[0]), int(product.outputs[0])
        before, flat = self._shape(source), self._shape(int(product.inputs[0]))
        readers = self.readers.get(output, [])
        if len(before) < 2 or before[-1] != flat[-1] or not readers or output in map(int, self.subgraph.outputs):
            return
        if any(self._name(reader) != "RESHAPE" for reader in readers):
            return
        kept = (*before[:-1], self._shape(output)[-1])
        self._set_input(product, 0, source)
        product.builtinOptions.keepNumDims = True
        tensor = self.subgraph.tensors[output]
        tensor.shape, tensor.shapeSignature = np.array(kept, np.int32), None
        for reader in readers:
            if self._shape(int(reader.outputs[0])) == kept:
                self._bypass(reader)

    # -- edits ---------------------------------------------------------------------------------------------------------

    def _bypass(self, reshape: Any) -> None:
        """Readers of a reshape that changes nothing read what it reads; an output of the model keeps its tensor."""
        source, result = int(reshape.inputs[0]), int(reshape.outputs[0])
        producer = self.producer.get(source)
        if len(self.readers.get(source, [])) == 1 and producer is not None and len(producer.outputs) == 1:
            producer.outputs = np.array([result], np.int32)
            self.producer[result] = producer
            self.operators.remove(reshape)
            self.readers[source] = []

    def _replace(self, result: int, reshape: Any) -> None:
        """The reshape makes the tensor ``result``, and what made it goes."""
        self.operators.remove(self.producer[result])
        reshape.outputs = np.array([result], np.int32)
        self.producer[result] = reshape

    def _set_input(self, operator: Any, position: int, index: int) -> None:
        inputs = np.array(operator.inputs, np.int32)
        old = int(inputs[position])
        inputs[position] = index
        operator.inputs = inputs
        if old not in inputs:
            self.readers[old].remove(operator)
        if operator not in self.readers.setdefault(index, []):
            self.readers[index].append(operator)

    def _constant(self, array: np.ndarray[Any, Any], like: int) -> int:
        buffer = flatbuffer.schema().BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        old = self.subgraph.tensors[like]
        tensor = flatbuffer.schema().TensorT()
        tensor.shape, tensor.type, tensor.name = np.array(array.shape, np.int32), old.type, old.name
        tensor.buffer = len(self.model.buffers) - 1
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def _remove_dead(self) -> None:
        """Reshapes that nothing reads any more; converters leave no others."""
        alive = {int(index) for index in self.subgraph.outputs}
        kept = []
        for operator in reversed(self.operators):
            if self._name(operator) != "RESHAPE" or any(int(index) in alive for index in operator.outputs):
                kept.append(operator)
                alive.update(int(index) for index in operator.inputs)
        self.subgraph.operators = kept[::-1]

    # -- looks ---------------------------------------------------------------------------------------------------------

    def _name(self, operator: Any) -> str:
        return flatbuffer.operator_name(self.model, operator)

    def _is_only_read(self, operator: Any, name: str = "") -> bool:
        """Whether an operator of that name makes one tensor, which one operator reads and the model does not give."""
        index = int(operator.outputs[0])
        named = not name or self._name(operator) == name
        return named and len(self.readers.get(index, [])) == 1 and index not in map(int, self.subgraph.outputs)

    def _shape(self, index: int) -> tuple[int, ...]:
        shape = self.subgraph.tensors[index].shape
        return () if shape is None else tuple(int(size) for size in shape)

    def _data(self, index: int) -> np.ndarray[Any, Any] | None:
        return flatbuffer.data_of(self.model, self.subgraph.tensors[index]) if index >= 0 else None
