"""From a closed jaxpr to an ONNX model."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import onnx_ir as ir

from ...core.errors import UnsupportedError, UsageError
from . import dims
from .builder import Builder
from .context import Context
from .equation import as_array
from .functions import extract_functions
from .operand import constant, inner_shape, stored_type
from .registry import table
from .symbolic import bind_variables

#: The opset of a file that needs nothing newer: the newest that every supported ONNX Runtime (1.23 on) has kernels for.
COMMON_OPSET = 23
#: The oldest opset whose operators the lowerings use, and the newest that ONNX Runtime supports officially.
OLDEST_OPSET, NEWEST_OPSET = 20, 26


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How to write the file.

    Attributes:
      opset: version of the operator set; 0 takes 23, or a newer one where an operator needs it.
      strict_nan: whether max pooling propagates NaN, as XLA does, at the price of three more operators.
      metadata: entries for the model's metadata.
      model_name: name of the graph.
      functions: whether repeated modules become functions of the file.
    """

    opset: int = 0
    strict_nan: bool = False
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    model_name: str = "main"
    functions: bool = False


def export(
    closed: Any,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    options: ExportOptions = ExportOptions(),
) -> ir.Model:
    """Lowers a closed jaxpr to an ONNX model.

    Args:
      closed: the program; its constants become initializers, shared with it, not copied.
      input_names: names of the graph inputs, default ``x0, x1, ...``.
      output_names: names of the graph outputs, default ``y0, y1, ...``.
      options: how to write it.

    Raises:
      UnsupportedError: lists every equation that has no ONNX form, with the user's lines.
      UsageError: an opset that is not offered.
    """
    if options.opset and not OLDEST_OPSET <= options.opset <= NEWEST_OPSET:
        raise UsageError(
            f"opset {options.opset} is not offered", hint=f"choose {OLDEST_OPSET} to {NEWEST_OPSET}, or 0 for the best"
        )
    jaxpr = closed.jaxpr
    in_names = list(input_names or [f"x{k}" for k in range(len(jaxpr.invars))])
    out_names = list(output_names or [f"y{k}" for k in range(len(jaxpr.outvars))])
    build = Builder(options.opset)
    ctx = Context(build, table(), options.strict_nan)
    for name in out_names:
        build.unique(name)
    inputs, operands = [], []
    for name, var in zip(in_names, jaxpr.invars, strict=True):
        value, operand = _graph_input(ctx, name, var.aval)
        inputs.append(value)
        operands.append(operand)
    bind_variables(ctx, [(v, tuple(o.shape)) for v, o in zip(inputs, operands, strict=True)])
    consts = [constant(as_array(c)) for c in closed.consts]
    results = ctx.lower_jaxpr(jaxpr, consts, operands)
    if ctx.problems:
        raise unsupported(ctx.problems)
    outputs = _graph_outputs(ctx, results, jaxpr.outvars, out_names)
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=build.nodes,
        initializers=list(build.initializers.values()),
        opset_imports={"": options.opset or max(COMMON_OPSET, build.needed_opset)},
        name=options.model_name,
    )
    model = ir.Model(
        graph,
        ir_version=_ir_version(graph.opset_imports[""]),
        producer_name="xlapass",
        producer_version=importlib.metadata.version("xlapass"),
        metadata_props={"jax": jax.__version__, **options.metadata},
    )
    _tidy(model)
    if options.functions:
        extract_functions(model)
    return model


def _graph_input(ctx: Context, name: str, aval: Any) -> Any:
    shape = tuple(aval.shape)
    value = ctx.build.input(name, stored_type(aval.dtype), [dims.spec(d) for d in (*shape, *inner_shape(aval.dtype))])
    return value, ctx.result(value, aval)


def _graph_outputs(ctx: Context, results: Sequence[Any], outvars: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Output values, each produced by a node of its own and named as asked."""
    outputs: list[ir.Value] = []
    for operand, var, name in zip(results, outvars, names, strict=True):
        value = ctx.full(operand)
        if value.producer() is None or value.is_graph_input() or value in outputs:
            value = ctx.build._emit("", "Identity", [value], 1, {}, [value.dtype])[0]
        value.name = name
        value.type = ir.TensorType(stored_type(var.aval.dtype))
        value.shape = ir.Shape([dims.spec(d) for d in (*var.aval.shape, *inner_shape(var.aval.dtype))])
        outputs.append(value)
    return outputs


def _ir_version(opset: int) -> int:
    """The file format that came with an opset; every runtime that knows the opset reads it."""
    return {20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13}[opset]


def _tidy(model: ir.Model) -> None:
    """Drops what no output needs, and orders nothing: emission order is already topological."""
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(model)


def unsupported(problems: Sequence[Any]) -> UnsupportedError:
    """One error for all equations without an ONNX form."""
    lines: dict[str, None] = {}
    for p in problems:
        lines[f"  {p.primitive} at {p.where}: {p.reason}"] = None
    count = len(lines)
    what = "1 operation" if count == 1 else f"{count} operations"
    return UnsupportedError(
        f"{what} of the program cannot be written to ONNX:\n" + "\n".join(lines),
        hint="replace them in the model, or leave that part out of what is exported",
    )
