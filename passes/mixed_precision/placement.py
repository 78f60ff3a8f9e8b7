"""Putting operations in the small type, one by one, each between casts of its own; `motion` moves these afterwards."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex_core

from ...core import _compat
from ...core.backend import operation_of
from ...core.graph import Graph
from ...core.node import REGION_PARAMS, Node, Value
from ...core.pass_ import PassContext
from ...core.precision import Candidate, Policy, Treatment
from .bodies import Bodies
from .constants import Constants
from .operands import is_plain, plain_product
from .origins import WIDE, Origins

RULE = "mixed-precision"
"""Recorded as the maker of what the pass puts into a program."""

convert_p = jex_core.primitives.convert_element_type_p

USUAL_PRECISIONS = (None, lax.Precision.DEFAULT)
"""Any other ``precision`` of a product was asked for by someone who needs the digits."""


@dataclasses.dataclass(frozen=True)
class Found:
    """An operation that the policy wants in the small type, unless its check declines."""

    graph: Graph
    node: Node
    row: Treatment
    operands: tuple[int, ...]


class Placement:
    """One run over a program.

    Args:
      policy: what goes where.
      constants: of the program, and the small type.
      context: of the pass; its ``details`` hear what was done, and why the rest was not.
      kept_scopes: patterns of the names of scopes in which everything stays as it is.
      whole: operations that are parts of what stays as it is.
    """

    def __init__(
        self,
        policy: Policy,
        constants: Constants,
        context: PassContext,
        kept_scopes: Sequence[str] = (),
        whole: Collection[Node] = (),
    ) -> None:
        self.policy = policy
        self.constants = constants
        self.small = constants.dtype
        self.context = context
        self.kept_scopes = kept_scopes
        self.whole = whole

    def run(self, root: Graph) -> bool:
        """Places what is in ``root`` and below it; returns whether anything changed."""
        changed, places = False, [root]
        while places:
            placed = [self._place(one) for one in self._choose(root, places)]
            changed |= bool(placed)
            # The bodies of composites are made anew, and what stands in them is then placed in its turn.
            places = [region for node in placed if node.name == "composite" for region in node.regions.values()]
        return changed

    def _choose(self, root: Graph, places: Sequence[Graph]) -> list[Found]:
        origins = Origins(self.policy, Bodies(root), self.constants)
        found = [one for graph in self._regions(places) for one in self._find(graph, origins)]
        readers = collections.Counter(one.node.inputs[i] for one in found for i in set(one.operands))
        chosen = []
        for one in found:
            reason = self._why_slower(one, origins, readers)
            if reason is None:
                chosen.append(one)
            else:
                self._keep(one.node, reason)
        return chosen

    def _regions(self, places: Sequence[Graph]) -> Iterator[Graph]:
        """``places`` and the bodies below, but for those of composites with a row: they are kept, or made anew."""
        pending, seen = list(places), set(map(id, places))
        while pending:
            graph = pending.pop()
            yield graph
            for node in graph.nodes():
                if node.name not in REGION_PARAMS or (node.name == "composite" and self.policy.of(node) is not None):
                    continue
                inner = [region for region in node.regions.values() if id(region) not in seen]
                seen.update(map(id, inner))
                pending.extend(inner)

    def _find(self, graph: Graph, origins: Origins) -> list[Found]:
        """What the policy wants in the small type in one graph, and may have."""
        found: list[Found] = []
        between: list[Found] = []
        for node in graph.nodes():
            row = self.policy.of(node)
            if row is None or row.compute != "small" or node.effects or node in self.whole:
                continue
            wanted = row.operands or tuple(range(len(node.inputs)))
            operands = tuple(i for i in wanted if i < len(node.inputs) and node.inputs[i].dtype == WIDE)
            if not operands:
                continue
            reason = self._why_not(graph, node, operands, origins)
            if reason is not None:
                self._keep(node, reason)
            else:
                (between if row.between else found).append(Found(graph, node, row, operands))
        if not between:
            return found
        anchors = [one.node for one in found]
        inside = _reached(anchors, _readers) & _reached(anchors, _read)
        for one in between:
            if one.node in inside:
                found.append(one)
            else:
                self._keep(one.node, "it does not lie between two others")
        return found

    def _why_not(self, graph: Graph, node: Node, operands: Sequence[int], origins: Origins) -> str | None:
        dtypes = {value.dtype for value in (*node.inputs, *node.outputs) if _is_float(value.dtype)}
        if not dtypes <= {WIDE, self.small} or not all(_is_wide_if_float(v) for v in node.outputs):
            return f"its types are {', '.join(sorted(map(str, dtypes)))}"
        if scope := self._kept_scope(node):
            return f"it stands in {scope}"
        precision = node.params.get("precision")
        parts = precision if isinstance(precision, tuple) else (precision,)
        if not all(part in USUAL_PRECISIONS for part in parts):
            return f"its precision {precision} was asked for"
        return next(filter(None, (origins.why_not(graph, node.inputs[i]) for i in operands)), None)

    def _kept_scope(self, node: Node) -> str | None:
        if not self.kept_scopes or node.source_info is None:
            return None
        stack = _compat.name_stack(node.source_info)
        for scope in self.kept_scopes:
            if any(fnmatch.fnmatchcase(f"/{stack}/", f"*/{scope}{end}") for end in ("/", "/*")):
                return scope
        return None

    def _why_slower(self, one: Found, origins: Origins, readers: Mapping[Value, int]) -> str | None:
        if one.row.check is None:
            return None
        inputs = one.node.inputs
        casts = tuple(i for i in one.operands if not origins.is_free(one.graph, inputs[i]))
        sharing = {i: readers[inputs[i]] for i in casts}
        return one.row.check(Candidate(one.node, self.small, self.context.target, casts, sharing))

    # -- editing -----------------------------------------------------------------------------------------------------

    def _place(self, one: Found) -> Node:
        """Puts the operation between casts; returns what took its place."""
        graph, node = one.graph, one.node
        inputs = list(node.inputs)
        for index in one.operands:
            inputs[index] = self._cast(graph, inputs[index], self.small, node)
        params = node.params
        if node.name == "composite":
            params = {**params, **self._small_body(node, one.operands)}
        elif "preferred_element_type" in params:
            wide = one.row.accumulate == "wide"
            params = {**params, "preferred_element_type": WIDE if wide else None}
        if node.name == "dot_general" and self._multiplies_on_cpu(params) and not is_plain(node):
            static = tuple(params[name] for name in ("dimension_numbers", "precision", "preferred_element_type"))
            results = graph.splice(plain_product, *inputs, before=node, rule=RULE, static=static)
        else:
            results = graph.emit(node.primitive, inputs, params, before=node, rule=RULE)
        for old, new in zip(node.outputs, results, strict=True):
            graph.replace(old, new if new.dtype == old.dtype else self._cast(graph, new, old.dtype, node))
        graph.erase(node)
        counts: dict[str, int] = self.context.details.setdefault("small", {})
        counts[operation_of(node)] = counts.get(operation_of(node), 0) + 1
        made = results[0].producer
        assert made is not None
        return made

    def _multiplies_on_cpu(self, params: Mapping[str, Any]) -> bool:
        """Whether XLA:CPU may run a product, if only to verify it; what is sharded is for other devices."""
        target = self.context.target
        return params.get("out_sharding") is None and (target is None or target.platform != "cuda")

    def _cast(self, graph: Graph, value: Value, dtype: Any, before: Node) -> Value:
        params = {"new_dtype": np.dtype(dtype), "weak_type": False, "sharding": None}
        return graph.emit(convert_p, [value], params, before=before, rule=RULE)[0]

    def _small_body(self, node: Node, operands: Sequence[int]) -> dict[str, Any]:
        """The body of a composite for operands in the small type, with results in it; inside it is as it was."""
        ((key, _),) = node.regions
        closed = node.body.to_closed()

        def run(*args: Any) -> list[Any]:
            own = [x.astype(WIDE) if i in operands else x for i, x in enumerate(args)]
            results = _compat.eval_jaxpr(closed.jaxpr, closed.consts, *own)
            return [y.astype(self.small) if y.dtype == WIDE else y for y in results]

        specs = [
            jax.ShapeDtypeStruct(v.shape, self.small if i in operands else v.dtype, weak_type=v.aval.weak_type)
            for i, v in enumerate(node.inputs)
        ]
        return {key: jax.make_jaxpr(run)(*specs)}

    def _keep(self, node: Node, reason: str) -> None:
        kept: dict[str, int] = self.context.details.setdefault("kept", {}).setdefault(operation_of(node), {})
        kept[reason] = kept.get(reason, 0) + 1


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def _is_wide_if_float(value: Value) -> bool:
    return not _is_float(value.dtype) or value.dtype == WIDE


def _reached(start: Iterable[Node], neighbours: Callable[[Node], Iterable[Node]]) -> set[Node]:
    """The nodes that are reached from others in at least one step."""
    reached: set[Node] = set()
    pending = list(start)
    while pending:
        for node in neighbours(pending.pop()):
            if node not in reached:
                reached.add(node)
                pending.append(node)
    return reached


def _readers(node: Node) -> Iterable[Node]:
    return (user for output in node.outputs for user in output.users)


def _read(node: Node) -> Iterable[Node]:
    return (value.producer for value in node.inputs if value.producer is not None)
