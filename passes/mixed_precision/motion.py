"""Moving casts to the small type: towards constants and out of loops, one for each value, and away where they undo a
widening. All of this is exact: rounding is monotone, so that moving and picking may come before it or after it."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable

from ...core.graph import Graph
from ...core.node import Node, Value
from ...core.precision import Policy
from .bodies import Bodies
from .constants import Constants
from .origins import WIDE, is_cast, is_follower, moved_operands
from .placement import RULE, convert_p


class CastMotion:
    """One run over a program; values that are cast wait in a queue until nothing about their casts can be improved.

    Args:
      policy: says which operations follow.
      constants: of the program, and the small type.
    """

    def __init__(self, policy: Policy, constants: Constants) -> None:
        self.policy = policy
        self.constants = constants
        self.small = constants.dtype
        self.changed = False
        self._params = {"new_dtype": self.small, "weak_type": False, "sharding": None}
        self._pending: collections.deque[tuple[Graph, Value]] = collections.deque()
        self._queued: set[Value] = set()

    def run(self, root: Graph) -> bool:
        """Moves every cast as far as it goes; returns whether any moved."""
        self.bodies = Bodies(root)
        for graph in self.bodies.graphs:
            for node in graph.nodes():
                if is_cast(node, WIDE, self.small):
                    self._enqueue(graph, node.inputs[0])
        while self._pending:
            graph, value = self._pending.popleft()
            self._queued.discard(value)
            self._improve(graph, value)
        return self.changed

    def _enqueue(self, graph: Graph, value: Value) -> None:
        if value not in self._queued:
            self._queued.add(value)
            self._pending.append((graph, value))

    def _improve(self, graph: Graph, value: Value) -> None:
        casts = self._casts(value)
        if not casts:
            return
        if value.is_const:
            self._replace(graph, casts, self.constants.put(graph, value))
        elif value.producer is not None and is_cast(value.producer, self.small, WIDE):
            self._replace(graph, casts, value.producer.inputs[0])
        else:
            cast = self._merged(graph, value, casts)
            if len(value.uses) != 1:  # something wants it in float32
                return
            if value.producer is not None:
                self._move_up(graph, cast, value.producer)
            elif value.const is None:
                self._move_out(graph, value)

    def _casts(self, value: Value) -> list[Node]:
        return [user for user in value.users if is_cast(user, WIDE, self.small)]

    def _replace(self, graph: Graph, casts: Iterable[Node], new: Value) -> None:
        self.changed = True
        for cast in casts:
            graph.replace(cast.outputs[0], new)
            graph.erase_dead(cast)

    def _merged(self, graph: Graph, value: Value, casts: list[Node]) -> Node:
        """The one cast of a value, where the value is computed when there were several."""
        if len(casts) == 1:
            return casts[0]
        (one,) = graph.emit(convert_p, [value], self._params, before=graph.after(value), rule=RULE)
        self._replace(graph, casts, one)
        assert one.producer is not None
        return one.producer

    def _pays(self, graph: Graph, node: Node) -> bool:
        """Whether no more elements are rounded in front of ``node`` than behind it."""
        runtime = [value for value in moved_operands(node) if not self._is_held(graph, value)]
        sizes = [value.shape for value in (*runtime, *node.outputs)]
        if not all(isinstance(size, int) for shape in sizes for size in shape):
            return len(runtime) <= 1 or node.name == "concatenate"
        return bool(sum(math.prod(value.shape) for value in runtime) <= math.prod(node.outputs[0].shape))

    def _is_held(self, graph: Graph, value: Value) -> bool:
        """Whether a cast of ``value`` costs nothing: it is a constant, or given to a loop that only wants it small."""
        if value.is_const:
            return True
        if value.producer is not None or value.const is not None:
            return False
        bindings = self.bodies.bindings(graph, value.index)
        if not bindings or not all(binding.invariant for binding in bindings):
            return False
        return all(is_cast(user, WIDE, self.small) or self._is_wanted_small(user) for user, _ in value.uses)

    def _is_wanted_small(self, node: Node) -> bool:
        if not is_follower(self.policy, node):
            return False
        return all(is_cast(user, WIDE, self.small) for user, _ in node.outputs[0].uses)

    def _move_up(self, graph: Graph, cast: Node, node: Node) -> None:
        """Rounds what ``node`` moves in place of its result, where that is no more."""
        if not is_follower(self.policy, node) or not self._pays(graph, node):
            return
        moved, inputs = moved_operands(node), list(node.inputs)
        for index, operand in enumerate(inputs):
            if operand.dtype == WIDE:
                (inputs[index],) = graph.emit(convert_p, [operand], self._params, before=node, rule=RULE)
        (new,) = graph.emit(node.primitive, inputs, node.params, before=node, rule=RULE)
        self._replace(graph, [cast], new)
        for operand in moved:
            self._enqueue(graph, operand)

    def _move_out(self, graph: Graph, value: Value) -> None:
        """Gives a body's input the small type, where all that its readers, here and in other branches, want is that."""
        inputs = self.bodies.joined(graph, value.index)
        if inputs is None:
            return
        operands = {}
        for region, index in inputs:
            readers = region.inputs[index].uses
            if not all(is_cast(node, WIDE, self.small) for node, _ in readers):
                return
            for binding in self.bodies.bindings(region, index) or ():
                operands[binding.node, binding.index] = binding.graph
        for region, index in inputs:
            casts = self._casts(region.inputs[index])
            aval = region.inputs[index].aval.update(dtype=self.small, weak_type=False)
            self._replace(region, casts, region.retype_input(index, aval))
        for (node, index), outer in operands.items():
            operand = node.inputs[index]
            (small,) = outer.emit(convert_p, [operand], self._params, before=node, rule=RULE)
            outer.set_operand(node, index, small)
            self._enqueue(outer, operand)
