"""scan, while and cond as ONNX Scan, Loop and If."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from jax import lax

from ....core import _compat
from .. import dims
from ..context import Context
from ..equation import as_array
from ..operand import Operand, constant, inner_shape, stored_type
from ..registry import lowers
from .shape import reshape_to, typed

_T = ir.DataType


def _formal(ctx: Context, name: str, aval: Any) -> tuple[ir.Value, Operand]:
    """A graph input of a body, and the operand it stands for."""
    shape = tuple(aval.shape)
    spec = [dims.spec(d) for d in (*shape, *inner_shape(aval.dtype))]
    value = ctx.build.input(name, stored_type(aval.dtype), spec)
    return value, ctx.result(value, typed(shape, aval.dtype))


def _element(aval: Any) -> Any:
    """The type of one item along the first axis."""
    return typed(tuple(aval.shape)[1:], aval.dtype)


@lowers("scan")
def scan(ctx: Context, eqn: Any, *operands: Operand) -> list[Any]:
    params = eqn.params
    closed, reverse, length = params["jaxpr"], params["reverse"], params["length"]
    many_consts, many_carry = _compat.scan_sizes(params)
    consts = operands[:many_consts]
    carry = operands[many_consts : many_consts + many_carry]
    xs = operands[many_consts + many_carry :]
    if isinstance(length, int) and length <= 1:
        return _short_scan(ctx, eqn, consts, carry, xs)
    needed = _needed_outputs(closed.jaxpr, many_consts, many_carry, eqn.wanted)
    keep = [k for k in range(many_carry) if needed[k]]
    used = _used_inputs(closed.jaxpr, needed)
    kept_xs = [k for k in range(len(xs)) if used[many_consts + many_carry + k]]
    wanted_ys = [k for k in range(len(eqn.avals) - many_carry) if eqn.wanted[many_carry + k]]
    if not keep and not wanted_ys:
        return [ctx.stand_in(a) for a in eqn.avals]
    call = _ScanCall(ctx, eqn, closed, consts, carry, xs, keep, kept_xs, wanted_ys, needed)
    values = call.as_scan(reverse) if kept_xs else call.as_loop(reverse, length)
    results: list[Any] = [ctx.stand_in(a) if not w else None for a, w in zip(eqn.avals, eqn.wanted, strict=True)]
    for k, value in zip([*keep, *(many_carry + k for k in wanted_ys)], values, strict=True):
        results[k] = ctx.result(value, typed(tuple(eqn.avals[k].shape), eqn.avals[k].dtype))
    return results


class _ScanCall:
    """One scan with what its unused parts leave over."""

    def __init__(
        self,
        ctx: Context,
        eqn: Any,
        closed: Any,
        consts: Sequence[Operand],
        carry: Sequence[Operand],
        xs: Sequence[Operand],
        keep: list[int],
        kept_xs: list[int],
        wanted_ys: list[int],
        needed: list[bool],
    ) -> None:
        self.ctx, self.eqn, self.closed = ctx, eqn, closed
        self.consts, self.carry, self.xs = consts, carry, xs
        self.keep, self.kept_xs, self.wanted_ys, self.needed = keep, kept_xs, wanted_ys, needed

    def _body(self, states: Sequence[Operand], items: dict[int, Operand]) -> list[ir.Value]:
        ctx, jaxpr = self.ctx, self.closed.jaxpr
        many = len(self.carry)
        state_of = dict(zip(self.keep, states, strict=True))
        inputs = list(self.consts)
        for k, var in enumerate(jaxpr.invars[len(self.consts) :]):
            operand = state_of.get(k) if k < many else items.get(k - many)
            inputs.append(ctx.stand_in(var.aval) if operand is None else operand)
        body_consts = [constant(as_array(c)) for c in self.closed.consts]
        results = ctx.lower_jaxpr(jaxpr, body_consts, inputs, self.needed)
        order = [*self.keep, *(many + k for k in self.wanted_ys)]
        return [ctx.full(results[k]) for k in order]

    def as_scan(self, reverse: bool) -> Any:
        """An ONNX Scan: same carries, same items, in either direction."""
        ctx, closed = self.ctx, self.closed
        first = len(self.consts) + len(self.carry)
        formals, states, items = [], [], {}
        for k in self.keep:
            value, operand = _formal(ctx, "carry", closed.jaxpr.invars[len(self.consts) + k].aval)
            formals.append(value)
            states.append(operand)
        for k in self.kept_xs:
            value, items[k] = _formal(ctx, "item", closed.jaxpr.invars[first + k].aval)
            formals.append(value)
        with ctx.build.body() as nodes:
            outputs = self._body(states, items)
        body = ctx.build.graph("scan", formals, outputs, nodes)
        direction = int(bool(reverse))
        result = ctx.outputs(
            "Scan",
            *(ctx.full(self.carry[k]) for k in self.keep),
            *(ctx.full(self.xs[k]) for k in self.kept_xs),
            n=len(outputs),
            to=tuple(v.dtype for v in outputs),
            typed=(),
            body=body,
            num_scan_inputs=len(self.kept_xs),
            **(
                {
                    "scan_input_directions": [direction] * len(self.kept_xs),
                    "scan_output_directions": [direction] * len(self.wanted_ys),
                }
                if reverse
                else {}
            ),
        )
        return result

    def as_loop(self, reverse: bool, length: Any) -> Any:
        """An ONNX Loop with a trip count, for a scan over nothing."""
        ctx = self.ctx
        formals, states = [], []
        for k in self.keep:
            value, operand = _formal(ctx, "carry", self.closed.jaxpr.invars[len(self.consts) + k].aval)
            formals.append(value)
            states.append(operand)
        step = ctx.build.input("step", _T.INT64, [])
        alive = ctx.build.input("alive", _T.BOOL, [])
        with ctx.build.body() as nodes:
            outputs = self._body(states, {})
        body = ctx.build.graph("loop", [step, alive, *formals], [alive, *outputs], nodes)
        result = list(
            ctx.outputs(
                "Loop",
                ctx.dim_scalar(length),
                None if self.keep else ctx.const(True),
                *(ctx.full(self.carry[k]) for k in self.keep),
                n=len(outputs),
                to=tuple(v.dtype for v in outputs),
                typed=(),
                body=body,
            )
        )
        if reverse:
            for k in range(len(self.keep), len(result)):
                low = ctx.ints(np.iinfo(np.int64).min)
                result[k] = ctx.op("Slice", result[k], ctx.ints(-1), low, ctx.ints(0), ctx.ints(-1), typed=(0,))
        return result


def _short_scan(ctx: Context, eqn: Any, consts: Any, carry: Any, xs: Any) -> list[Any]:
    """A scan of no step keeps its carries; one of a single step is its body."""
    many = len(carry)
    if eqn.params["length"] == 0:
        empty = [constant(np.zeros((), stored_like(a)), tuple(a.shape)) for a in eqn.avals[many:]]
        return [*carry, *empty]
    items = [reshape_to(ctx, _element(typed(x.shape, x.dtype)), x) for x in xs]
    results = ctx.lower_closed(eqn.params["jaxpr"], [*consts, *carry, *items], eqn.wanted)
    final: list[Any] = []
    for k, (result, aval) in enumerate(zip(results, eqn.avals, strict=True)):
        if result is None:
            final.append(ctx.stand_in(aval))
        else:
            final.append(result if k < many else reshape_to(ctx, aval, result))
    return final


def stored_like(aval: Any) -> Any:
    """The dtype of an array of no elements that stands for ``aval``."""
    return aval.dtype


def _needed_outputs(jaxpr: Any, many_consts: int, many_carry: int, wanted: Sequence[bool]) -> list[bool]:
    """Which outputs of the body matter: those wanted outside, and the carries they depend on from step to step."""
    needed = list(wanted)
    while True:
        used = _used_inputs(jaxpr, needed)
        more = [n or used[many_consts + k] for k, n in enumerate(needed[:many_carry])] + needed[many_carry:]
        if more == needed:
            return needed
        needed = more


def _used_inputs(jaxpr: Any, needed: Sequence[bool]) -> list[bool]:
    live = {id(v) for v, want in zip(jaxpr.outvars, needed, strict=True) if want}
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(id(v) in live for v in eqn.outvars):
            live.update(id(v) for v in eqn.invars)
    return [id(v) in live for v in jaxpr.invars]


@lowers("while")
def while_(ctx: Context, eqn: Any, *operands: Operand) -> list[Any]:
    """An ONNX Loop without a trip count: the condition is computed before it and at the end of every step."""
    params = eqn.params
    cond, body = params["cond_jaxpr"], params["body_jaxpr"]
    many_cond, many_body = params["cond_nconsts"], params["body_nconsts"]
    cond_consts, body_consts = operands[:many_cond], operands[many_cond : many_cond + many_body]
    carry = operands[many_cond + many_body :]
    formals, states = [], []
    for var in body.jaxpr.invars[many_body:]:
        value, operand = _formal(ctx, "carry", var.aval)
        formals.append(value)
        states.append(operand)
    first = _any(ctx, ctx.lower_closed(cond, [*cond_consts, *carry])[0])
    step, alive = ctx.build.input("step", _T.INT64, []), ctx.build.input("alive", _T.BOOL, [])
    with ctx.build.body() as nodes:
        new = ctx.lower_closed(body, [*body_consts, *states])
        if cond.jaxpr.outvars[0].aval.shape:
            going = ctx.lower_closed(cond, [*cond_consts, *states])[0]
            new = [_keep_finished(ctx, going, a, b) for a, b in zip(new, states, strict=True)]
        again = _any(ctx, ctx.lower_closed(cond, [*cond_consts, *new])[0])
        outputs = [ctx.full(x) for x in new]
    graph = ctx.build.graph("while", [step, alive, *formals], [again, *outputs], nodes)
    if not outputs:
        return []
    result = ctx.outputs(
        "Loop",
        None,
        first,
        *(ctx.full(x) for x in carry),
        n=len(outputs),
        to=tuple(v.dtype for v in outputs),
        typed=(),
        body=graph,
    )
    return [ctx.result(v, typed(tuple(a.shape), a.dtype)) for v, a in zip(result, eqn.avals, strict=True)]


def _any(ctx: Context, test: Operand) -> ir.Value:
    """Whether any element of a batched condition holds."""
    if any(d == 0 for d in test.shape if isinstance(d, int)):
        return ctx.const(np.asarray(False))  # the kernel has no value for no elements
    value = ctx.full(test)
    return value if not test.shape else ctx.op("ReduceMax", value, keepdims=0, typed=(0,))


def _keep_finished(ctx: Context, going: Operand, new: Operand, old: Operand) -> Operand:
    """Elements of a batch whose own condition no longer holds keep their value."""

    def select(test: Any, a: Any, b: Any) -> Any:
        test = lax.broadcast_in_dim(test, a.shape, range(test.ndim))
        return lax.select(test, a, b)

    return ctx.trace_and_lower(select, going, new, old)[0]


@lowers("cond")
def cond(ctx: Context, eqn: Any, which: Operand, *operands: Operand) -> list[Any]:
    """Nested Ifs on the clamped branch number."""
    branches = eqn.params["branches"]
    if which.scalar is not None:
        chosen = min(max(int(which.scalar), 0), len(branches) - 1)
        results = ctx.lower_closed(branches[chosen], operands, eqn.wanted)
        return [ctx.stand_in(a) if r is None else r for r, a in zip(results, eqn.avals, strict=True)]
    if len(branches) == 1 or not any(eqn.wanted):
        results = ctx.lower_closed(branches[0], operands, eqn.wanted)
        return [ctx.stand_in(a) if r is None else r for r, a in zip(results, eqn.avals, strict=True)]
    values = _choose(ctx, eqn, which, list(branches), operands, 0)
    results = []
    position = 0
    for aval, wanted in zip(eqn.avals, eqn.wanted, strict=True):
        if not wanted:
            results.append(ctx.stand_in(aval))
            continue
        results.append(ctx.result(values[position], typed(tuple(aval.shape), aval.dtype)))
        position += 1
    return results


def _choose(ctx: Context, eqn: Any, which: Operand, branches: list[Any], operands: Any, first: int) -> Any:
    """An If between the first branch and the rest."""
    value = ctx.value(which)
    if which.dtype == np.bool_:
        test = ctx.op("Not", value)
    elif len(branches) == 2 and first == 0 and which.bounds == (0, 1) and (made := _boolean_origin(value)) is not None:
        return _if(ctx, eqn, made, branches[1], branches[0], operands)
    else:
        test = ctx.op("LessOrEqual", value, ctx.const(first, which.dtype), to=_T.BOOL)
    if len(branches) == 2:
        return _if(ctx, eqn, test, branches[0], branches[1], operands)
    with ctx.build.body() as nodes:
        outputs = _branch(ctx, eqn, branches[0], operands)
    yes = ctx.build.graph("branch", [], outputs, nodes)
    with ctx.build.body() as nodes:
        outputs = list(_choose(ctx, eqn, which, branches[1:], operands, first + 1))
    no = ctx.build.graph("branch", [], outputs, nodes)
    return _emit_if(ctx, test, yes, no, outputs)


def _boolean_origin(value: ir.Value) -> ir.Value | None:
    """The boolean that an integer was cast from."""
    node = value.producer()
    if node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
        source = node.inputs[0]
        return source if source.dtype == _T.BOOL else None
    return None


def _branch(ctx: Context, eqn: Any, closed: Any, operands: Any) -> list[ir.Value]:
    results = ctx.lower_closed(closed, operands, eqn.wanted)
    return [ctx.full(r) for r in results if r is not None]


def _if(ctx: Context, eqn: Any, test: ir.Value, yes: Any, no: Any, operands: Any) -> Any:
    graphs = []
    outputs: list[ir.Value] = []
    for branch in (yes, no):
        with ctx.build.body() as nodes:
            outputs = _branch(ctx, eqn, branch, operands)
        graphs.append(ctx.build.graph("branch", [], outputs, nodes))
    return _emit_if(ctx, test, graphs[0], graphs[1], outputs)


def _emit_if(ctx: Context, test: ir.Value, yes: ir.Graph, no: ir.Graph, outputs: list[ir.Value]) -> Any:
    result = ctx.outputs(
        "If",
        test,
        n=len(outputs),
        to=tuple(v.dtype for v in outputs),
        typed=(),
        then_branch=yes,
        else_branch=no,
    )
    return result
