"""What a TFLite file is made of: operations and their kernels, sizes, memory, work."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...core.backend import Description
from . import flatbuffer

_ALIGNMENT = 64
"""Of tensors in the arena, in bytes."""


@dataclasses.dataclass(frozen=True)
class OperationRow:
    """All operations of one kind.

    Attributes:
      operation: the builtin operator.
      kernel: the element types that its kernel works on, as in ``FLOAT32``.
      count: how many there are.
      delegated: how many of them the XNNPACK delegate takes; None when that was not looked at.
      work: estimated additions and multiplications, together.
    """

    operation: str
    kernel: str
    count: int
    delegated: int | None
    work: int


@dataclasses.dataclass(frozen=True)
class ModelReport:
    """What a file is made of.

    Attributes:
      rows: the operations by kind, the most work first.
      file_bytes: size of the file.
      constant_bytes: size of the weights in it.
      arena_bytes: memory for activations that the interpreter needs at least, without delegates, at a batch of one.
      products: of a quantized program, which products are integer kernels.
    """

    rows: tuple[OperationRow, ...]
    file_bytes: int
    constant_bytes: int
    arena_bytes: int
    products: Description | None = None

    @property
    def work(self) -> int:
        """Estimated additions and multiplications of one run; loops count once."""
        return sum(row.work for row in self.rows)

    @property
    def operation_count(self) -> int:
        """How many operations there are, those in loops and branches included."""
        return sum(row.count for row in self.rows)

    def data(self) -> dict[str, Any]:
        """JSON-able."""
        sizes = {name: getattr(self, name) for name in ("file_bytes", "constant_bytes", "arena_bytes")}
        totals = {"operation_count": self.operation_count, "work": self.work, **sizes}
        products = {} if self.products is None else {"products": self.products.data()}
        return {"rows": [dataclasses.asdict(row) for row in self.rows], **totals, **products}

    def __rich__(self) -> Any:
        """A table, and a line of totals."""
        from rich.console import Group
        from rich.table import Table

        table = Table(title="operations of the TFLite file", title_justify="left")
        table.add_column("operation")
        table.add_column("kernel")
        for heading in ("count", "XNNPACK", "million operations"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            delegated = "?" if row.delegated is None else str(row.delegated)
            table.add_row(row.operation, row.kernel, str(row.count), delegated, f"{row.work / 1e6:.2f}")
        totals = (
            f"{self.operation_count} operations, {self.work / 1e6:.1f} million additions and multiplications; file "
            f"{_mega(self.file_bytes)}, weights {_mega(self.constant_bytes)}, activations {_mega(self.arena_bytes)}"
        )
        return Group(table, totals) if self.products is None else Group(table, totals, self.products)


def describe(
    model: bytes, delegated: Mapping[int, frozenset[int]] | None = None, products: Description | None = None
) -> ModelReport:
    """The report of a file.

    Args:
      model: its bytes.
      delegated: the operations that a delegate takes, by the number of their subgraph; see `runtime.delegated`.
      products: what else is known of a quantized program.
    """
    read = flatbuffer.read(model)
    found: dict[tuple[str, str], list[tuple[bool, int]]] = {}
    for number, subgraph in enumerate(read.subgraphs):
        taken = frozenset() if delegated is None else delegated.get(number, frozenset())
        for index, operator in enumerate(subgraph.operators or ()):
            name = flatbuffer.operator_name(read, operator)
            key = name, _kernel(subgraph, operator, _OPERANDS.get(name, (0, 1)))
            found.setdefault(key, []).append((index in taken, work_of(read, subgraph, operator)))
    rows = [
        OperationRow(
            operation,
            kernel,
            len(entries),
            None if delegated is None else sum(taken for taken, _ in entries),
            sum(work for _, work in entries),
        )
        for (operation, kernel), entries in found.items()
    ]
    rows.sort(key=lambda row: (-row.work, -row.count, row.operation, row.kernel))
    constants = sum(len(buffer.data) for buffer in read.buffers if buffer.data is not None)
    return ModelReport(tuple(rows), len(model), constants, arena_bytes(read), products)


_OPERANDS: Mapping[str, tuple[int, ...]] = {"TRANSPOSE_CONV": (2, 1), "SPLIT": (1,)}
"""Which operands hold the data, and the weights, where the first is a shape or an axis."""


def _kernel(subgraph: Any, operator: Any, operands: tuple[int, ...]) -> str:
    """The types that decide which kernel runs: of the data, and of the weights where they differ."""
    indices = [int(operator.inputs[place]) for place in operands if place < len(operator.inputs)]
    types = [flatbuffer.type_name(subgraph.tensors[index]) for index in indices if index >= 0]
    if not types:
        types = [flatbuffer.type_name(subgraph.tensors[index]) for index in operator.outputs[:1]]
    weighty = {"INT8", "INT4", "UINT8", "FLOAT16"}
    return types[0] if len(types) == 1 or types[1] not in weighty else " x ".join(dict.fromkeys(types))


def _mega(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


# -- work --------------------------------------------------------------------------------------------------------------


def _window(subgraph: Any, operator: Any) -> int:
    """Per output element, a product and a sum for each weight that meets it: all but the output axis of the filter."""
    filters = _shape(subgraph, operator.inputs[1])
    return 2 * math.prod(filters[1:])


def _depthwise(subgraph: Any, operator: Any) -> int:
    return 2 * math.prod(_shape(subgraph, operator.inputs[1])[1:3])


def _transposed(subgraph: Any, operator: Any) -> int:
    """Every input element meets the whole filter once; spread over the output elements."""
    filters, inputs = _shape(subgraph, operator.inputs[1]), _shape(subgraph, operator.inputs[2])
    outputs = _shape(subgraph, operator.outputs[0])
    return round(2 * math.prod(filters) * math.prod(inputs[:-1]) / max(1, math.prod(outputs)))


def _product(subgraph: Any, operator: Any) -> int:
    contracted = _shape(subgraph, operator.inputs[0])
    transposed = getattr(operator.builtinOptions, "adjX", False)
    return 2 * contracted[-2 if transposed else -1]


def _pooled(subgraph: Any, operator: Any) -> int:
    options = operator.builtinOptions
    return int(options.filterHeight * options.filterWidth)


def _reduced(subgraph: Any, operator: Any) -> int:
    inputs, outputs = _shape(subgraph, operator.inputs[0]), _shape(subgraph, operator.outputs[0])
    return round(math.prod(inputs) / max(1, math.prod(outputs)))


_PER_ELEMENT: Mapping[str, Callable[[Any, Any], int]] = {
    "CONV_2D": _window,
    "CONV_3D": lambda s, o: 2 * math.prod(_shape(s, o.inputs[1])[:-1]),
    "FULLY_CONNECTED": _window,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "BATCH_MATMUL": _product,
    "AVERAGE_POOL_2D": _pooled,
    "MAX_POOL_2D": _pooled,
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "ARG_MAX", "ARG_MIN"), _reduced),
}
"""Additions and multiplications for one element of the output; 1 for operators that are not here."""

_MOVES = (
    "RESHAPE TRANSPOSE CONCATENATION SLICE STRIDED_SLICE PAD PADV2 PACK UNPACK SPLIT SPLIT_V GATHER GATHER_ND SQUEEZE "
    "EXPAND_DIMS BROADCAST_TO TILE REVERSE_V2 SHAPE FILL CAST BITCAST WHILE IF CALL DYNAMIC_UPDATE_SLICE QUANTIZE "
    "DEQUANTIZE STABLEHLO_COMPOSITE STABLEHLO_PAD STABLEHLO_SCATTER MIRROR_PAD SPACE_TO_DEPTH DEPTH_TO_SPACE"
)
"""Operators that compute nothing by themselves."""


def work_of(model: Any, subgraph: Any, operator: Any) -> int:
    """Estimated additions and multiplications of an operator; elementary functions count as one."""
    name = flatbuffer.operator_name(model, operator)
    if name in _MOVES.split() or not len(operator.outputs):
        return 0
    elements = math.prod(_shape(subgraph, operator.outputs[0]))
    return elements * _PER_ELEMENT.get(name, lambda s, o: 1)(subgraph, operator)


def _shape(subgraph: Any, index: int) -> tuple[int, ...]:
    shape = subgraph.tensors[index].shape
    return () if shape is None else tuple(int(size) for size in shape)


# -- memory ------------------------------------------------------------------------------------------------------------


def arena_bytes(model: Any) -> int:
    """Memory for the activations of the first subgraph, as the interpreter's planner lays them out.

    Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", arXiv:2001.03288):
    the largest tensor first, each at the lowest place where nothing that lives at the same time is.
    """
    placed: list[tuple[int, int, int, int]] = []  # offset, size, first and last operator
    for size, first, last in sorted(_lifetimes(model), key=lambda life: (-life[0], life[1])):
        offset = 0
        for other, extent, begin, end in sorted(placed):
            if begin <= last and first <= end:
                if other - offset >= size:
                    break
                offset = max(offset, other + extent)
        placed.append((offset, size, first, last))
    return max((offset + size for offset, size, _, _ in placed), default=0)


def _lifetimes(model: Any) -> Iterator[tuple[int, int, int]]:
    """Size in bytes, first and last operator of every tensor that is no constant."""
    subgraph = model.subgraphs[0]
    operators = subgraph.operators or []
    first = {int(index): 0 for index in subgraph.inputs}
    last = dict.fromkeys(first, len(operators))  # inputs are the caller's, who may look at them again
    for number, operator in enumerate(operators):
        for index in operator.inputs:
            last[int(index)] = max(last.get(int(index), 0), number)
        for index in operator.outputs:
            first[int(index)] = number
            last.setdefault(int(index), number)
    for index in subgraph.outputs:
        last[int(index)] = len(operators)
    for index, begin in first.items():
        size = _bytes(subgraph.tensors[index])
        if size:
            yield size, begin, last[index]


def _bytes(tensor: Any) -> int:
    dtype = flatbuffer.dtype_of(tensor)
    count = 1 if tensor.shape is None else math.prod(int(size) for size in tensor.shape)
    size = count * (1 if dtype is None else dtype.itemsize)
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def operation_counts(model: bytes) -> Counter[str]:
    """How many operations of each kind a file has, all its subgraphs together."""
    read = flatbuffer.read(model)
    return Counter(flatbuffer.operator_name(read, operator) for _, operator in flatbuffer.operators(read))
