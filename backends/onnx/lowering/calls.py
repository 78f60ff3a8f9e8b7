"""Calls: opened in place, since ONNX needs no function where the body is known."""

from __future__ import annotations

from typing import Any

from jax.extend import core as jex_core

from ....core import _compat
from ..context import Context
from ..operand import Operand, constant
from ..registry import Refusal, lowers, refuses


def _inline(ctx: Context, eqn: Any, body: Any, operands: Any) -> list[Any]:
    if isinstance(body, jex_core.ClosedJaxpr):
        results = ctx.lower_closed(body, operands, eqn.wanted)
    else:
        results = ctx.lower_jaxpr(body, [], operands, eqn.wanted)
    return [ctx.stand_in(a) if r is None else r for r, a in zip(results, eqn.avals, strict=True)]


@lowers(
    "jit",
    "pjit",
    "closed_call",
    "eval_jaxpr",
    "core_call",
    "call",
    "remat",
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "run_state",
    "xla_call",
)
def call(ctx: Context, eqn: Any, *operands: Operand) -> list[Any]:
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in eqn.params:
            return _inline(ctx, eqn, eqn.params[name], operands)
    raise Refusal("the call carries no body")


@lowers("composite")
def composite(ctx: Context, eqn: Any, *operands: Operand) -> list[Any]:
    """A whole ONNX operator where the runtime has it for these types, else the decomposition."""
    from .composites import whole

    results = whole(ctx, eqn, operands)
    return _inline(ctx, eqn, _compat.composite_body(eqn.params), operands) if results is None else results


@lowers("custom_linear_solve")
def linear_solve(ctx: Context, eqn: Any, *operands: Operand) -> list[Any]:
    """Only the solver runs; the products serve derivatives, which have been taken already."""
    lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    before = lengths.matvec + lengths.vecmat
    consts = operands[before : before + lengths.solve]
    rest = operands[before + lengths.solve + lengths.transpose_solve :]
    return _inline(ctx, eqn, jaxprs.solve, (*consts, *rest))


@lowers("copy", "copy_p", "stop_gradient", "optimization_barrier", "name", "reduced_vary_cast", "pvary", "cond_copy")
def identity(ctx: Context, eqn: Any, *operands: Operand) -> list[Operand]:
    return list(operands)


@lowers("device_put", "sharding_constraint", "mesh_cast", "reshard", "layout_constraint")
def placement(ctx: Context, eqn: Any, *operands: Operand) -> list[Operand]:
    """Placement on a single device says nothing about values."""
    return list(operands)


@lowers("create_token", "after_all")
def token(ctx: Context, eqn: Any, *operands: Operand) -> Operand:
    import numpy as np

    return constant(np.zeros((), bool))


@lowers("empty", "empty2")
def empty(ctx: Context, eqn: Any, *operands: Operand) -> Operand:
    import numpy as np

    return constant(np.zeros((), eqn.aval.dtype), tuple(eqn.aval.shape))


refuses(
    "pure_callback",
    "io_callback",
    "debug_callback",
    "debug_print",
    "outside_call",
    "python_callback",
    reason="it calls back into Python, which a file cannot",
)
refuses("pallas_call", "custom_partitioning", "triton_kernel_call", reason="it is a kernel for one accelerator")
refuses("ffi_call", reason="it calls a compiled library, which a file cannot hold")
refuses("get", "swap", "addupdate", "ref_get", "ref_set", reason="mutable references have no ONNX form")
