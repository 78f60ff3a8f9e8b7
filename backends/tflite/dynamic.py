"""One file for every size, made of files for a few.

A converter that does not know a size fuses little and gives up often. So a program with symbolic dimensions is
converted at sizes of our choice, and once more for each symbol, and what differs between the files is what depends on
the symbol: dimensions of tensors, entries of shapes, and constants that say the same for every index. In the file for
every size the dimensions are unknown, and such shapes are computed from the inputs' shapes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import flatbuffer

FIRST_SIZE = 3
"""Of the first symbol; the others' are larger, so that no two are the same. 1 and 2 are special to converters."""

STEP = 2

CHECK_STEP = 5
"""How far the last trial, against which all that was inferred is checked, is from the first."""


class NotUniform(Exception):
    """Files for several sizes differ in a way that no single file can express; the message says how."""


MOST_EXACT = 1 << 24
"""Integers up to this one are numbers of float32."""


@dataclasses.dataclass(frozen=True)
class Size:
    """A sum of products of symbols, which is what shapes depend on.

    Attributes:
      terms: ``(symbols, factor)`` pairs, no factor being zero; the constant term has no symbols.
    """

    terms: tuple[tuple[tuple[str, ...], int], ...]

    @property
    def constant(self) -> int:
        """Its part that depends on no symbol."""
        return dict(self.terms).get((), 0)

    @property
    def is_known(self) -> bool:
        """Whether it depends on no symbol."""
        return all(not names for names, _ in self.terms)

    @property
    def symbol(self) -> str | None:
        """The symbol that it is, if it is one and nothing more."""
        (names, factor), *more = self.terms or (((), 0),)
        return names[0] if len(names) == 1 and factor == 1 and not more else None

    def at(self, sizes: Mapping[str, int]) -> int:
        """Its value."""
        return sum(factor * math.prod(sizes[name] for name in names) for names, factor in self.terms)


def _products(symbols: Sequence[str]) -> list[tuple[str, ...]]:
    """The products of symbols that sizes may contain: none, each, and each two."""
    return [(), *((name,) for name in symbols), *itertools.combinations(symbols, 2)]


def trial_sizes(symbols: Sequence[str]) -> list[dict[str, int]]:
    """The sizes at which to convert: as many as there are products, and one to check what is inferred from them."""
    base = {name: FIRST_SIZE + 4 * number for number, name in enumerate(symbols)}
    trials = [{**base, **{name: base[name] + STEP for name in names}} for names in _products(symbols)]
    return [*trials, {name: size + CHECK_STEP for name, size in base.items()}]


def merge(models: Sequence[bytes], symbols: Sequence[str]) -> bytes:
    """The file for every size.

    Args:
      models: the files at the `trial_sizes`, in their order.
      symbols: the symbols.

    Raises:
      NotUniform: what they differ in cannot be computed from the inputs' shapes.
    """
    read = [flatbuffer.read(model) for model in models]
    merger = _Merger(read, symbols)
    merger.merge()
    return flatbuffer.write(read[0])


class _Merger:
    """Makes the first of the models the one for every size."""

    def __init__(self, models: Sequence[Any], symbols: Sequence[str]) -> None:
        self.models = models
        self.symbols = symbols

    def merge(self) -> None:
        counts = [[len(s.operators or ()) for s in model.subgraphs] for model in self.models]
        codes = [[flatbuffer.operator_name(m, op) for _, op in flatbuffer.operators(m)] for m in self.models]
        if any(count != counts[0] for count in counts) or any(code != codes[0] for code in codes):
            raise NotUniform("the converter chooses other operations at other sizes")
        for subgraphs in zip(*(model.subgraphs for model in self.models), strict=True):
            if len({len(subgraph.tensors) for subgraph in subgraphs}) > 1:
                raise NotUniform("the converter makes other tensors at other sizes")
            _Subgraph(self, subgraphs).merge()

    def size(self, values: Sequence[int]) -> Size | None:
        """What has such values at the trial sizes; None for what is no sum of products."""
        products, trials = _products(self.symbols), trial_sizes(self.symbols)
        rows = [[math.prod(sizes[name] for name in names) for names in products] for sizes in trials[:-1]]
        factors = np.linalg.solve(np.array(rows, np.float64), np.array(values[:-1], np.float64))
        pairs = zip(products, np.round(factors).astype(int).tolist(), strict=True)
        size = Size(tuple((names, factor) for names, factor in pairs if factor))
        return size if all(size.at(s) == v for s, v in zip(trials, values, strict=True)) else None


class _Subgraph:
    """One subgraph, at all trial sizes."""

    def __init__(self, merger: _Merger, subgraphs: Sequence[Any]) -> None:
        self.merger = merger
        self.subgraphs = subgraphs
        self.model = merger.models[0]
        self.graph = subgraphs[0]
        self.prologue: list[Any] = []
        self._vectors: dict[tuple[Size, ...], int] = {}
        self._sources: dict[str, tuple[int, int]] = {}
        self._entries: dict[Size, int] = {}

    def merge(self) -> None:
        shapes = [self._shape(index) for index in range(len(self.graph.tensors))]
        for index in self.graph.inputs:
            for axis, size in enumerate(shapes[index]):
                if size is not None and size.symbol is not None:
                    self._sources.setdefault(size.symbol, (int(index), axis))
        for operator, *others in zip(*(g.operators or () for g in self.subgraphs), strict=True):
            self._merge_options(operator, others)
            self._merge_operands(operator)
        self._merge_outputs()
        for index, shape in enumerate(shapes):
            self._set_shape(self.graph.tensors[index], shape)
        self.graph.operators = [*self.prologue, *(self.graph.operators or ())]

    def _shape(self, index: int) -> tuple[Size | None, ...]:
        shapes = [[] if g.tensors[index].shape is None else list(g.tensors[index].shape) for g in self.subgraphs]
        if len({len(shape) for shape in shapes}) > 1:
            raise NotUniform("a tensor has another rank at other sizes")
        return tuple(self.merger.size(values) for values in zip(*shapes, strict=True))

    def _set_shape(self, tensor: Any, shape: Sequence[Size | None]) -> None:
        """The shape at sizes of one, which is what readers that know no dynamic sizes take, and the one with -1."""
        if all(size is not None and size.is_known for size in shape):
            return
        ones = dict.fromkeys(self.merger.symbols, 1)
        tensor.shape = np.array([1 if size is None else size.at(ones) for size in shape], np.int32)
        known = [size.constant if size is not None and size.is_known else -1 for size in shape]
        tensor.shapeSignature = np.array(known, np.int32)

    # -- operators -----------------------------------------------------------------------------------------------------

    def _merge_options(self, operator: Any, others: Sequence[Any]) -> None:
        for other in others:
            for options, changed in (
                (operator.builtinOptions, other.builtinOptions),
                (operator.builtinOptions2, other.builtinOptions2),
            ):
                if options is None:
                    continue
                for field, value in vars(options).items():
                    if not _same(value, getattr(changed, field)):
                        self._drop_option(operator, options, field)

    def _drop_option(self, operator: Any, options: Any, field: str) -> None:
        if field != "newShape":  # of RESHAPE, which has it as an operand, too
            name = flatbuffer.operator_name(self.model, operator)
            raise NotUniform(f"the option {field} of {name} depends on a size")
        options.newShape = None

    def _merge_operands(self, operator: Any) -> None:
        name = flatbuffer.operator_name(self.model, operator)
        for position, index in enumerate(operator.inputs):
            data = self._constants(index)
            if data is None:
                continue
            if name == "RESHAPE" and position == 1 and self._reshape_with_rest(operator, data):
                continue
            inputs = np.array(operator.inputs, np.int32)
            inputs[position] = self._dependent(index, data)
            operator.inputs = inputs

    def _merge_outputs(self) -> None:
        """Outputs that are constants."""
        outputs = np.array(self.graph.outputs, np.int32)
        for position, index in enumerate(outputs):
            data = self._constants(index)
            if data is None:
                continue
            outputs[position] = new = self._dependent(index, data)
            for signature in self.model.signatureDefs or ():
                if self.model.subgraphs[signature.subgraphIndex] is self.graph:
                    for entry in signature.outputs:
                        entry.tensorIndex = new if entry.tensorIndex == index else entry.tensorIndex
        self.graph.outputs = outputs

    def _dependent(self, index: int, data: Sequence[np.ndarray[Any, Any]]) -> int:
        """A tensor of what a constant is at any size."""
        return self._numbers(data) if len({d.shape for d in data}) == 1 else self._spread(index, data)

    def _constants(self, index: int) -> list[np.ndarray[Any, Any]] | None:
        """The data of a constant at all trial sizes; None for what is no constant, or the same at all."""
        if index < 0:
            return None
        pairs = [(model, graph.tensors[index]) for model, graph in zip(self.merger.models, self.subgraphs, strict=True)]
        raw = [flatbuffer.data_of(model, tensor) for model, tensor in pairs]
        if any(data is None for data in raw):
            return None
        data = [d for d in raw if d is not None]
        return None if all(_same(data[0], other) for other in data[1:]) else data

    def _reshape_with_rest(self, operator: Any, data: Sequence[np.ndarray[Any, Any]]) -> bool:
        """Writes -1 for the only entry that depends on a size; false where there are several."""
        entries = [self.merger.size(values) for values in zip(*data, strict=True)]
        known = [size.constant if size is not None and size.is_known else -1 for size in entries]
        if known.count(-1) != 1 or 0 in known:
            return False
        inputs = np.array(operator.inputs, np.int32)
        inputs[1] = self._constant(np.array(known, np.int32))
        operator.inputs = inputs
        return True

    # -- what is computed from the inputs' shapes ----------------------------------------------------------------------

    def _numbers(self, data: Sequence[np.ndarray[Any, Any]]) -> int:
        """A tensor of numbers that depend on sizes: a shape, or a size that is computed with."""
        if any(not np.array_equal(d, np.round(d)) for d in data):
            raise NotUniform("a constant that is no integer depends on a size")
        entries = [self.merger.size(values) for values in zip(*(d.reshape(-1) for d in data), strict=True)]
        if None in entries or len(entries) > flatbuffer.MOST_DIMENSIONS:
            raise NotUniform("the values of a constant depend on a size")
        vector = self._vector(tuple(size for size in entries if size is not None))
        first = data[0]
        if first.ndim == 1 and first.dtype == np.int32:
            return vector
        shape = self._constant(np.array(first.shape, np.int32))
        vector = self._operator("RESHAPE", "ReshapeOptions", [vector, shape], first.shape)
        if first.dtype == np.int32:
            return vector
        kind = flatbuffer.type_of(first.dtype)
        return self._operator(
            "CAST", "CastOptions", [vector], first.shape, type=kind, inDataType=self._int32, outDataType=kind
        )

    def _vector(self, entries: tuple[Size, ...]) -> int:
        if entries not in self._vectors:
            parts = [self._entry(size) for size in entries]
            self._vectors[entries] = parts[0] if len(parts) == 1 else self._concatenation(parts)
        return self._vectors[entries]

    def _entry(self, size: Size) -> int:
        """One number, as a vector of one element."""
        if size not in self._entries:
            terms = [self._term(names, factor) for names, factor in size.terms]
            total = terms[0] if terms else self._constant(np.zeros(1, np.int32))
            for term in terms[1:]:
                total = self._operator("ADD", "AddOptions", [total, term], [1])
            self._entries[size] = total
        return self._entries[size]

    def _term(self, names: Sequence[str], factor: int) -> int:
        parts = [self._symbol(name) for name in names]
        if factor != 1 or not parts:
            parts.append(self._constant(np.array([factor], np.int32)))
        product = parts[0]
        for part in parts[1:]:
            product = self._operator("MUL", "MulOptions", [product, part], [1])
        return product

    def _symbol(self, name: str) -> int:
        """The size that a symbol stands for, read from an input's shape."""
        if name not in self._sources:
            raise NotUniform(f"inside a loop, no value has the size {name!r}")
        index, axis = self._sources[name]
        rank = len(self.graph.tensors[index].shape)
        shape = self._operator("SHAPE", "ShapeOptions", [index], [rank], outType=self._int32)
        begin, length = self._constant(np.array([axis], np.int32)), self._constant(np.array([1], np.int32))
        return self._operator("SLICE", "SliceOptions", [shape, begin, length], [1])

    def _concatenation(self, parts: Sequence[int]) -> int:
        return self._operator("CONCATENATION", "ConcatenationOptions", parts, [len(parts)], axis=0)

    def _spread(self, index: int, data: Sequence[np.ndarray[Any, Any]]) -> int:
        """A constant that says the same along the axes whose sizes are unknown: broadcast from one of each."""
        shapes = [self.merger.size(values) for values in zip(*(d.shape for d in data), strict=True)]
        sizes = [size for size in shapes if size is not None]
        if len(sizes) < len(shapes):
            raise NotUniform("the shape of a constant depends on a size otherwise than by sums and products")
        one = data[0][tuple(slice(None) if size.is_known else slice(0, 1) for size in sizes)]
        if not all(_same(np.broadcast_to(one, d.shape), d) for d in data):
            return self._progression(index, data, sizes)
        source = self._constant(one)
        shape = self._vector(tuple(sizes))
        tensor = self.graph.tensors[index]
        return self._operator(
            "BROADCAST_TO", "BroadcastToOptions", [source, shape], list(tensor.shape), type=tensor.type, sizes=shapes
        )

    def _progression(self, index: int, data: Sequence[np.ndarray[Any, Any]], sizes: Sequence[Size]) -> int:
        """A constant that grows by equal steps along the only axis of unknown size, as the starts of lines do."""
        unknown = [axis for axis, size in enumerate(sizes) if not size.is_known]
        kind = data[0].dtype
        longest = max(data, key=np.size)
        is_whole = kind in (np.int32, np.int64, np.float32) and bool((np.abs(longest) <= MOST_EXACT).all())
        if len(unknown) != 1 or not is_whole or longest.shape[unknown[0]] < 3:
            raise NotUniform("the values of a constant depend on a size")
        (axis,) = unknown
        start, second = (longest.take([k], axis).astype(np.int32) for k in (0, 1))
        column = [-1 if k == axis else 1 for k in range(len(sizes))]
        for values in data:
            steps = np.arange(values.shape[axis], dtype=np.int32).reshape(column)
            if not _same((start + steps * (second - start)).astype(kind), values):
                raise NotUniform("the values of a constant depend on a size")
        tensor, number = self.graph.tensors[index], [self._constant(np.array(k, np.int32)) for k in (0, 1)]
        scalar = self._constant(np.zeros(0, np.int32))
        limit = self._operator("RESHAPE", "ReshapeOptions", [self._entry(sizes[axis]), scalar], [])
        counted = self._operator("RANGE", "RangeOptions", [number[0], limit, number[1]], [1], sizes=[sizes[axis]])
        column_sizes = [size if k == axis else self.merger.size([1] * len(data)) for k, size in enumerate(sizes)]
        counted = self._operator(
            "RESHAPE", "ReshapeOptions", [counted, self._constant(np.array(column, np.int32))], [1] * len(sizes),
            sizes=column_sizes,
        )  # fmt: skip
        shape = list(tensor.shape)
        scaled = self._operator("MUL", "MulOptions", [counted, self._constant(second - start)], shape, sizes=sizes)
        total = self._operator("ADD", "AddOptions", [scaled, self._constant(start)], shape, sizes=sizes)
        if kind == np.int32:
            return total
        return self._operator(
            "CAST", "CastOptions", [total], shape, type=tensor.type, sizes=sizes,
            inDataType=self._int32, outDataType=tensor.type,
        )  # fmt: skip

    # -- new tensors and operators -------------------------------------------------------------------------------------

    @property
    def _int32(self) -> int:
        return int(flatbuffer.schema().TensorType.INT32)

    def _constant(self, array: np.ndarray[Any, Any]) -> int:
        buffer = flatbuffer.schema().BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return self._tensor(array.shape, flatbuffer.type_of(array.dtype), len(self.model.buffers) - 1)

    def _tensor(self, shape: Sequence[int], kind: int, buffer: int = 0) -> int:
        tensor = flatbuffer.schema().TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type, tensor.buffer, tensor.name = kind, buffer, f"size_{len(self.graph.tensors)}"
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _operator(
        self,
        name: str,
        options_name: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        *,
        type: int | None = None,
        sizes: Sequence[Size | None] = (),
        **options: Any,
    ) -> int:
        schema = flatbuffer.schema()
        op = schema.OperatorT()
        op.opcodeIndex = flatbuffer.operator_code(self.model, name)
        op.inputs = np.array(inputs, np.int32)
        output = self._tensor(shape, self._int32 if type is None else type)
        self._set_shape(self.graph.tensors[output], sizes)
        op.outputs = np.array([output], np.int32)
        op.builtinOptions = getattr(schema, f"{options_name}T")()
        op.builtinOptionsType = getattr(schema.BuiltinOptions, options_name)
        for field, value in options.items():
            setattr(op.builtinOptions, field, value)
        self.prologue.append(op)
        return output


def _same(a: Any, b: Any) -> bool:
    """Equality of options and arrays, NaN being equal to itself."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        if a is None or b is None:
            return a is b
        x, y = np.asarray(a), np.asarray(b)
        return x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes()
    return bool(a == b)
