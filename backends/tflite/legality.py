"""The legality table: which primitives the converters take once the pipeline has done its work, and which never."""

from __future__ import annotations

from ...core.backend import Legality, LegalityTable
from ...core.node import Node

OPENED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint", "composite")
"""Operations that are nothing but their bodies."""

_ARITHMETIC = (
    "add add_any sub mul div neg abs sign max min clamp square integer_pow pow exp exp2 log log1p expm1 sqrt rsqrt"
)
_FUNCTIONS = (
    "logistic tanh sin cos tan asin acos atan sinh cosh asinh acosh atanh atan2 erf erfc erf_inv lgamma digamma"
)
_ROUNDING = "floor ceil round is_finite"
_LOGIC = "and or xor not eq ne lt le gt ge select_n"
_SHAPES = (
    "reshape squeeze expand_dims transpose broadcast_in_dim rev concatenate split pad slice iota copy copy_p "
    "convert_element_type bitcast_convert_type dynamic_slice dynamic_update_slice gather scatter"
)
_REDUCTIONS = (
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin cumsum cumprod cummax cummin "
    "reduce_window_sum reduce_window_max reduce_window_min reduce_window top_k"
)
_LINEAR = "dot_general conv_general_dilated fft"
_COMPLEX = "real imag complex conj"
_CONTROL = "scan while cond"
_NOTHING = (
    "stop_gradient optimization_barrier device_put name sharding_constraint mul_add reduce_precision dim_as_value"
)

_REFUSED = {
    **dict.fromkeys(
        ("cholesky", "eigh", "svd", "qr", "lu", "schur", "eig", "triangular_solve", "householder_product"),
        "TFLite has no linear algebra beyond products",
    ),
    **dict.fromkeys(("pure_callback", "io_callback", "debug_callback", "debug_print"), "a file cannot call Python"),
}
"""Primitives that no rule makes legal, and why."""


def _refusal(reason: str) -> Legality:
    def check(node: Node) -> str:
        return reason

    return Legality("", check=check)


TAKEN = tuple(
    name
    for names in (
        _ARITHMETIC,
        _FUNCTIONS,
        _ROUNDING,
        _LOGIC,
        _SHAPES,
        _REDUCTIONS,
        _LINEAR,
        _COMPLEX,
        _CONTROL,
        _NOTHING,
    )
    for name in names.split()
)
"""Primitives that both converters take, at the dtypes and shapes that the rules of `legalize` leave."""


def table() -> LegalityTable:
    """The table; rows of refused primitives say why."""
    taken = [Legality(name) for name in TAKEN]
    refused = [Legality(name, check=_refusal(reason).check) for name, reason in _REFUSED.items()]
    return LegalityTable([*taken, *refused], opened=OPENED)
