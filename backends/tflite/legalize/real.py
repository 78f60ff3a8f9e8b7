"""How operations on real numbers of other types are done on their carriers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import numbers
from .bitcasts import bitcast
from .carriers import carrier_dtype, kind_of
from .retype import Retyping, Site

_DTYPE_PARAMS = ("new_dtype", "dtype", "preferred_element_type", "index_dtype")

# fmt: off
_WRAPPING = frozenset({
    "add", "add_any", "sub", "mul", "neg", "abs", "square", "integer_pow", "div", "shift_left", "reduce_sum",
    "reduce_prod", "cumsum", "cumprod", "reduce_window_sum", "dot_general", "conv_general_dilated", "scatter-add",
    "scatter_add", "scatter_mul", "scatter-mul", "scatter_sub", "scatter-sub", "reduce", "reduce_window", "pow",
})
"""Integer operations whose int32 result may not be a number of the narrow type."""

_LIMITED = frozenset({"reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "cummax", "cummin"})
"""Operations that start from the smallest or largest number of the type."""

_ORDERING = frozenset({
    "lt", "le", "gt", "ge", "max", "min", "clamp", "sort", "argmax", "argmin", "reduce_max", "reduce_min", "cummax",
    "cummin", "reduce_window_max", "reduce_window_min", "top_k", "scatter_max", "scatter-max", "scatter_min",
    "scatter-min", "select_and_scatter_add", "select_and_gather_add",
})
"""Operations that compare; unsigned numbers have their sign bit flipped for them."""

_BITS_ONLY = frozenset({"nextafter"})
"""Functions of the representation, which a carrier does not have."""

_SCATTERS: dict[str, Callable[..., Any]] = {
    "scatter": lax.scatter, "scatter-add": lax.scatter_add, "scatter_add": lax.scatter_add,
    "scatter-sub": lax.scatter_sub, "scatter_sub": lax.scatter_sub, "scatter-mul": lax.scatter_mul,
    "scatter_mul": lax.scatter_mul, "scatter-min": lax.scatter_min, "scatter_min": lax.scatter_min,
    "scatter-max": lax.scatter_max, "scatter_max": lax.scatter_max,
}
# fmt: on


def choose_real(site: Site) -> Retyping | str:
    """The form of an operation on real numbers."""
    name = site.node.name
    special = _SPECIAL.get(name)
    if special is not None:
        return Retyping(special)
    if name in _BITS_ONLY and any(kind_of(a.dtype) == "float" for a in site.operands):
        return f"{site.dtype} is computed in float32, which has other neighbours"
    if any(getattr(body, "eqns", None) for body in (site.params.get("jaxpr"), site.params.get("update_jaxpr"))):
        return _with_body(site)
    return Retyping(on_carriers)


def _with_body(site: Site) -> Retyping | str:
    if site.node.name in _SCATTERS:
        return Retyping(on_carriers)
    return f"it has a function of its own, on numbers of type {site.dtype}"


def on_carriers(site: Site, *arrays: jax.Array) -> Any:
    """The operation itself, and what brings its results back into the range of their types."""
    operands = list(arrays)
    ordering = site.node.name in _ORDERING
    for index, aval in enumerate(site.operands):
        if kind_of(aval.dtype) != "unsigned":
            continue
        if ordering and not _is_index(site, index):
            operands[index] = numbers.flipped(operands[index])
        elif _is_index(site, index):
            operands[index] = jnp.where(operands[index] < 0, np.iinfo(operands[index].dtype).max, operands[index])
    results = bind(site, operands)
    many = results if isinstance(results, list | tuple) else [results]
    done = [_in_range(site, new, aval.dtype, ordering) for new, aval in zip(many, site.results, strict=True)]
    return done if isinstance(results, list | tuple) else done[0]


def _is_index(site: Site, index: int) -> bool:
    name = site.node.name
    if name == "gather" or name in _SCATTERS:
        return index == 1
    if name == "dynamic_slice":
        return index > 0
    return name == "dynamic_update_slice" and index > 1


def bind(site: Site, operands: Sequence[jax.Array], part: int = 0) -> Any:
    """The operation on operands of other types; ``part`` is 1 for the imaginary parts."""
    name = site.node.name
    if name in _SCATTERS:
        keep = ("indices_are_sorted", "unique_indices", "mode")
        options = {key: site.params[key] for key in keep}
        return _SCATTERS[name](*operands, site.params["dimension_numbers"], **options)
    params = dict(site.params)
    for key in _DTYPE_PARAMS:
        if params.get(key) is not None:
            params[key] = carrier_dtype(np.dtype(params[key]))
    if name == "gather" and kind_of(site.dtype) != "native":
        params["fill_value"] = _fill_value(params.get("fill_value"), site.dtype, part)
    if name in ("dot_general", "conv_general_dilated"):
        params["precision"] = None
    return site.node.primitive.bind(*operands, **params)


def _fill_value(given: Any, dtype: Any, part: int) -> Any:
    if kind_of(dtype) == "complex":
        number = complex(np.nan if given is None else given)
        return number.imag if part else number.real
    if kind_of(dtype) == "key":
        return given
    if kind_of(dtype) == "float":
        return given if given is None else float(given)
    info = jnp.iinfo(dtype)
    value = int(given) if given is not None else info.max if info.min == 0 else info.min
    return value - (1 << info.bits) if kind_of(dtype) == "unsigned" and value >= 1 << (info.bits - 1) else value


def _in_range(site: Site, x: jax.Array, dtype: Any, ordering: bool) -> jax.Array:
    kind, name = kind_of(dtype), site.node.name
    if kind == "unsigned" and ordering and name not in ("argmax", "argmin"):
        return numbers.flipped(x)
    if kind == "narrow" and name in _WRAPPING:
        return numbers.wrapped(x, dtype)
    if kind == "narrow" and name in _LIMITED:
        info = jnp.iinfo(dtype)
        return jnp.clip(x, int(info.min), int(info.max))
    return x


# -- operations with a form of their own -------------------------------------------------------------------------------


def _convert(site: Site, x: jax.Array) -> jax.Array:
    return numbers.converted(x, site.operands[0].dtype, np.dtype(site.params["new_dtype"]))


def _iota(site: Site) -> jax.Array:
    return lax.broadcasted_iota(carrier_dtype(site.dtype), site.results[0].shape, site.params["dimension"])


def _not(site: Site, x: jax.Array) -> jax.Array:
    if kind_of(site.dtype) == "narrow" and not jnp.issubdtype(site.dtype, jnp.signedinteger):
        return numbers.constant(x, jnp.iinfo(site.dtype).max) - x
    return lax.bitwise_not(x)


def _bits_of(x: jax.Array, dtype: Any) -> jax.Array:
    """A narrow number's bits, zeros above them."""
    if kind_of(dtype) == "narrow" and jnp.issubdtype(dtype, jnp.signedinteger):
        return numbers.wrapped(x, jnp.dtype(f"u{np.dtype(dtype).name}"))
    return x


def _shift_right_logical(site: Site, x: jax.Array, amount: jax.Array) -> jax.Array:
    moved = lax.shift_right_logical(_bits_of(x, site.dtype), amount)
    return numbers.wrapped(moved, site.dtype) if kind_of(site.dtype) == "narrow" else moved


def _shift_right_arithmetic(site: Site, x: jax.Array, amount: jax.Array) -> jax.Array:
    """Unsigned numbers are shifted as if they were signed."""
    if kind_of(site.dtype) != "narrow" or jnp.issubdtype(site.dtype, jnp.signedinteger):
        return lax.shift_right_arithmetic(x, amount)
    signed = numbers.wrapped(x, jnp.dtype(np.dtype(site.dtype).name[1:]))
    return numbers.wrapped(lax.shift_right_arithmetic(signed, amount), site.dtype)


def _population_count(site: Site, x: jax.Array) -> jax.Array:
    return lax.population_count(_bits_of(x, site.dtype))


def _clz(site: Site, x: jax.Array) -> jax.Array:
    zeros = lax.clz(_bits_of(x, site.dtype))
    spare = jnp.iinfo(x.dtype).bits - jnp.iinfo(site.dtype).bits
    return zeros - numbers.constant(x, spare) if spare else zeros


def _divide(site: Site, x: jax.Array, y: jax.Array) -> Any:
    return numbers.divided(x, y)[0] if kind_of(site.dtype) == "unsigned" else on_carriers(site, x, y)


def _remainder(site: Site, x: jax.Array, y: jax.Array) -> Any:
    return numbers.divided(x, y)[1] if kind_of(site.dtype) == "unsigned" else on_carriers(site, x, y)


def _sign(site: Site, x: jax.Array) -> Any:
    return (x != 0).astype(x.dtype) if kind_of(site.dtype) == "unsigned" else lax.sign(x)


def _bitcast(site: Site, x: jax.Array) -> jax.Array:
    return bitcast(x, site.operands[0].dtype, site.dtype)


def _dot_general(site: Site, x: jax.Array, y: jax.Array) -> Any:
    """Products of int8 matrices are what TFLite has a kernel for; all others are products of carriers."""
    is_product = site.node.name == "dot_general" and site.dtype == np.int32
    if is_product and all(a.dtype == np.int8 for a in site.operands):
        return bind(site, [x.astype(np.int8), y.astype(np.int8)])
    mixed = [v.astype(carrier_dtype(site.dtype)) for v in (x, y)]
    return on_carriers(site, *mixed)


_SPECIAL: dict[str, Callable[..., Any]] = {
    "convert_element_type": _convert,
    "bitcast_convert_type": _bitcast,
    "iota": _iota,
    "not": _not,
    "shift_right_logical": _shift_right_logical,
    "shift_right_arithmetic": _shift_right_arithmetic,
    "population_count": _population_count,
    "clz": _clz,
    "div": _divide,
    "rem": _remainder,
    "sign": _sign,
    "dot_general": _dot_general,
    "conv_general_dilated": _dot_general,
}
