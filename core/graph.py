"""`Graph`: the editing view of a jaxpr, with use-lists and regions.

A graph is a doubly linked list of `Node`s (equations) over `Value`s (variables, constants, literals). Bodies of control
flow and calls are *regions*: graphs of their own, built when first looked at. A body that several equations share stays
one region, and one jaxpr afterwards. `Graph.to_jaxpr` keeps every variable and every untouched body of the original, so
an unedited graph gives back the jaxpr it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from . import _compat
from .conversion import body_of, operand
from .errors import PassError, UnsupportedError
from .node import REGION_PARAMS, Node, Value


class Graph:
    """The editing view of a closed jaxpr, or of the body of one of its equations.

    Attributes:
      inputs: the input values, in order.
      terminator: the node whose operands are the graph's outputs.
      made_by: for variables that a rewrite made, the rule's name; shared by all regions.
    """

    def __init__(
        self,
        body: jex_core.ClosedJaxpr | jex_core.Jaxpr,
        *,
        provenance: Mapping[Any, str] | None = None,
        root: Graph | None = None,
        closes: bool = True,
    ) -> None:
        self.root = root or self
        self._source = body
        self._closed = isinstance(body, jex_core.ClosedJaxpr) and closes
        self._jaxpr: jex_core.Jaxpr = body.jaxpr if isinstance(body, jex_core.ClosedJaxpr) else body
        self._edited = False
        self._regions: dict[int, tuple[Any, Graph]] = {} if root is None else root._regions
        self._traces: dict[Any, jex_core.ClosedJaxpr] = {} if root is None else root._traces
        self.made_by: dict[Any, str] = dict(provenance or {}) if root is None else root.made_by
        self._first: Node | None = None
        self._last: Node | None = None
        self.terminator = Node(self, None, {}, jex_core.no_effects, None, None)
        self._constants: list[Value] = []
        self._constant_of: dict[int, Value] = {}
        self._load()

    # -- construction ------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        values: dict[Any, Value] = {}
        consts = self._source.consts if isinstance(self._source, jex_core.ClosedJaxpr) else ()
        if len(self._jaxpr.constvars) != len(consts):
            raise UnsupportedError("a body with unbound constant variables cannot be edited")
        for var, const in zip(self._jaxpr.constvars, consts, strict=True):
            values[var] = Value(var.aval, const=const, var=var)
            self._constants.append(values[var])
            self._constant_of.setdefault(id(const), values[var])
        self.inputs = [Value(var.aval, index=i, var=var) for i, var in enumerate(self._jaxpr.invars)]
        values.update(zip(self._jaxpr.invars, self.inputs, strict=True))
        for eqn in self._jaxpr.eqns:
            node = Node(self, eqn.primitive, eqn.params, eqn.effects, eqn.source_info, eqn.ctx)
            node._eqn = eqn
            self._connect(node, [operand(atom, values) for atom in eqn.invars])
            for index, var in enumerate(eqn.outvars):
                output = Value(var.aval, producer=node, index=index, var=var)
                values[var] = output
                node.outputs.append(output)
            self._link(node, None)
        self._connect(self.terminator, [operand(atom, values) for atom in self._jaxpr.outvars])

    def _connect(self, node: Node, inputs: Sequence[Value]) -> None:
        node.inputs = list(inputs)
        for index, value in enumerate(inputs):
            value.uses[node, index] = None

    def _link(self, node: Node, before: Node | None) -> None:
        """Puts ``node`` in front of ``before``, or at the end."""
        successor = None if before is self.terminator else before
        predecessor = self._last if successor is None else successor._prev
        node._prev, node._next = predecessor, successor
        if predecessor is None:
            self._first = node
        else:
            predecessor._next = node
        if successor is None:
            self._last = node
        else:
            successor._prev = node

    def region_of(self, body: Any, *, closes: bool = True) -> Graph:
        """The region of a body; one per jaxpr object, however many equations share it.

        Args:
          body: a jaxpr.
          closes: whether the body may close over arrays.
        """
        known = self._regions.get(id(body))
        if known is None:
            known = (body, Graph(body, root=self.root, closes=closes))  # holding `body` keeps its id from being reused
            self._regions[id(body)] = known
        return known[1]

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def constants(self) -> list[Value]:
        """The arrays that this graph closes over, those that nothing reads included."""
        return list(self._constants)

    @property
    def outputs(self) -> list[Value]:
        """The output values, in order; one value may appear twice."""
        return self.terminator.inputs

    def nodes(self) -> list[Node]:
        """A snapshot of the nodes in order; after an edit, look at `Node.alive`."""
        return self.nodes_between(None, None)

    def walk(self) -> Iterator[Graph]:
        """This graph and every region below it, inner ones first, each once."""
        yield from self._walk(set())

    def _walk(self, seen: set[int]) -> Iterator[Graph]:
        for node in self.nodes():
            if node.name not in REGION_PARAMS:
                continue
            for region in node.regions.values():
                if id(region) not in seen:
                    seen.add(id(region))
                    yield from region._walk(seen)
        yield self

    # -- editing -----------------------------------------------------------------------------------------------------

    def constant(self, array: Any, *, weak_type: bool = False) -> Value:
        """A constant: a literal where ``array`` is a scalar, else a closed-over array held by reference.

        A body that cannot close over arrays (that of ``remat2``) holds it as an array literal.
        """
        aval = jax.core.ShapedArray(np.shape(array), array.dtype, weak_type=weak_type)
        is_key = jnp.issubdtype(array.dtype, jax.dtypes.extended)
        if not is_key and (not aval.shape or not self._closed):
            return Value(aval, const=np.asarray(array), is_literal=True)
        if not self._closed:
            raise UnsupportedError("this body can hold arrays as literals only, and a random key is none")
        known = self._constant_of.get(id(array))
        if known is None or known.aval != aval:
            known = Value(aval, const=array, var=jex_core.Var(aval))
            self._constants.append(known)
            self._constant_of[id(array)] = known
        return known

    def splice(
        self,
        fn: Callable[..., Any],
        *values: Value,
        before: Node,
        rule: str | None = None,
        static: tuple[Any, ...] | None = None,
    ) -> list[Value]:
        """Traces ``fn`` at the values' types and inserts its equations in front of ``before``.

        Args:
          fn: a plain JAX function of one array per value.
          *values: operands; they must be computed before ``before``.
          before: where to insert. New nodes take over its source location and name stack.
          rule: name of the rewrite, recorded as the maker of the new nodes.
          static: further arguments of ``fn``, hashable and all that it depends on. Then the same function at the same
            types is traced only once for the whole program: tracing takes a good part of a millisecond.

        Returns:
          One value per array that ``fn`` returns (its flattened result).
        """
        closed = self._trace(fn, [v.aval for v in values], before, static)
        return self.insert_jaxpr(closed, values, before=before, rule=rule, relocate=True)

    def _trace(
        self, fn: Callable[..., Any], avals: list[Any], before: Node, static: tuple[Any, ...] | None
    ) -> jex_core.ClosedJaxpr:
        key = None if static is None else (fn, static, tuple(avals), before.ctx)
        if key in self._traces:
            return self._traces[key]
        specs = [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in avals]
        with _compat.in_eqn_context(before.ctx):
            closed = jax.make_jaxpr(lambda *arrays: jax.tree_util.tree_leaves(fn(*arrays, *(static or ()))))(*specs)
        if key is not None:
            self._traces[key] = closed
        return closed

    def emit(
        self,
        primitive: jex_core.Primitive,
        inputs: Sequence[Value],
        params: Mapping[str, Any],
        *,
        before: Node,
        rule: str | None = None,
    ) -> list[Value]:
        """Inserts one equation in front of ``before``, whose source location it takes over; returns its results.

        Quicker than `splice`, for a primitive whose parameters are at hand, such as those of an equation like it.
        """
        with _compat.in_eqn_context(before.ctx):
            avals, effects = primitive.abstract_eval(*(v.aval for v in inputs), **params)
        ctx = before.ctx or _compat.current_eqn_context()
        source_info = before.source_info or _compat.new_source_info()
        node = Node(self, primitive, dict(params), effects, source_info, ctx)
        self._connect(node, inputs)
        for index, aval in enumerate(avals if primitive.multiple_results else [avals]):
            self._new_output(node, index, aval, rule)
        self._link(node, before)
        self._touch()
        return list(node.outputs)

    def insert_jaxpr(
        self,
        closed: jex_core.ClosedJaxpr,
        values: Sequence[Value],
        *,
        before: Node,
        rule: str | None = None,
        relocate: bool = False,
    ) -> list[Value]:
        """Copies the equations of ``closed``, applied to ``values``, in front of ``before``; returns its outputs.

        With ``relocate`` they take over the source location of ``before``; else they keep their own and their name
        stacks are put below that of ``before``.
        """
        env: dict[Any, Value] = dict(zip(closed.jaxpr.invars, values, strict=True))
        for var, const in zip(closed.jaxpr.constvars, closed.consts, strict=True):
            env[var] = self.constant(const)
        # JAX's own functions are traced without the frames of their caller: then the call's place is all that is known.
        lost = bool(closed.jaxpr.eqns) and _compat.user_location(closed.jaxpr.eqns[0].source_info) is None
        for eqn in closed.jaxpr.eqns:
            source_info = eqn.source_info
            if relocate:
                source_info = before.source_info or source_info
            elif before.source_info is not None:
                source_info = _compat.with_name_stack_prefix(source_info, before.source_info, at_outer=lost)
            node = Node(self, eqn.primitive, eqn.params, eqn.effects, source_info, eqn.ctx)
            self._connect(node, [operand(atom, env) for atom in eqn.invars])
            for index, var in enumerate(eqn.outvars):
                env[var] = self._new_output(node, index, var.aval, rule)
            self._link(node, before)
        self._touch()
        return [operand(atom, env) for atom in closed.jaxpr.outvars]

    def _new_output(self, node: Node, index: int, aval: Any, rule: str | None) -> Value:
        output = Value(aval, producer=node, index=index, var=jex_core.Var(aval))
        node.outputs.append(output)
        if rule is not None:
            self.made_by[output.var] = rule
        return output

    def replace(self, old: Value, new: Value) -> None:
        """Makes every user of ``old`` read ``new``; shape and dtype must agree.

        A differing weak type is restored by a conversion, so that the types downstream stay what they were.
        """
        if old is new:
            return
        if old.aval.shape != new.aval.shape or old.aval.dtype != new.aval.dtype:
            raise PassError(f"a replacement has type {new.aval.str_short()} where {old.aval.str_short()} was")
        if not old.uses:
            return
        if getattr(old.aval, "weak_type", False) != getattr(new.aval, "weak_type", False):
            new = self._with_weak_type(new, old)
        for node, index in old.uses:
            node.inputs[index] = new
            node._eqn = None
            new.uses[node, index] = None
        old.uses = {}
        self._touch()

    def _with_weak_type(self, new: Value, old: Value) -> Value:
        if new.is_literal:
            return Value(new.aval.update(weak_type=old.aval.weak_type), const=new.const, is_literal=True)
        before = self.after(new)
        params = {"new_dtype": old.aval.dtype, "weak_type": old.aval.weak_type, "sharding": None}
        return self.emit(jex_core.primitives.convert_element_type_p, [new], params, before=before)[0]

    def set_operand(self, node: Node, index: int, value: Value) -> None:
        """Makes one operand of ``node`` read ``value``."""
        old = node.inputs[index]
        old.uses.pop((node, index), None)
        node.inputs[index] = value
        node._eqn = None
        value.uses[node, index] = None
        self._touch()

    def retype_input(self, index: int, aval: Any) -> Value:
        """Gives an input another type and returns it; readers of the old value are to be moved to it and removed."""
        self.inputs[index] = Value(aval, index=index, var=jex_core.Var(aval))
        self._touch()
        return self.inputs[index]

    def set_params(self, node: Node, **changes: Any) -> None:
        """Replaces parameters of ``node``; regions of replaced bodies are built anew."""
        node.params = {**node.params, **changes}
        node._eqn = None
        if any(key in REGION_PARAMS.get(node.name, ()) for key in changes):
            node._regions = None
        self._touch()

    def erase(self, node: Node) -> None:
        """Removes a node whose outputs have no users."""
        if any(output.uses for output in node.outputs):
            raise PassError(f"cannot erase {node.name}: its result is still used", where=node.where)
        self._unlink(node)

    def drop_unused_constants(self) -> None:
        """Forgets constants that nothing reads, so that the program stops holding their arrays."""
        if any(not constant.uses for constant in self._constants):
            self._constants = [constant for constant in self._constants if constant.uses]
            self._constant_of = {id(constant.const): constant for constant in reversed(self._constants)}
            self._touch()

    def erase_dead(self, node: Node) -> int:
        """Removes ``node`` and, in turn, its producers where nothing uses them; returns how many nodes went."""
        removed, pending = 0, [node]
        while pending:
            node = pending.pop()
            if not node.alive or node.effects or node is self.terminator or any(o.uses for o in node.outputs):
                continue
            producers = [v.producer for v in node.inputs if v.producer is not None]
            self._unlink(node)
            removed += 1
            pending.extend(producers)
        return removed

    def _unlink(self, node: Node) -> None:
        for index, value in enumerate(node.inputs):
            value.uses.pop((node, index), None)
        if node._prev is None:
            self._first = node._next
        else:
            node._prev._next = node._next
        if node._next is None:
            self._last = node._prev
        else:
            node._next._prev = node._prev
        node.graph = None
        self._touch()

    def inline(
        self, node: Node, body: Graph | jex_core.ClosedJaxpr, operands: Sequence[Value] | None = None
    ) -> list[Node]:
        """Replaces a node by a copy of its body, whose results correspond one to one to the node's.

        Args:
          node: a call or control flow.
          body: the body that it runs, once.
          operands: what the body is applied to; by default the operands of ``node``.

        Returns:
          The nodes that took its place, in order.
        """
        closed = body.to_closed() if isinstance(body, Graph) else body
        predecessor, successor = node._prev, node._next
        outputs = self.insert_jaxpr(closed, node.inputs if operands is None else operands, before=node)
        for old, new in zip(node.outputs, outputs, strict=True):
            self.replace(old, new)
        self._unlink(node)
        return self.nodes_between(predecessor, successor)

    def after(self, value: Value) -> Node:
        """The node in front of which something that reads ``value`` can stand at the earliest."""
        following = self._first if value.producer is None else value.producer._next
        return following or self.terminator

    def nodes_between(self, after: Node | None, before: Node | None) -> list[Node]:
        """The nodes strictly between two others, in order; None stands for the beginning or the end."""
        nodes, node = [], self._first if after is None else after._next
        while node is not before and node is not None:
            nodes.append(node)
            node = node._next
        return nodes

    def _touch(self) -> None:
        self._edited = True

    @property
    def edited(self) -> bool:
        """Whether this graph or any region of the program was edited."""
        return self._edited or any(region._edited for _, region in self._regions.values())

    # -- back to jaxpr -----------------------------------------------------------------------------------------------

    def to_closed(self) -> jex_core.ClosedJaxpr:
        """The graph as a closed jaxpr; the very object it was made from when nothing was edited."""
        result = body_of(self, {}) if self.edited else self._source
        return result if isinstance(result, jex_core.ClosedJaxpr) else jex_core.ClosedJaxpr(result, ())
