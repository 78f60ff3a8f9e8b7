"""Values of symbolic dimensions at run time: read from the inputs' shapes, combined by ONNX arithmetic."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import onnx_ir as ir

from . import dims
from .context import Context
from .dims import Dim, Shape
from .exact import SMALL
from .registry import Refusal

_BINARY = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul"}


def bind_variables(ctx: Context, inputs: Sequence[tuple[ir.Value, Shape]]) -> list[str]:
    """Finds for every dimension variable an input axis from which its value follows.

    Args:
      ctx: the lowering context; its ``dim_values`` receive a function of the axis for every variable.
      inputs: graph inputs with their (symbolic) shapes.

    Returns:
      The variables that no axis determines.
    """
    wanted: set[str] = set()
    found: dict[str, tuple[ir.Value, int, int, int]] = {}
    for value, shape in inputs:
        for axis, d in enumerate(shape):
            if isinstance(d, int):
                continue
            wanted |= dims.variables(d)
            form = dims.linear(d)
            if form is None:
                continue
            name, a, b = form
            known = found.get(name)
            if known is None or ((abs(known[2]), known[3]) != (1, 0) and (a, b) == (1, 0)):
                found[name] = (value, axis, a, b)
    ctx.dim_sources = found
    return sorted(wanted - set(found))


def dim_value(ctx: Context, dim: Dim) -> ir.Value:
    """A symbolic dimension as an int64 vector of one element."""
    return _walk(ctx, dims.expression(dim))


def _variable(ctx: Context, name: str) -> ir.Value:
    if name not in ctx.dim_sources:
        raise Refusal(f"no input axis determines the symbolic dimension {name!r}")
    value, axis, a, b = ctx.dim_sources[name]
    size = ctx.op("Shape", value, start=axis, end=axis + 1, to=ir.DataType.INT64)
    if b:
        size = ctx.op("Sub", size, ctx.ints(b))
    return size if a == 1 else ctx.op("Div", size, ctx.ints(a))


def _walk(ctx: Context, node: ast.expr) -> ir.Value:
    match node:
        case ast.Constant(value=int(number)):
            return ctx.ints(number)
        case ast.Name(id=name):
            return _variable(ctx, name)
        case ast.UnaryOp(op=ast.USub(), operand=x):
            return ctx.op("Neg", _walk(ctx, x))
        case ast.BinOp(left=x, op=ast.Pow(), right=ast.Constant(value=int(power))):
            base = _walk(ctx, x)
            result = base
            for _ in range(power - 1):
                result = ctx.op("Mul", result, base)
            return result
        case ast.BinOp(left=ast.UnaryOp(op=ast.USub(), operand=x), op=ast.Add(), right=y):
            return ctx.op("Sub", _walk(ctx, y), _walk(ctx, x))
        case ast.BinOp(left=x, op=kind, right=y) if type(kind) in _BINARY:
            return ctx.op(_BINARY[type(kind)], _walk(ctx, x), _walk(ctx, y))
        case ast.Call(func=ast.Name(id="mod"), args=[x, y]):
            return ctx.op("Mod", _walk(ctx, x), _walk(ctx, y))
        case ast.Call(func=ast.Name(id="floordiv"), args=[x, y]):
            a, b = _walk(ctx, x), _walk(ctx, y)
            # ONNX integer division truncates; taking the remainder off first makes it exact for either sign.
            return ctx.op("Div", ctx.op("Sub", a, ctx.op("Mod", a, b)), b)
        case ast.Call(func=ast.Name(id="max"), args=[x, y]):
            return ctx.op("Max", _walk(ctx, x), _walk(ctx, y), kernel=SMALL)
        case ast.Call(func=ast.Name(id="min"), args=[x, y]):
            return ctx.op("Min", _walk(ctx, x), _walk(ctx, y), kernel=SMALL)
    raise Refusal(f"unknown dimension expression {ast.unparse(node)}")
