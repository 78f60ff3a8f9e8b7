"""The lowering context: walks a jaxpr and turns its equations into ONNX nodes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx_ir as ir

from ...core import _compat
from . import dims, fold
from .builder import Builder
from .dims import Dim, Shape
from .equation import as_array, equation_view, is_literal, scope_path, x64_for
from .operand import Bounds, Operand, constant, inner_shape, is_key, stored_array, stored_dtype, stored_type
from .registry import Lowering, Refusal

#: A constant that stands for a larger array is written out in full up to this many elements.
_EXPAND_AT_EXPORT = 1024


@dataclasses.dataclass(frozen=True)
class Problem:
    """An equation that could not be lowered."""

    primitive: str
    where: str
    reason: str


class Context:
    """State of one export: the builder, the values of the symbolic dimensions, the problems found.

    Attributes:
      build: the graph builder.
      options: the options of the export.
      uses: the equations that read each variable; None stands for being a result.
      problems: equations that could not be lowered; lowering continues so that all are reported at once.
    """

    def __init__(self, build: Builder, lowerings: Mapping[str, Lowering], strict_nan: bool = False) -> None:
        self.build = build
        self.lowerings = lowerings
        self.strict_nan = strict_nan
        self.problems: list[Problem] = []
        self.uses: dict[Any, list[Any]] = {}
        self._origin: dict[ir.Value, tuple[str, Operand, Any]] = {}
        self._stack: list[str] = []
        self.dim_sources: dict[str, tuple[ir.Value, int, int, int]] = {}

    # -- nodes ---------------------------------------------------------------------------------------------------

    def op(self, op_type: str, *inputs: ir.Value | None, **options: Any) -> ir.Value:
        """Emits a node with one output; see `Builder.outputs`."""
        return self.build.op(op_type, *inputs, **options)

    def outputs(self, op_type: str, *inputs: ir.Value | None, n: int, **options: Any) -> tuple[ir.Value, ...]:
        """Emits a node; see `Builder.outputs`."""
        return self.build.outputs(op_type, *inputs, n=n, **options)

    def const(self, array: Any, dtype: Any = None) -> ir.Value:
        """An initializer."""
        return self.build.const(array, dtype)

    def ints(self, *values: int) -> ir.Value:
        """A 1-D int64 initializer."""
        return self.build.ints(*values)

    # -- operands ------------------------------------------------------------------------------------------------

    def result(
        self, value: ir.Value, aval: Any, held: Shape | None = None, bounds: Bounds | None = None, **facts: Any
    ) -> Operand:
        """The operand for an emitted value; ``aval`` gives the logical shape and the dtype."""
        shape = tuple(aval.shape)
        held = shape if held is None else held
        if value.shape is None:
            value.shape = ir.Shape([dims.spec(d) for d in (*held, *inner_shape(aval.dtype))])
        if value.type is None:
            value.type = ir.TensorType(stored_type(aval.dtype))
        return Operand(shape, aval.dtype, held, value=value, bounds=bounds, **facts)

    def with_facts(self, x: Operand, **facts: Any) -> Operand:
        """The same operand with more known about it."""
        return dataclasses.replace(x, **facts)

    def inner(self, aval: Any) -> tuple[int, ...]:
        """Trailing axes of storage for complex numbers and keys."""
        return inner_shape(aval.dtype)

    def unsqueezed(self, x: Operand) -> ir.Value:
        """The stored value with a last axis of size one, to meet values stored with a trailing axis."""
        if not x.held:
            return self.value(x)
        return self.reshape_value(self.value(x), x.held, (*x.held, 1))

    def value(self, x: Operand) -> ir.Value:
        """The stored ONNX value, which may be smaller than the logical array but broadcasts to it."""
        return x.value if x.value is not None else self.build.const(stored_array(x.const))

    def full(self, x: Operand) -> ir.Value:
        """The ONNX value of the logical shape."""
        if x.is_full:
            return self.value(x)
        inner = inner_shape(x.dtype)
        if dims.is_static(x.shape) and dims.size(x.shape) == 0:
            return self.const(np.zeros((*x.shape, *inner), stored_dtype(x.dtype)))
        if x.const is not None and dims.is_static(x.shape) and dims.size(x.shape) <= _EXPAND_AT_EXPORT:
            return self.const(np.broadcast_to(stored_array(x.const), (*x.shape, *inner)))
        value = self.op("Expand", self.value(x), self.shape((*x.shape, *inner)), typed=(0,))
        return self.result(value, x).value  # type: ignore[return-value]

    def filled(self, x: Operand) -> Operand:
        """The same array with its logical shape stored."""
        if x.is_full:
            return x
        return dataclasses.replace(x, held=x.shape, const=None, value=self.full(x))

    def materialized(self, x: Operand) -> Operand:
        """A constant as the initializer that holds it."""
        return x if x.value is not None else dataclasses.replace(x, const=None, value=self.value(x))

    def padded(self, x: Operand) -> Operand:
        """The same array stored with one axis per logical axis (of size one where it broadcasts)."""
        return x if len(x.held) == x.rank else self.reheld(x, x.padded)

    def reheld(self, x: Operand, held: Shape) -> Operand:
        """``x`` stored with ones inserted or removed, so that the stored shape becomes ``held``."""
        if held == x.held:
            return x
        inner = inner_shape(x.dtype)
        if x.const is not None and not is_key(x.dtype):
            return dataclasses.replace(x, held=held, const=np.reshape(x.const, held))
        value = self.reshape_value(self.value(x), (*x.held, *inner), (*held, *inner))
        return dataclasses.replace(x, held=held, const=None, value=value)

    def remember(self, value: ir.Value | None, op_type: str, source: Operand, detail: Any) -> None:
        """Notes what a Transpose or Reshape was made from, so that the next one can start there."""
        if value is not None:
            self._origin[value] = (op_type, source, detail)

    def origin(self, value: ir.Value | None) -> tuple[str, Operand, Any] | None:
        """What `remember` noted about a value."""
        return self._origin.get(value) if value is not None else None

    def convert(self, x: Operand, dtype: Any) -> Operand:
        """The operand in another element type, by JAX's conversion rules."""
        if np.dtype(x.dtype) == np.dtype(dtype):
            return x
        if x.const is not None and not is_key(x.dtype):
            return constant(x.const.astype(dtype), x.shape)
        return self.trace_and_lower(lambda a: jax.lax.convert_element_type(a, dtype), x)[0]

    def zeros(self, shape: Shape, dtype: Any) -> Operand:
        """Zeros of a shape, held as one number."""
        return constant(np.zeros((), dtype), shape)

    # -- shapes --------------------------------------------------------------------------------------------------

    def dim(self, dim: Dim) -> ir.Value:
        """A dimension as an int64 vector of one element."""
        if isinstance(dim, int):
            return self.ints(dim)
        from .symbolic import dim_value

        return dim_value(self, dim)

    def dim_scalar(self, dim: Dim) -> ir.Value:
        """A dimension as an int64 scalar."""
        if isinstance(dim, int):
            return self.const(np.int64(dim))
        return self.op("Squeeze", self.dim(dim), typed=(0,))

    def shape(self, shape: Shape) -> ir.Value:
        """A shape as an int64 vector."""
        if dims.is_static(shape):
            return self.ints(*shape)
        parts: list[ir.Value] = []
        run: list[int] = []
        for d in shape:
            if isinstance(d, int):
                run.append(d)
                continue
            if run:
                parts.append(self.ints(*run))
                run = []
            parts.append(self.dim(d))
        if run:
            parts.append(self.ints(*run))
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=0)

    def reshape_value(self, value: ir.Value, old: Shape, new: Shape) -> ir.Value:
        """Reshapes a value of stored shape ``old`` to ``new``, with as little shape arithmetic as possible."""
        if old == new:
            return value
        axes = _inserted_ones(old, new)
        if axes is not None and not dims.is_static(new):
            return self.op("Unsqueeze", value, self.ints(*axes), typed=(0,))
        axes = _inserted_ones(new, old)
        if axes is not None and not dims.is_static(new):
            return self.op("Squeeze", value, self.ints(*axes), typed=(0,))
        if dims.is_static(new):
            empty = {"allowzero": 1} if 0 in new else {}
            return self.op("Reshape", value, self.ints(*new), typed=(0,), **empty)
        entries: list[int] = []
        for k, d in enumerate(new):
            if isinstance(d, int):
                entries.append(d)
            elif k < len(old) and old[k] == d:
                entries.append(0)
            else:
                entries.append(-1)
        if entries.count(-1) <= 1 and not any(d == 0 for d in new if isinstance(d, int)):
            return self.op("Reshape", value, self.ints(*entries), typed=(0,))
        return self.op("Reshape", value, self.shape(new), typed=(0,), allowzero=1)

    # -- walking -------------------------------------------------------------------------------------------------

    def lower_closed(self, closed: Any, operands: Sequence[Operand], needed: Sequence[bool] | None = None) -> list[Any]:
        """Lowers a closed jaxpr inline."""
        return self.lower_jaxpr(closed.jaxpr, [constant(as_array(c)) for c in closed.consts], operands, needed)

    def lower_jaxpr(
        self,
        jaxpr: Any,
        consts: Sequence[Operand],
        operands: Sequence[Operand],
        needed: Sequence[bool] | None = None,
    ) -> list[Any]:
        """Lowers the equations of a jaxpr into the open graph.

        Args:
          jaxpr: the body.
          consts: operands of its constvars.
          operands: operands of its invars.
          needed: which outputs matter (default all); equations that serve no needed output are dropped.

        Returns:
          The operands of its outputs; None for those not needed.
        """
        env: dict[Any, Operand] = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, operands, strict=True))
        needed = [True] * len(jaxpr.outvars) if needed is None else list(needed)
        live = {v for v, want in zip(jaxpr.outvars, needed, strict=True) if want and not is_literal(v)}
        keep: list[Any] = []
        for eqn in reversed(jaxpr.eqns):
            wanted = [v in live for v in eqn.outvars]
            if any(wanted) or eqn.effects:
                keep.append((eqn, wanted))
                live.update(v for v in eqn.invars if not is_literal(v))
        for eqn, _ in keep:
            for v in eqn.invars:
                if not is_literal(v):
                    self.uses.setdefault(v, []).append(eqn)
        for v, want in zip(jaxpr.outvars, needed, strict=True):
            if want and not is_literal(v):
                self.uses.setdefault(v, []).append(None)
        outer = list(self._stack)
        for eqn, wanted in reversed(keep):
            with self._located(eqn):
                results = self.lower_equation(eqn, [self._read(env, v) for v in eqn.invars], wanted)
            env.update(zip(eqn.outvars, results, strict=True))
        self._stack = outer
        return [self._read(env, v) if want else None for v, want in zip(jaxpr.outvars, needed, strict=True)]

    def _read(self, env: Mapping[Any, Operand], var: Any) -> Operand:
        if is_literal(var):
            return constant(np.asarray(var.val, getattr(var.aval, "dtype", None)))
        return env[var]

    def lower_equation(self, eqn: Any, operands: list[Operand], wanted: Sequence[bool]) -> list[Operand]:
        """Lowers one equation; a refusal is noted and stand-ins are returned."""
        name = eqn.primitive.name
        folded = fold.try_fold(eqn, operands)
        if folded is not None:
            return folded
        lowering = self.lowerings.get(name)
        try:
            if lowering is None:
                results = self._own_implementation(eqn, operands)
            else:
                results = lowering.function(self, equation_view(eqn, wanted), *operands)
        except Refusal as error:
            self.problems.append(Problem(name, self.build.source or "unknown line", str(error)))
            return [self.stand_in(v.aval) for v in eqn.outvars]
        return list(results) if isinstance(results, list | tuple) else [results]

    def _own_implementation(self, eqn: Any, operands: list[Operand]) -> list[Operand]:
        """Lowers a primitive of somebody else's by the JAX function that it names as its implementation."""
        implementation, name = eqn.primitive.impl, eqn.primitive.name
        specs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands]
        try:
            with x64_for([x.dtype for x in operands]):
                closed = jax.make_jaxpr(lambda *args: implementation(*args, **eqn.params))(*specs)
        except Exception as error:  # somebody else's code: whatever it raises, the primitive cannot be opened
            raise Refusal("the ONNX backend does not know this primitive") from error
        if any(e.primitive.name == name for e in closed.jaxpr.eqns):
            raise Refusal("the ONNX backend does not know this primitive")
        return self.lower_closed(closed, operands)

    def stand_in(self, aval: Any) -> Operand:
        """An operand of the right type without a meaning: stands for the result of an equation that was refused."""
        value = ir.Value(name=self.build.unique("refused"), type=ir.TensorType(stored_type(aval.dtype)))
        return self.result(value, aval)

    def trace_and_lower(self, function: Callable[..., Any], *operands: Operand) -> list[Operand]:
        """Traces a plain JAX function at the operands' types and lowers what comes out."""
        specs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands]
        with x64_for([x.dtype for x in operands]):
            closed = jax.make_jaxpr(function)(*specs)
        return self.lower_closed(closed, list(operands))

    @contextlib.contextmanager
    def _located(self, eqn: Any) -> Iterator[None]:
        build = self.build
        label, source = build.label, build.source
        stack = scope_path(_compat.name_stack(eqn.source_info))
        self._stack.append(stack)
        build.label = "/".join(p for p in self._stack if p)
        location = _compat.user_location(eqn.source_info)
        if location is not None:
            build.source = location
        try:
            yield
        finally:
            self._stack.pop()
            build.label, build.source = label, source


def _inserted_ones(old: Shape, new: Shape) -> list[int] | None:
    """Positions in ``new`` of the ones that turn ``old`` into it, or None."""
    axes: list[int] = []
    k = 0
    for position, d in enumerate(new):
        if k < len(old) and old[k] == d:
            k += 1
        elif d == 1:
            axes.append(position)
        else:
            return None
    return axes if k == len(old) else None
