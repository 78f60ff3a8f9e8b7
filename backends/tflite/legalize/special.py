"""The gamma function, the incomplete gamma and beta functions and the zeta family: series and continued fractions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...onnx.lowering import gamma, special
from .rule import lowering

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "lgamma": gamma.lgamma,  # the converters have one, too; but JAX 0.12 hands them its own, made of operations on bits
    "igamma": special.igamma,
    "igammac": special.igammac,
    "igamma_grad_a": special.igamma_grad_a,
    "regularized_incomplete_beta": special.regularized_incomplete_beta,
    "zeta": special.zeta,
    "polygamma": special.polygamma,
}
"""The ONNX backend's, which are plain JAX."""

RULES = tuple(lowering(primitive.replace("_", "-"), primitive, function) for primitive, function in _FUNCTIONS.items())
