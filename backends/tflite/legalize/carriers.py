"""Types that TFLite does not compute with, carried in types that it does.

TFLite computes with float32, int32, int64 and bool. Every other type is carried in one of these from the program's
inputs to its outputs, in bodies of control flow too:

    float64, float16, bfloat16, float8   float32
    int8, uint8, int16, uint16, int4     int32, always a number of the narrow type
    uint32, uint64                       int32, int64: the same bits
    complex64, complex128                float32, real and imaginary part on a trailing axis of two
    random keys                          int32, the bits of the key's words on trailing axes
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Kind = Literal["native", "float", "narrow", "unsigned", "complex", "key", "other"]

NATIVE = frozenset(map(np.dtype, (np.float32, np.int32, np.int64, np.bool_)))
"""What TFLite's kernels take nearly everywhere."""

_IMPLEMENTATIONS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}
_UNSIGNED = {np.dtype(np.uint32): np.dtype(np.int32), np.dtype(np.uint64): np.dtype(np.int64)}


def kind_of(dtype: Any) -> Kind:
    """How values of ``dtype`` are carried; ``"other"`` for tokens and the like."""
    if dtype is None:
        return "other"
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return "key"
    if dtype in NATIVE:
        return "native"
    if dtype in _UNSIGNED:
        return "unsigned"
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return "complex"
    if jnp.issubdtype(dtype, jnp.floating):
        return "float"
    if jnp.issubdtype(dtype, jnp.integer):
        return "narrow"
    return "other"


def key_shape(dtype: Any) -> tuple[int, ...]:
    """The shape of the words of one random key."""
    return tuple(jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), dtype)).shape)


def inner_shape(dtype: Any) -> tuple[int, ...]:
    """The trailing axes that a carrier has more than what it carries."""
    kind = kind_of(dtype)
    return (2,) if kind == "complex" else key_shape(dtype) if kind == "key" else ()


def carrier_dtype(dtype: Any) -> Any:
    """The type that carries ``dtype``."""
    kind = kind_of(dtype)
    if kind in ("float", "complex"):
        return np.dtype(np.float32)
    if kind in ("narrow", "key"):
        return np.dtype(np.int32)
    return _UNSIGNED[dtype] if kind == "unsigned" else dtype


def carrier_aval(aval: Any) -> Any:
    """The type of the carrier of a value of type ``aval``."""
    if kind_of(getattr(aval, "dtype", None)) in ("native", "other"):
        return aval
    shape = (*aval.shape, *inner_shape(aval.dtype))
    return jax.core.ShapedArray(shape, carrier_dtype(aval.dtype))


def carried(x: jax.Array) -> jax.Array:
    """The carrier of an array."""
    kind = kind_of(x.dtype)
    if kind == "complex":
        return jnp.stack([x.real.astype(np.float32), x.imag.astype(np.float32)], axis=-1)
    if kind == "key":
        return lax.bitcast_convert_type(jax.random.key_data(x), np.int32)
    if kind == "unsigned":
        return lax.bitcast_convert_type(x, carrier_dtype(x.dtype))
    return lax.convert_element_type(x, carrier_dtype(x.dtype))


def released(x: jax.Array, dtype: Any) -> jax.Array:
    """What ``x`` carries, as an array of type ``dtype``."""
    kind = kind_of(dtype)
    if kind == "complex":
        return lax.convert_element_type(lax.complex(x[..., 0], x[..., 1]), dtype)
    if kind == "key":
        words = lax.bitcast_convert_type(x, np.uint32)
        keys: jax.Array = jax.random.wrap_key_data(words, impl=_IMPLEMENTATIONS[str(dtype)])
        return keys
    if kind == "unsigned":
        return lax.bitcast_convert_type(x, dtype)
    return lax.convert_element_type(x, dtype)


def carried_constant(array: Any) -> np.ndarray[Any, Any]:
    """The carrier of a constant."""
    kind = kind_of(array.dtype)
    if kind == "key":
        return np.asarray(jax.random.key_data(array)).view(np.int32)
    array = np.asarray(array)
    if kind == "complex":
        return np.stack([array.real, array.imag], axis=-1).astype(np.float32)
    with np.errstate(over="ignore"):
        return np.asarray(array.view(carrier_dtype(array.dtype)) if kind == "unsigned" else array).astype(
            carrier_dtype(array.dtype)
        )
