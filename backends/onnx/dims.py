"""Symbolic dimensions: from ``jax.export`` expressions to ONNX integer arithmetic."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, TypeAlias

import jax

#: An int or a symbolic dimension of ``jax.export``.
Dim: TypeAlias = Any
Shape: TypeAlias = tuple[Any, ...]


def is_static(shape: Shape) -> bool:
    """Whether every dimension is a number."""
    return all(isinstance(d, int) for d in shape)


def size(shape: Shape) -> Dim:
    """The product of the dimensions."""
    total: Dim = 1
    for d in shape:
        total = total * d
    return total


def expression(dim: Dim) -> ast.expr:
    """The syntax tree of a symbolic dimension, from its text form (the grammar of ``jax.export.symbolic_shape``)."""
    return ast.parse(str(dim).replace("^", "**"), mode="eval").body


def symbol(dim: Dim) -> str | None:
    """The name of a dimension that is a bare variable, else None."""
    tree = expression(dim)
    return tree.id if isinstance(tree, ast.Name) else None


def variables(dim: Dim) -> set[str]:
    """The names of the variables in a symbolic dimension."""
    called = {n.func.id for n in ast.walk(expression(dim)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return {n.id for n in ast.walk(expression(dim)) if isinstance(n, ast.Name)} - called


def linear(dim: Dim) -> tuple[str, int, int] | None:
    """``(name, a, b)`` when the dimension is ``a*name + b`` with a nonzero integer ``a``, else None."""
    names = variables(dim)
    if len(names) != 1:
        return None
    (name,) = names

    def at(value: int) -> int | None:
        return evaluate(dim, {name: value})

    b, first, second, far = at(0), at(1), at(2), at(1001)
    if b is None or first is None or second is None or far is None:
        return None
    a = first - b
    return (name, a, b) if a and second == 2 * a + b and far == 1001 * a + b else None


_FUNCTIONS: dict[str, Callable[[int, int], int]] = {
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "max": max,
    "min": min,
}


def evaluate(dim: Dim, env: dict[str, int]) -> int | None:
    """The value of a dimension at given variables; None where it is undefined (a division by zero)."""
    if isinstance(dim, int):
        return dim

    def walk(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(v)):
                return v
            case ast.Name(id=name):
                return env[name]
            case ast.UnaryOp(op=ast.USub(), operand=x):
                return -walk(x)
            case ast.BinOp(left=x, op=ast.Add(), right=y):
                return walk(x) + walk(y)
            case ast.BinOp(left=x, op=ast.Sub(), right=y):
                return walk(x) - walk(y)
            case ast.BinOp(left=x, op=ast.Mult(), right=y):
                return walk(x) * walk(y)
            case ast.BinOp(left=x, op=ast.Pow(), right=y):
                return int(walk(x) ** walk(y))
            case ast.Call(func=ast.Name(id=name), args=[x, y]):
                return int(_FUNCTIONS[name](walk(x), walk(y)))
        raise ValueError(f"unknown dimension expression {ast.unparse(node)}")

    try:
        return walk(expression(dim))
    except ZeroDivisionError:
        return None


def broadcast(*shapes: Shape) -> Shape:
    """The shape that right-aligned broadcasting of the shapes gives."""
    rank = max((len(s) for s in shapes), default=0)
    out: list[Dim] = [1] * rank
    for shape in shapes:
        for k, d in enumerate(shape, rank - len(shape)):
            if d != 1:
                out[k] = d
    return tuple(out)


def spec(dim: Dim) -> int | str | None:
    """How a dimension is written in the type of an ONNX value: number, name, or unknown."""
    return dim if isinstance(dim, int) else str(dim).replace(" ", "")


def is_symbolic(dim: Dim) -> bool:
    """Whether the dimension is a symbolic expression of ``jax.export``."""
    return bool(jax.export.is_symbolic_dim(dim))
