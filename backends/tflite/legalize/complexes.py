"""How operations on complex numbers are done on pairs of reals, which lie on a trailing axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import numbers
from .carriers import kind_of
from .complex_functions import FUNCTIONS
from .complex_products import complex_product
from .fourier import fourier
from .real import bind
from .retype import Retyping, Site

Array = jax.Array

# fmt: off
_LINEAR = frozenset({
    "transpose", "reshape", "slice", "gather", "concatenate", "pad", "select_n", "dynamic_slice",
    "dynamic_update_slice", "rev", "broadcast_in_dim", "squeeze", "expand_dims", "copy", "copy_p", "reduce_sum",
    "cumsum", "scatter", "scatter-add", "scatter_add", "scatter-sub", "scatter_sub", "neg", "add", "sub", "add_any",
    "split", "reduce_window_sum", "optimization_barrier", "stop_gradient", "broadcast", "device_put", "stack",
})
"""Operations that treat the real and the imaginary parts alike, and apart."""
# fmt: on


def pair(re: Array, im: Array) -> Array:
    """The carrier of complex numbers with these parts."""
    return jnp.stack(jnp.broadcast_arrays(re, im), axis=-1)


def parts(z: Array) -> tuple[Array, Array]:
    """The real and the imaginary part of what ``z`` carries."""
    return z[..., 0], z[..., 1]


def choose_complex(site: Site) -> Retyping | str:
    """The form of an operation on complex numbers."""
    name = site.node.name
    if name in _LINEAR:
        return Retyping(_by_parts)
    if name in _SPECIAL:
        return Retyping(_SPECIAL[name])
    if name in FUNCTIONS:
        return Retyping(lambda site, *z: FUNCTIONS[name](*z, **site.params), opens=True)
    return f"{name} of complex numbers is not supported"


def _by_parts(site: Site, *arrays: Array) -> Any:
    halves = []
    for k in range(2):
        operands = [
            x[..., k] if kind_of(aval.dtype) == "complex" else x for x, aval in zip(arrays, site.operands, strict=True)
        ]
        halves.append(bind(site, operands, part=k))
    if site.node.primitive.multiple_results:
        return [pair(re, im) for re, im in zip(*halves, strict=True)]
    return pair(*halves)


def _complex(site: Site, re: Array, im: Array) -> Array:
    return pair(re, im)


def _convert(site: Site, x: Array) -> Array:
    source, target = site.operands[0].dtype, np.dtype(site.params["new_dtype"])
    if kind_of(source) == "complex" and kind_of(target) == "complex":
        return x
    if kind_of(source) == "complex":
        return numbers.converted(x[..., 0], np.dtype(np.float32), target)
    number = numbers.as_float(x, source)
    return pair(number, jnp.zeros_like(number))


def _multiply(site: Site, x: Array, y: Array) -> Array:
    (a, b), (c, d) = parts(x), parts(y)
    return pair(a * c - b * d, a * d + b * c)


def _square(site: Site, x: Array) -> Array:
    a, b = parts(x)
    return pair((a - b) * (a + b), 2 * a * b)


def _divide(site: Site, x: Array, y: Array) -> Array:
    """The divisor is scaled by its larger part, so that squares do not overflow."""
    (a, b), (c, d) = parts(x), parts(y)
    scale = jnp.maximum(jnp.abs(c), jnp.abs(d))
    c, d = c / scale, d / scale
    norm = (c * c + d * d) * scale
    return pair((a * c + b * d) / norm, (b * c - a * d) / norm)


def _absolute(site: Site, x: Array) -> Array:
    """The larger part times a square root near 1."""
    a, b = jnp.abs(x[..., 0]), jnp.abs(x[..., 1])
    large, small = jnp.maximum(a, b), jnp.minimum(a, b)
    ratio = small / jnp.where(large == 0, np.float32(1), large)
    size = large * lax.sqrt(1 + ratio * ratio)
    return jnp.where(jnp.isinf(large), large, size)


def _equal(site: Site, x: Array, y: Array) -> Array:
    return (x[..., 0] == y[..., 0]) & (x[..., 1] == y[..., 1])


def _unequal(site: Site, x: Array, y: Array) -> Array:
    return (x[..., 0] != y[..., 0]) | (x[..., 1] != y[..., 1])


def _sign(site: Site, x: Array) -> Array:
    size = _absolute(site, x)[..., None]
    return jnp.where(size == 0, np.float32(0), x / jnp.where(size == 0, np.float32(1), size))


def _conjugate(site: Site, x: Array) -> Array:
    """Of a real number too, which becomes complex."""
    if kind_of(site.operands[0].dtype) == "complex":
        return pair(x[..., 0], -x[..., 1])
    return pair(x, jnp.zeros_like(x))


def _finite(site: Site, x: Array) -> Array:
    return lax.is_finite(x[..., 0]) & lax.is_finite(x[..., 1])


def _reduce_product(site: Site, x: Array) -> Array:
    """Halves are multiplied until one is left."""
    axes = site.params["axes"]
    rank = len(site.operands[0].shape)
    kept = [axis for axis in range(rank) if axis not in axes]
    order = (*axes, *kept, rank)
    line = lax.transpose(x, order).reshape(-1, *(x.shape[axis] for axis in kept), 2)
    one = jnp.asarray(np.array([1, 0], np.float32))
    while line.shape[0] > 1:
        if line.shape[0] % 2:
            line = jnp.concatenate([line, jnp.broadcast_to(one, (1, *line.shape[1:]))])
        half = line.shape[0] // 2
        line = _multiply(site, line[:half], line[half:])
    return line[0] if line.shape[0] else jnp.broadcast_to(one, line.shape[1:])


_SPECIAL: dict[str, Callable[..., Any]] = {
    "complex": _complex,
    "real": lambda site, x: x[..., 0],
    "imag": lambda site, x: x[..., 1],
    "convert_element_type": _convert,
    "mul": _multiply,
    "square": _square,
    "div": _divide,
    "abs": _absolute,
    "eq": _equal,
    "ne": _unequal,
    "sign": _sign,
    "conj": _conjugate,
    "is_finite": _finite,
    "reduce_prod": _reduce_product,
    "fft": fourier,
    "dot_general": complex_product,
    "conv_general_dilated": complex_product,
}
