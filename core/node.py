"""`Value` and `Node`: what a `Graph` is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.extend import core as jex_core

from . import _compat

if TYPE_CHECKING:
    from .graph import Graph

REGION_PARAMS: Mapping[str, tuple[str, ...]] = {
    "jit": ("jaxpr",),
    "closed_call": ("call_jaxpr",),
    "eval_jaxpr": ("call_jaxpr",),  # what closed_call is from JAX 0.12 on
    "core_call": ("call_jaxpr",),
    "remat2": ("jaxpr",),
    "checkpoint": ("jaxpr",),
    "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr",),
    "custom_vmap_call": ("call",),
    "composite": ("jaxpr", "call_jaxpr"),  # renamed in JAX 0.12
    "scan": ("jaxpr",),
    "while": ("cond_jaxpr", "body_jaxpr"),
    "cond": ("branches",),
}
"""Parameters that hold a body which rewriting may enter.

Left out on purpose: reducers (``reduce``, ``scatter``, ``reduce_window``), which are attributes rather than code;
``shard_map``, whose values have per-device types that re-tracing outside its mesh would lose; ``pallas_call`` and other
bodies over references. Those travel through untouched.
"""

CLOSES_OVER_NOTHING = frozenset({"remat2", "checkpoint"})
"""Primitives whose body may hold no constant variables."""

RegionKey = tuple[str, int | None]
"""A parameter's name, and the index in it when the parameter is a tuple of bodies."""


class Value:
    """A variable, constant or literal.

    Attributes:
      aval: shape, dtype, weak type.
      producer: the node that computes it, or None for inputs, constants and literals.
      index: which output of the producer, or which input of the graph.
      const: the array behind a constant or literal, else None.
      uses: ``(node, operand index)`` pairs, in no particular order; graph outputs are uses by ``graph.terminator``.
    """

    __slots__ = ("aval", "const", "index", "is_literal", "producer", "uses", "var")

    def __init__(
        self,
        aval: Any,
        *,
        producer: Node | None = None,
        index: int = 0,
        const: Any = None,
        is_literal: bool = False,
        var: Any = None,
    ) -> None:
        self.aval = aval
        self.producer = producer
        self.index = index
        self.const = const
        self.is_literal = is_literal
        self.var = var
        self.uses: dict[tuple[Node, int], None] = {}

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes; symbolic ones are `jax.export` dimension expressions."""
        return tuple(self.aval.shape)

    @property
    def dtype(self) -> Any:
        """Element type."""
        return self.aval.dtype

    @property
    def is_const(self) -> bool:
        """Whether the value is known now: a closed-over array or a literal, and no tracer of an enclosing function."""
        return self.const is not None and not _compat.is_tracer(self.const)

    @property
    def users(self) -> list[Node]:
        """The nodes that read it, each once."""
        return list(dict.fromkeys(node for node, _ in self.uses))

    def numpy(self) -> np.ndarray[Any, Any]:
        """The constant as a NumPy array of the value's dtype; raises `ValueError` when it is not a constant."""
        if self.const is None:
            raise ValueError("not a constant")
        return np.asarray(self.const, dtype=self.aval.dtype)

    def __repr__(self) -> str:
        kind = "const" if self.is_const else "input" if self.producer is None else self.producer.name
        return f"Value({kind}:{self.aval.str_short()})"


class Node:
    """An equation.

    Attributes:
      primitive: the JAX primitive; never replaced.
      name: name of the primitive; ``"return"`` for a graph's terminator.
      inputs, outputs: values.
      params: parameters; replace whole entries with `Graph.set_params`, never mutate them.
      effects: JAX effects; a node with effects is never removed, merged or reordered.
      source_info, ctx: source location, name stack and tracing context of the equation.
    """

    __slots__ = ("_eqn", "_next", "_prev", "_regions", "ctx", "effects", "graph", "inputs", "name", "outputs", "params",
                 "primitive", "source_info")  # fmt: skip

    def __init__(self, graph: Graph, primitive: Any, params: dict[str, Any], effects: Any, source_info: Any, ctx: Any):
        self.graph: Graph | None = graph
        self.primitive = primitive
        self.name: str = "return" if primitive is None else primitive.name
        self.params = params
        self.effects = effects
        self.source_info = source_info
        self.ctx = ctx
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self._regions: dict[RegionKey, Graph] | None = None
        self._eqn: Any = None  # the equation it was made from, while it still says the same
        self._prev: Node | None = None
        self._next: Node | None = None

    @property
    def alive(self) -> bool:
        """Whether the node is still in its graph."""
        return self.graph is not None

    @property
    def where(self) -> str | None:
        """The user's source line, ``file.py:12 (function)``."""
        return None if self.source_info is None else _compat.user_location(self.source_info)

    @property
    def regions(self) -> dict[RegionKey, Graph]:
        """Bodies by ``(parameter, index)``; the index is None unless the parameter is a tuple."""
        if self._regions is None:
            assert self.graph is not None
            closes = self.name not in CLOSES_OVER_NOTHING
            self._regions = {key: self.graph.region_of(body, closes=closes) for key, body in bodies(self)}
        return self._regions

    @property
    def body(self) -> Graph:
        """The region of a node that has just one, such as a call."""
        (region,) = self.regions.values()
        return region

    def __repr__(self) -> str:
        return f"Node({self.name} {self.inputs} -> {self.outputs})"


def bodies(node: Node) -> Iterator[tuple[RegionKey, Any]]:
    """The parameters of ``node`` that hold a body which may be edited."""
    for param in REGION_PARAMS.get(node.name, ()):
        body = node.params.get(param)
        if isinstance(body, tuple):
            yield from (((param, i), b) for i, b in enumerate(body) if _is_editable(b))
        elif _is_editable(body):
            yield (param, None), body


def _is_editable(body: Any) -> bool:
    """Bodies over references (state) are left alone: their equations are ordered by more than their operands."""
    if not isinstance(body, jex_core.Jaxpr | jex_core.ClosedJaxpr):
        return False
    jaxpr = body.jaxpr if isinstance(body, jex_core.ClosedJaxpr) else body
    return all(type(v.aval).__name__ != "AbstractRef" for v in jaxpr.invars)
