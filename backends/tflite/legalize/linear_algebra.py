"""Matrix factorisations, as loops over products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ....core.node import Node
from ....core.rewrite import Rule
from ...onnx.lowering import jacobi, linalg
from ...onnx.registry import Refusal
from .rule import lowering

_FACTORISATIONS: dict[str, Callable[..., Any]] = {
    "cholesky": linalg.cholesky,
    "triangular_solve": linalg.triangular_solve,
    "lu": linalg.lu,
    "lu_pivots_to_permutation": linalg.lu_pivots_to_permutation,
    "geqrf": linalg.geqrf,
    "householder_product": linalg.householder_product,
    "qr": linalg.qr,
    "eigh": jacobi.eigh,
    "svd": jacobi.svd,
    "tridiagonal_solve": linalg.tridiagonal_solve,
    "symmetric_product": linalg.symmetric_product,
    "hessenberg": linalg.hessenberg,
}
"""The ONNX backend's algorithms, which are plain JAX."""


def _rule(primitive: str, function: Callable[..., Any]) -> Rule:
    def why_not(node: Node) -> str | None:
        specs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in node.inputs]
        try:
            jax.eval_shape(lambda *arrays: function(*arrays, **node.params), *specs)
        except Refusal as refusal:
            return str(refusal).replace("ONNX", "TFLite")
        return None

    return lowering(primitive.replace("_", "-"), primitive, function, why_not)


RULES = tuple(_rule(primitive, function) for primitive, function in _FACTORISATIONS.items())
