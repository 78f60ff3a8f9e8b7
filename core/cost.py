"""What a program costs to run, from its equations alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from jax.extend import core as jex_core

FREE = frozenset(
    {"broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "slice", "concatenate", "pad", "rev", "iota"}
    | {"copy", "copy_p", "convert_element_type", "bitcast_convert_type", "gather", "dynamic_slice", "select_n"}
    | {"dynamic_update_slice"}
)
"""Primitives that move data and compute nothing."""


def flops(jaxpr: jex_core.Jaxpr) -> float:
    """Estimated floating-point and integer operations: products count two per multiply-add, the rest one per element.

    Loops count their trip count when it is known, else once; branches count their costliest. Symbolic sizes count as 1.
    """
    total = 0.0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in FREE:
            continue
        inner = [flops(body) for body in jex_core.jaxprs_in_params(eqn.params)]
        if name == "scan":
            total += eqn.params["length"] * inner[0] if isinstance(eqn.params["length"], int) else inner[0]
        elif name == "cond":
            total += max(inner, default=0.0)
        elif inner and name not in _WITH_REDUCER:
            total += sum(inner)
        else:
            total += _SPECIAL.get(name, _per_element)(eqn)
    return total


_WITH_REDUCER = frozenset({"reduce", "reduce_window", "scatter", "scatter-add", "select_and_scatter", "sort"})


def _size(aval: Any) -> float:
    return float(math.prod(d for d in getattr(aval, "shape", ()) if isinstance(d, int)))


def _per_element(eqn: Any) -> float:
    return max((_size(v.aval) for v in (*eqn.invars, *eqn.outvars)), default=0.0)


def _dot(eqn: Any) -> float:
    (contract, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    depth = float(math.prod(shape[d] for d in contract if isinstance(shape[d], int)))
    return 2.0 * _size(eqn.outvars[0].aval) * depth


def _convolution(eqn: Any) -> float:
    kernel = eqn.invars[1].aval
    features = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
    features = max(features, 1) if isinstance(features, int) else 1
    return 2.0 * _size(eqn.outvars[0].aval) * _size(kernel) / features


def _reduce_window(eqn: Any) -> float:
    return _size(eqn.outvars[0].aval) * float(math.prod(eqn.params["window_dimensions"]))


_SPECIAL: Mapping[str, Callable[[Any], float]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "reduce_window_sum": _reduce_window,
    "reduce_window_max": _reduce_window,
    "reduce_window_min": _reduce_window,
    "reduce_window": _reduce_window,
}
