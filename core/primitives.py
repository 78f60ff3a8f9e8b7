"""Facts about JAX's primitives that more than one part of xlapass needs."""

from __future__ import annotations

ELEMENTWISE = frozenset(
    {"abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e"}
    | {"bessel_i1e", "cbrt", "ceil", "clamp", "clz", "complex", "conj", "convert_element_type", "copy", "copy_p"}
    | {"cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt"}
    | {"igamma", "igammac", "imag", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "log2", "logistic"}
    | {"lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "one_minus_square", "or", "polygamma", "pow", "real"}
    | {"reduce_precision", "rem", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic", "name"}
    | {"shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor"}
    | {"population_count", "zeta"}
)
"""Primitives that work on each element alone; operands have the result's shape or none."""

CALLS = frozenset(
    {"jit", "closed_call", "eval_jaxpr", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint", "composite"}
)
"""Primitives with one body, whose inputs and outputs are the equation's."""
