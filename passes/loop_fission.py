"""`loop-fission`: what the steps of a scan compute apart from one another is computed for all steps at once.

A recurrent layer multiplies each input by its weights, and each state by others. Only the second product has to wait
for the step before. The first one for all steps together reads the weights once instead of once a step, and is a
product of matrices instead of one of a vector. In the same way an output layer inside the loop moves behind it.

Loop distribution, or fission: R. Allen and K. Kennedy, "Optimizing Compilers for Modern Architectures", 2001, chapter
5; for recurrent networks, J. Appleyard, T. Kociský and P. Blunsom, "Optimizing Performance of Recurrent Neural Networks
on GPUs", 2016.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jax import lax
from jax.extend import core as jex_core

from ..core import _compat
from ..core.graph import Graph
from ..core.node import Node
from ..core.pass_ import GraphPass, PassContext
from ..core.primitives import ELEMENTWISE
from ..core.rewrite import Numerics

PRODUCTS = frozenset({"dot_general", "conv_general_dilated"})

MAPPED = PRODUCTS | ELEMENTWISE | {
    "broadcast_in_dim", "concatenate", "expand_dims", "pad", "reduce_max", "reduce_min", "reduce_prod", "reduce_sum",
    "reshape", "rev", "slice", "split", "squeeze", "transpose",
}  # fmt: skip
"""What is moved: primitives that work on many steps as well as on one."""

MOST_ROWS = 64
"""A product of so many rows makes good use of its weights in every single step."""

MOST_BYTES = 2**27
"""What is computed for all steps at once takes memory for all steps."""


@dataclasses.dataclass(frozen=True)
class LoopFission(GraphPass):
    """Moves products with weights, and what belongs to them, out of scans: before them or behind them.

    Attributes:
      max_bytes: the most memory that the moved values of one scan may take for all of its steps.
    """

    max_bytes: int = MOST_BYTES

    name: ClassVar[str] = "loop-fission"
    numerics: ClassVar[Numerics] = "reassociating"

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Splits the scans of every region, inner ones first; what was moved is reported as ``scans``."""
        found = []
        for region in graph.walk():
            for node in region.nodes():
                parts = split(node, self.max_bytes) if node.alive else None
                if parts is not None:
                    found.append({"where": node.where, "before": len(parts.before), "behind": len(parts.behind)})
                    _replace(region, node, parts)
        context.details["scans"] = found
        return bool(found)


@dataclasses.dataclass(frozen=True)
class Parts:
    """The equations of a scan's body, by when they run.

    Attributes:
      fixed: the same in every step; what the other parts need of them, each computes for itself.
      before: for all steps at once, before the loop.
      within: step by step.
      behind: for all steps at once, after the loop.
    """

    fixed: list[Any]
    before: list[Any]
    within: list[Any]
    behind: list[Any]


def split(node: Node, max_bytes: int = MOST_BYTES) -> Parts | None:
    """How to split a scan; None where it is no scan, or nothing is to be gained."""
    if node.name != "scan" or ("jaxpr", None) not in node.regions:
        return None
    length = node.params["length"]
    jaxpr = node.regions["jaxpr", None].to_closed().jaxpr
    if not isinstance(length, int) or length < 2 or _compat.has_reference_effects(jaxpr):
        return None
    body = _Body(jaxpr, *_compat.scan_sizes(node.params))
    before = body.ahead(length, max_bytes)
    behind = body.late(before, length, max_bytes)
    if not before and not behind:
        return None
    gone = set(map(id, (*before, *behind)))
    return Parts(body.fixed, before, [eqn for eqn in jaxpr.eqns if id(eqn) not in gone], behind)


class _Body:
    """What the values of a scan's body depend on.

    Attributes:
      fixed: equations whose results are the same in every step.
      constant: variables that are; those of ``fixed`` among them.
      apart: variables that each step has by itself, without the step before.
    """

    def __init__(self, jaxpr: jex_core.Jaxpr, consts: int, carries: int) -> None:
        self.jaxpr = jaxpr
        self.carries = carries
        self.constant: set[Any] = {*jaxpr.constvars, *jaxpr.invars[:consts]}
        self.apart: set[Any] = set(jaxpr.invars[consts + carries :])
        self.fixed: list[Any] = []
        for eqn in jaxpr.eqns:
            variables = _variables(eqn.invars)
            if not _can_move(eqn) or not variables <= self.constant | self.apart:
                continue
            if variables <= self.constant:
                self.fixed.append(eqn)
                self.constant.update(eqn.outvars)
            else:
                self.apart.update(eqn.outvars)

    def ahead(self, length: int, max_bytes: int) -> list[Any]:
        """What to compute before the loop: products of what each step has by itself, what they need, what follows."""
        movable = [eqn for eqn in self.jaxpr.eqns if eqn.outvars and self.apart.issuperset(eqn.outvars)]
        chosen = self._with_neighbours(movable)
        return chosen if length * _bytes(_made(chosen)) <= max_bytes else []

    def late(self, before: Sequence[Any], length: int, max_bytes: int) -> list[Any]:
        """What to compute after the loop: products that no later step waits for, and what follows from them."""
        awaited: set[Any] = _variables(self.jaxpr.outvars[: self.carries])
        taken = set(map(id, (*before, *self.fixed)))
        movable: list[Any] = []
        for eqn in reversed(self.jaxpr.eqns):
            if awaited.isdisjoint(eqn.outvars) and _can_move(eqn) and id(eqn) not in taken:
                movable.append(eqn)
            elif id(eqn) not in taken:
                awaited |= _variables(eqn.invars)
        movable.reverse()
        chosen = _downstream(movable, [eqn for eqn in movable if self._gains(eqn)])
        held = _made(chosen) | (_read(chosen) - self.constant)
        return chosen if length * _bytes(held) <= max_bytes else []

    def _with_neighbours(self, movable: Sequence[Any]) -> list[Any]:
        """Of the movable equations, products that gain, what they are computed from, and what is computed from them."""
        chosen = _downstream(movable, [eqn for eqn in movable if self._gains(eqn)])
        needed: set[Any] = set()
        ids = set(map(id, chosen))
        for eqn in reversed(movable):
            if id(eqn) in ids or not needed.isdisjoint(eqn.outvars):
                ids.add(id(eqn))
                needed |= _variables(eqn.invars)
        return [eqn for eqn in movable if id(eqn) in ids]

    def _gains(self, eqn: Any) -> bool:
        """Whether it is a product of few rows with weights that are the same in every step."""
        if eqn.primitive.name not in PRODUCTS:
            return False
        left, right = (isinstance(v, jex_core.Literal) or v in self.constant for v in eqn.invars)
        if eqn.primitive.name == "conv_general_dilated":
            return right and not left and _convolution_rows(eqn) <= MOST_ROWS
        return left != right and _rows(eqn, 1 if left else 0) <= MOST_ROWS


def _can_move(eqn: Any) -> bool:
    """Whether it works on the arrays of many steps as on one: known sizes, no random keys, no effects."""
    arrays = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    known = all(isinstance(a.dtype, np.dtype) and all(isinstance(size, int) for size in a.shape) for a in arrays)
    return known and eqn.primitive.name in MAPPED and not eqn.effects


def _variables(atoms: Iterable[Any]) -> set[Any]:
    return {atom for atom in atoms if not isinstance(atom, jex_core.Literal)}


def _rows(eqn: Any, side: int) -> int:
    """How many rows of the operand at ``side`` each matrix of the other one multiplies."""
    contract, batch = eqn.params["dimension_numbers"]
    shape = eqn.invars[side].aval.shape
    inner = {*contract[side], *batch[side]}
    return math.prod(size for axis, size in enumerate(shape) if axis not in inner)


def _convolution_rows(eqn: Any) -> int:
    feature = eqn.params["dimension_numbers"].out_spec[1]
    return math.prod(size for axis, size in enumerate(eqn.outvars[0].aval.shape) if axis != feature)


def _downstream(movable: Sequence[Any], seeds: Sequence[Any]) -> list[Any]:
    """The ``seeds`` and those of the ``movable`` equations that read, directly or not, what they compute."""
    ids, computed, found = set(map(id, seeds)), set[Any](), []
    for eqn in movable:
        if id(eqn) in ids or not computed.isdisjoint(_variables(eqn.invars)):
            computed.update(eqn.outvars)
            found.append(eqn)
    return found


def _made(eqns: Iterable[Any]) -> set[Any]:
    return {v for eqn in eqns for v in eqn.outvars}


def _read(eqns: Iterable[Any]) -> set[Any]:
    return {v for eqn in eqns for v in _variables(eqn.invars)}


def _bytes(variables: Iterable[Any]) -> int:
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in variables)


def _replace(graph: Graph, node: Node, parts: Parts) -> None:
    """Puts in the place of a scan what runs before it, what is left of it, and what runs behind it."""
    closed = node.regions["jaxpr", None].to_closed()
    results = graph.splice(_split_scan(node, closed, parts), *node.inputs, before=node, rule="loop-fission")
    for old, new in zip(node.outputs, results, strict=True):
        graph.replace(old, new)
    graph.erase(node)


def _split_scan(node: Node, closed: jex_core.ClosedJaxpr, parts: Parts) -> Callable[..., list[Any]]:
    """The scan as a function of its operands."""
    consts, carries = _compat.scan_sizes(node.params)
    inputs, outputs = closed.jaxpr.invars, closed.jaxpr.outvars
    fixed, state, slices = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
    results = outputs[carries:]
    # What is there for all steps without the loop, and what only is after it.
    at_once = [*slices, *_in_order(_made(parts.before), closed)]
    late = _made(parts.behind)
    read_late = _read(parts.behind) - late
    from_loop = {*state, *_made(parts.within)} - _made(parts.fixed)
    yielded = _unlike([*results, *_in_order(read_late & from_loop, closed, state)], {*at_once, *late})
    read_within = _read(parts.within) | _variables((*outputs[:carries], *yielded))
    steps = [v for v in at_once if v in read_within]

    def run(*operands: Any) -> list[Any]:
        own = dict(zip(fixed, operands[:consts], strict=True))
        every = dict(zip(slices, operands[consts + carries :], strict=True))
        wanted = [v for v in at_once if v not in every and v in {*steps, *read_late, *_variables(results)}]
        every |= _for_all_steps(closed, [*parts.fixed, *parts.before], wanted, own, every)

        def step(carry: tuple[Any, ...], now: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[Any]]:
            values = own | dict(zip(state, carry, strict=True)) | dict(zip(steps, now, strict=True))
            outcome = _evaluate(closed, parts.within, [*outputs[:carries], *yielded], values)
            return tuple(outcome[:carries]), outcome[carries:]

        last, stacked = lax.scan(
            step,
            tuple(operands[consts : consts + carries]),
            tuple(every[v] for v in steps),
            length=node.params["length"],
            reverse=node.params["reverse"],
            unroll=node.params["unroll"],
        )
        every |= {_key(atom): array for atom, array in zip(yielded, stacked, strict=True)}
        wanted = _in_order(late & _variables(results), closed)
        every |= _for_all_steps(closed, [*parts.fixed, *parts.behind], wanted, own, every)
        return [*last, *(every[_key(atom)] for atom in results)]

    return run


def _in_order(variables: set[Any], closed: jex_core.ClosedJaxpr, first: Sequence[Any] = ()) -> list[Any]:
    """Those of ``variables`` that the body computes, in its order, after those in ``first``."""
    made = (v for eqn in closed.jaxpr.eqns for v in eqn.outvars)
    return [v for v in (*first, *made) if v in variables]


def _key(atom: Any) -> Any:
    """A literal by its identity, since JAX's cannot be hashed."""
    return id(atom) if isinstance(atom, jex_core.Literal) else atom


def _unlike(atoms: Sequence[Any], variables: set[Any]) -> list[Any]:
    """The ``atoms`` that are none of the variables, each once."""
    return list({_key(atom): atom for atom in atoms if _key(atom) not in variables}.values())


def _for_all_steps(
    closed: jex_core.ClosedJaxpr,
    eqns: Sequence[Any],
    wanted: Sequence[Any],
    own: dict[Any, Any],
    every: dict[Any, Any],
) -> dict[Any, Any]:
    """What the equations make of ``own`` values, the same for all steps, and of those of ``every`` step: `wanted`."""
    if not wanted:
        return {}
    read = _read(eqns)
    mapped = [v for v in every if v in read]

    def once(*values: Any) -> list[Any]:
        return _evaluate(closed, eqns, wanted, own | dict(zip(mapped, values, strict=True)))

    return dict(zip(wanted, jax.vmap(once)(*(every[v] for v in mapped)), strict=True))


def _evaluate(
    closed: jex_core.ClosedJaxpr, eqns: Sequence[Any], wanted: Sequence[Any], values: dict[Any, Any]
) -> list[Any]:
    old = closed.jaxpr
    part = jex_core.Jaxpr(
        old.constvars, list(values), list(wanted), list(eqns), old.effects, old.debug_info.with_unknown_names()
    )
    results: list[Any] = _compat.eval_jaxpr(part, closed.consts, *values.values())
    return results
