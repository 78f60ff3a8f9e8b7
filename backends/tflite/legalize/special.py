"""The incomplete gamma and beta functions and the zeta family, as series and continued fractions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...onnx.lowering import special
from .rule import lowering

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "igamma": special.igamma,
    "igammac": special.igammac,
    "igamma_grad_a": special.igamma_grad_a,
    "regularized_incomplete_beta": special.regularized_incomplete_beta,
    "zeta": special.zeta,
    "polygamma": special.polygamma,
}
"""The ONNX backend's, which are plain JAX."""

RULES = tuple(lowering(primitive.replace("_", "-"), primitive, function) for primitive, function in _FUNCTIONS.items())
