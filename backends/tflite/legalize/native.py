"""What the converters take: the operations that the rules leave, and the types that they leave them at."""

from __future__ import annotations

from collections.abc import Callable

from ....core.backend import ANY_DTYPE, Legality
from ....core.node import Node
from .carriers import NATIVE, kind_of
from .choice import choose
from .retype import Site

Check = Callable[[Node], str | None]

_NUMBERS = frozenset({"float32", "int32", "int64"})
_COMMON = frozenset(map(str, NATIVE))
_FLOAT = frozenset({"float32"})
_WORDS = frozenset({"int32"})
_BOOLEANS = frozenset({"bool"})

# fmt: off
_TAKEN: tuple[tuple[str, frozenset[str]], ...] = (
    ("add add_any sub mul neg max min clamp square", _NUMBERS),
    ("div rem", frozenset({"float32", "int32"})),
    ("abs sign", frozenset({"float32", "int32"})),
    ("pow integer_pow", _NUMBERS),
    ("exp exp2 log log1p expm1 sqrt rsqrt logistic tanh sin cos tan asin acos atan sinh cosh asinh acosh atanh atan2",
     _FLOAT),
    ("erf erfc erf_inv digamma bessel_i0e bessel_i1e floor ceil round", _FLOAT),
    ("is_finite", frozenset({"float32", "bool"})),
    ("and or", _BOOLEANS),
    ("xor shift_right_arithmetic", _WORDS),
    ("not", frozenset({"bool", "int32"})),
    ("eq ne", _COMMON),
    ("lt le gt ge", frozenset({*_NUMBERS, "bool"})),
    ("select_n reshape squeeze expand_dims transpose broadcast_in_dim rev concatenate stack split pad slice iota copy "
     "copy_p dynamic_slice dynamic_update_slice gather scatter argmax argmin top_k optimization_barrier stop_gradient "
     "tile broadcast", _COMMON),
    ("reduce_sum reduce_prod cumsum reduce_window_sum", _NUMBERS),
    ("reduce_max reduce_min", _COMMON),
    ("reduce_window_max reduce_window_min", _NUMBERS),
    ("reduce_and reduce_or", _BOOLEANS),
    ("dot_general", frozenset({"float32", "int8", "int32"})),
    ("conv_general_dilated", _FLOAT),
    ("scan while cond device_put sharding_constraint name", ANY_DTYPE),
    # Between types, and at inputs and outputs of types that are carried in others.
    ("convert_element_type bitcast_convert_type real imag complex random_wrap random_unwrap", ANY_DTYPE),
)
# fmt: on


def _window(node: Node) -> str | None:
    rank = len(node.inputs[0].shape)
    return f"a window over {rank} dimensions is too many; TFLite takes six" if rank > 6 else None


def _cumulative(node: Node) -> str | None:
    rank = len(node.inputs[0].shape)
    return f"an operand of {rank} dimensions is too many; TFLite takes six" if rank > 6 else None


_CHECKS: dict[str, Check] = {
    "reduce_window_sum": _window,
    "reduce_window_max": _window,
    "reduce_window_min": _window,
    "cumsum": _cumulative,
}


def _with_reason(check: Check | None, dtypes: frozenset[str]) -> Check:
    """The check of a row; types that no rule could carry are explained by the choice that was made for them."""

    def problem(node: Node) -> str | None:
        reason = why_not_carried(node)
        if reason is not None:
            return reason
        if dtypes:
            for value in (*node.inputs, *node.outputs):
                if str(value.dtype) not in dtypes and str(value.dtype) != "bool":
                    return f"dtype {value.dtype} is not supported"
        return check(node) if check is not None else None

    return problem


def why_not_carried(node: Node) -> str | None:
    """Why an operation is still at a type that TFLite does not compute with; None where it is not."""
    kinds = {kind_of(getattr(value.aval, "dtype", None)) for value in (*node.inputs, *node.outputs)}
    if kinds <= {"native", "other"} or node.name in _AT_EDGES:
        return None
    choice = choose(Site(node))
    return choice if isinstance(choice, str) else None


_AT_EDGES = frozenset({
    "convert_element_type", "bitcast_convert_type", "real", "imag", "complex", "random_wrap", "random_unwrap",
    "dot_general",
})  # fmt: skip


def taken() -> list[Legality]:
    """The rows of the table of what is legal."""
    return [
        Legality(name, check=_with_reason(_CHECKS.get(name), dtypes), lowering=", ".join(sorted(dtypes)))
        for names, dtypes in _TAKEN
        for name in names.split()
    ]
