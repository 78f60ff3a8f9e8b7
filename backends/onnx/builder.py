"""Assembles an ONNX graph: nodes with shared subexpressions, interned constants, nested bodies, stable names."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from . import exact, kernels
from .registry import Refusal

_T = ir.DataType

#: Constants below this size are compared by their bytes, larger ones by a digest.
_DIGEST_FROM = 256
#: From this size on, arrays are told apart by their place in memory: hashing gigabytes takes seconds.
_ADDRESS_FROM = 1 << 16
#: Rows and columns of the pieces in which a matrix is compared with the transpose of another.
_TILE = 128


@dataclasses.dataclass
class _Scope:
    """One graph under construction: the model's main graph or the body of a control-flow node."""

    nodes: list[ir.Node] = dataclasses.field(default_factory=list)
    known: dict[Any, tuple[ir.Value, ...]] = dataclasses.field(default_factory=dict)


class Builder:
    """Emits nodes into the innermost open graph.

    Equal pure nodes are emitted once, and a node whose element type the runtime's kernels lack is computed in a wider
    type between casts.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.needed_opset = 0
        self.initializers: dict[str, ir.Value] = {}
        self.label = ""
        self.source = ""
        self._scopes = [_Scope()]
        self._interned: dict[Any, ir.Value] = {}
        self._taken: dict[str, int] = {}
        self._fresh = 0

    # -- names ---------------------------------------------------------------------------------------------------

    def unique(self, name: str) -> str:
        """``name``, with a number appended when it was given out before."""
        count = self._taken.get(name, 0)
        self._taken[name] = count + 1
        return name if count == 0 else self.unique(f"{name}_{count}")

    # -- values --------------------------------------------------------------------------------------------------

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[Any]) -> ir.Value:
        """A named value that no node produces: a graph input."""
        return ir.Value(name=self.unique(name), type=ir.TensorType(dtype), shape=ir.Shape(list(shape)))

    def const(self, array: Any, dtype: Any = None, name: str | None = None) -> ir.Value:
        """An initializer of the main graph; equal arrays share one."""
        array = np.asarray(array, dtype)
        if not array.flags.c_contiguous:
            if array.ndim == 2 and self.holds(array.T):  # the matrix itself, seen from the other side
                return self.op("Transpose", self.const(array.T), perm=[1, 0])
            array = np.ascontiguousarray(array)
        key = (array.dtype.name, array.shape, _content(array))
        if key in self._interned:
            return self._interned[key]
        twin = self._transposed(array)
        if twin is not None:
            return self.op("Transpose", twin, perm=[1, 0])
        name = self.unique(name or _constant_name(array))
        tensor = ir.Tensor(array, dtype=ir.DataType.from_numpy(array.dtype), name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self.initializers[name] = value
        self._interned[key] = value
        return value

    def _transposed(self, array: np.ndarray[Any, Any]) -> ir.Value | None:
        """The large matrix among the initializers of which an array is the transpose: a tied embedding is held once."""
        if array.nbytes < _ADDRESS_FROM or array.ndim != 2:
            return None
        for (dtype, shape, _), value in self._interned.items():
            if (dtype, shape) == (array.dtype.name, array.shape[::-1]) and value.const_value is not None:
                other = value.const_value.numpy().T
                if np.array_equal(other[0], array[0]) and _equal_in_tiles(other, array):
                    return value
        return None

    def ints(self, *values: int) -> ir.Value:
        """A 1-D int64 initializer: axes, sizes, starts."""
        return self.const(np.asarray(values, np.int64))

    def holds(self, array: np.ndarray[Any, Any]) -> bool:
        """Whether a large array is among the initializers as it is."""
        laid_out = array.nbytes >= _ADDRESS_FROM and array.flags.c_contiguous
        return laid_out and (array.dtype.name, array.shape, _content(array)) in self._interned

    # -- nodes ---------------------------------------------------------------------------------------------------

    def op(self, op_type: str, *inputs: ir.Value | None, **options: Any) -> ir.Value:
        """Emits a node with one output; the options are those of `outputs`."""
        return self.outputs(op_type, *inputs, n=1, **options)[0]

    def outputs(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        n: int,
        to: Any = None,
        typed: Sequence[int] | None = None,
        kernel: str | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """Emits a node.

        Args:
          op_type: the operator.
          inputs: its inputs; None for an optional input left out.
          n: number of outputs.
          to: element type of the outputs, one or a tuple; None means the type of the first typed input.
          typed: positions of the inputs of type T (default: all).
          kernel: the entry of the kernel table, where it is not the operator's name.
          domain: operator domain.
          attributes: ints, floats, strings, sequences, tensors or graphs.

        Returns:
          The output values.
        """
        positions = [k for k in (range(len(inputs)) if typed is None else typed) if inputs[k] is not None]
        targets = to if isinstance(to, tuple) else (to,) * n
        own = inputs[positions[0]].dtype if positions else None  # type: ignore[union-attr]
        used = list(inputs)
        through = own
        if own is not None and not domain:
            through = kernels.carrier(kernel or op_type, own)
            if through is None:
                raise Refusal(f"no kernel of {op_type} takes {own.name}")
            if through != own:
                for k in positions:
                    used[k] = self._widen(op_type, used[k], own, through)
        key = _key(domain, op_type, used, n, attributes)
        values = self._lookup(key) if key is not None else None
        if values is None and through == _T.INT64 and kernel != exact.SMALL and not domain:
            replaced = exact.emit(self, op_type, used, attributes)
            values = None if replaced is None else (replaced,)
        if values is None:
            values = self._emit(domain, op_type, used, n, attributes, [t or through for t in targets])
            if key is not None:
                self._scopes[-1].known[key] = values
        if through != own:
            values = tuple(
                v if t is not None else self._narrow(op_type, v, own, through)
                for v, t in zip(values, targets, strict=True)
            )
        return values

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value in another element type (C rules: floats truncate, integers wrap); itself when it has it."""
        if value.dtype == dtype:
            return value
        if value.const_value is not None and dtype in (_T.INT64, _T.INT32, _T.FLOAT, _T.DOUBLE):
            return self.const(value.const_value.numpy().astype(dtype.numpy()))
        return self.op("Cast", value, to=dtype, typed=(), cast_to=int(dtype))

    def _widen(self, op_type: str, value: Any, own: Any, through: ir.DataType) -> ir.Value:
        if own == _T.UINT64 and op_type in kernels.ORDERED:
            value = self.op("BitwiseXor", value, self.const(np.uint64(1 << 63)))
        return self.cast(value, through)

    def _narrow(self, op_type: str, value: ir.Value, own: Any, through: Any) -> ir.Value:
        if value.dtype != through:
            return value
        value = self.cast(value, own)
        if own == _T.UINT64 and op_type in kernels.ORDERED:
            value = self.op("BitwiseXor", value, self.const(np.uint64(1 << 63)))
        return value

    def _lookup(self, key: Any) -> tuple[ir.Value, ...] | None:
        for scope in reversed(self._scopes):
            if key in scope.known:
                return scope.known[key]
        return None

    def _emit(
        self, domain: str, op_type: str, inputs: list[Any], n: int, attributes: dict[str, Any], types: list[Any]
    ) -> tuple[ir.Value, ...]:
        if not domain:
            self.require(op_type)
        base = self.unique("/".join(p for p in (self.label, op_type) if p))
        outputs = []
        for k, dtype in enumerate(types):
            type_ = None if dtype is None else ir.TensorType(dtype)
            outputs.append(ir.Value(name=base if k == 0 else f"{base}:{k}", type=type_))
        attrs = [_attribute("to" if name == "cast_to" else name, v) for name, v in attributes.items()]
        props = {"source": self.source} if self.source else None
        node = ir.Node(domain, op_type, inputs, attrs, outputs=outputs, name=base, metadata_props=props)
        self._scopes[-1].nodes.append(node)
        return tuple(outputs)

    def require(self, op_type: str) -> None:
        """Notes the opset that an operator needs; refuses one that the chosen opset does not have."""
        since = kernels.SINCE.get(op_type, 0)
        if self.opset and since > self.opset:
            raise Refusal(f"{op_type} needs opset {since}, the file is to have {self.opset}")
        self.needed_opset = max(self.needed_opset, since)

    def has(self, op_type: str) -> bool:
        """Whether the chosen opset has an operator."""
        return not self.opset or kernels.SINCE.get(op_type, 0) <= self.opset

    # -- graphs --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def body(self) -> Iterator[list[ir.Node]]:
        """Opens a nested graph; nodes emitted inside collect in the yielded list and may use outer values."""
        scope = _Scope()
        self._scopes.append(scope)
        try:
            yield scope.nodes
        finally:
            self._scopes.pop()

    def graph(self, name: str, inputs: list[ir.Value], outputs: list[ir.Value], nodes: list[ir.Node]) -> ir.Graph:
        """A nested graph, its outputs made distinct values that its own nodes produce."""
        own = {v for node in nodes for v in node.outputs}
        seen: set[ir.Value] = set()
        final = []
        for value in outputs:
            if value not in own or value in seen:
                node = ir.Node("", "Identity", [value], name=self.unique(f"{name}/Identity"))
                node.outputs[0].name = node.name
                node.outputs[0].type = value.type
                node.outputs[0].shape = value.shape
                nodes.append(node)
                value = node.outputs[0]
            seen.add(value)
            final.append(value)
        return ir.Graph(inputs, final, nodes=nodes, name=self.unique(name))

    @property
    def nodes(self) -> list[ir.Node]:
        """Nodes of the main graph."""
        return self._scopes[0].nodes


def _equal_in_tiles(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Whether two large matrices are equal, of which one is read across its rows: by tiles, which stay in the cache."""
    rows, columns = (range(0, n, _TILE) for n in a.shape)
    tiles = ((slice(i, i + _TILE), slice(j, j + _TILE)) for i in rows for j in columns)
    return all(np.array_equal(a[tile], b[tile]) for tile in tiles)


def _content(array: np.ndarray[Any, Any]) -> Any:
    """What tells constants apart: their bytes, a digest of them, or for weights the memory they are in."""
    if array.nbytes < _DIGEST_FROM:
        return array.tobytes()
    if array.nbytes < _ADDRESS_FROM:
        return hashlib.sha256(array.view(np.uint8).data).digest()
    return array.__array_interface__["data"][0]


def _constant_name(array: np.ndarray[Any, Any]) -> str:
    return "scalar" if array.ndim == 0 else f"const_{'x'.join(map(str, array.shape))}"


def _key(domain: str, op_type: str, inputs: list[Any], n: int, attributes: dict[str, Any]) -> Any:
    if any(isinstance(a, ir.Graph) for a in attributes.values()):
        return None
    frozen = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in sorted(attributes.items()))
    return (domain, op_type, tuple(id(v) for v in inputs), n, frozen)


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, ir.Graph):
        return ir.AttrGraph(name, value)
    if isinstance(value, np.ndarray):
        return ir.AttrTensor(name, ir.Tensor(value))
    if isinstance(value, bool | int | np.integer):
        return ir.AttrInt64(name, int(value))
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if value and isinstance(value[0], float):
        return ir.AttrFloat32s(name, list(value))
    return ir.AttrInt64s(name, [int(v) for v in value])
