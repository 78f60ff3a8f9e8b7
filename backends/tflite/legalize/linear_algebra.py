"""Matrix factorisations, as loops over products; and the special functions that the converters do not take."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import jax

from ....core.node import Node
from ....core.rewrite import Rule
from ...onnx import lowering as lowering_folder
from ...onnx.registry import Refusal
from .rule import lowering

_MODULES = ("linalg", "jacobi")
"""Where the ONNX backend keeps the algorithms, in plain JAX."""

_FACTORISATIONS = (
    "cholesky",
    "triangular_solve",
    "lu",
    "lu_pivots_to_permutation",
    "geqrf",
    "householder_product",
    "qr",
    "eigh",
    "svd",
    "tridiagonal_solve",
    "symmetric_product",
    "hessenberg",
)


def _algorithm(name: str) -> Callable[..., Any]:
    folder = lowering_folder.__name__
    modules = [importlib.import_module(f"{folder}.{module}") for module in _MODULES if _exists(f"{folder}.{module}")]
    found: Callable[..., Any] = next(getattr(module, name) for module in modules if hasattr(module, name))
    return found


def _exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _rule(primitive: str, function: Callable[..., Any]) -> Rule:
    def why_not(node: Node) -> str | None:
        specs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in node.inputs]
        try:
            jax.eval_shape(lambda *arrays: function(*arrays, **node.params), *specs)
        except Refusal as refusal:
            return str(refusal).replace("ONNX", "TFLite")
        return None

    return lowering(primitive.replace("_", "-"), primitive, function, why_not)


RULES = tuple(_rule(primitive, _algorithm(primitive)) for primitive in _FACTORISATIONS)
