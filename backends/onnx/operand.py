"""What the lowering knows about one array of the program."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import onnx_ir as ir

from . import dims
from .dims import Dim, Shape

#: Bounds of an integer array, both inclusive.
Bounds = tuple[int, int]


def is_key(dtype: Any) -> bool:
    """Whether a dtype is that of random keys."""
    return bool(jnp.issubdtype(dtype, jax.dtypes.prng_key))


def is_complex(dtype: Any) -> bool:
    """Whether a dtype is complex."""
    return not is_key(dtype) and np.dtype(dtype).kind == "c"


def is_float(dtype: Any) -> bool:
    """Whether a dtype is a real floating-point type, the narrow ones of ml_dtypes included."""
    return not is_key(dtype) and bool(jnp.issubdtype(dtype, np.floating))


def is_integer(dtype: Any) -> bool:
    """Whether a dtype is a signed or unsigned integer."""
    return not is_key(dtype) and bool(jnp.issubdtype(dtype, np.integer))


def is_unsigned(dtype: Any) -> bool:
    """Whether a dtype is an unsigned integer."""
    return not is_key(dtype) and bool(jnp.issubdtype(dtype, np.unsignedinteger))


def is_bool(dtype: Any) -> bool:
    """Whether a dtype is bool (or the dtype of symbolic zeros, which is stored as bool)."""
    return not is_key(dtype) and np.dtype(dtype) in (np.dtype(bool), jax.dtypes.float0)


def stored_dtype(dtype: Any) -> np.dtype[Any]:
    """The numpy dtype in which ONNX stores a JAX dtype: complex numbers as pairs of floats, keys as uint32 words."""
    if is_key(dtype):
        return np.dtype(np.uint32)
    dtype = np.dtype(dtype)
    if dtype == np.complex64:
        return np.dtype(np.float32)
    if dtype == np.complex128:
        return np.dtype(np.float64)
    if dtype == jax.dtypes.float0:
        return np.dtype(bool)
    stored: np.dtype[Any] = np.dtype(ml_dtypes.int4) if dtype == ml_dtypes.int2 else np.dtype(dtype)
    return stored


def stored_type(dtype: Any) -> ir.DataType:
    """The ONNX element type of a JAX dtype."""
    return ir.DataType.from_numpy(stored_dtype(dtype))


def inner_shape(dtype: Any) -> tuple[int, ...]:
    """Trailing axes that storage adds: (2,) for complex numbers, the words of a random key."""
    if is_key(dtype):
        return tuple(jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), dtype)).shape)
    return (2,) if is_complex(dtype) else ()


def stored_array(array: Any) -> np.ndarray[Any, Any]:
    """A JAX or numpy array in the form in which ONNX stores it."""
    if is_key(array.dtype):
        return np.asarray(jax.random.key_data(array))
    array = np.asarray(array)
    if array.dtype.kind == "c":
        return np.stack([array.real, array.imag], axis=-1)
    return np.asarray(array, stored_dtype(array.dtype))


@dataclasses.dataclass(frozen=True)
class Operand:
    """One array of the program: where its values are, and what is known about them.

    The stored array may be smaller than the array it stands for: ``held`` broadcasts to ``shape`` (right-aligned, as
    ONNX broadcasts), so that a ``broadcast_in_dim`` costs nothing where the consumer broadcasts by itself.

    Attributes:
      shape: the logical shape; entries are ints or symbolic dimensions.
      dtype: the JAX dtype.
      held: the shape that is stored, without the trailing axes of complex numbers and keys.
      value: the ONNX value, or None for a constant.
      const: the constant (numpy; a JAX array for keys), of shape ``held``, or None.
      bounds: smallest and largest possible value of an integer array, or None when unknown.
      iota: the axis along which the array counts 0, 1, 2, ..., or None.
      wrapped: ``(raw, n)`` when the array is ``where(raw < 0, raw + n, raw)``: an index that may be negative.
      compared: ``raw`` when the array is ``raw < 0``.
      shifted: ``(raw, n)`` when the array is ``raw + n`` with a constant or a dimension n.
      dim: the symbolic dimension whose size a scalar is.
    """

    shape: Shape
    dtype: Any
    held: Shape
    value: ir.Value | None = None
    const: Any = None
    bounds: Bounds | None = None
    iota: int | None = None
    wrapped: tuple[Operand, Dim] | None = None
    compared: Operand | None = None
    shifted: tuple[Operand, Dim] | None = None
    dim: Dim | None = None

    @property
    def rank(self) -> int:
        """Number of logical axes."""
        return len(self.shape)

    @property
    def is_full(self) -> bool:
        """Whether the stored array has the logical shape."""
        return self.held == self.shape

    @property
    def is_const(self) -> bool:
        """Whether the values are known."""
        return self.const is not None

    @property
    def scalar(self) -> Any:
        """The one value of a constant that is the same everywhere, else None."""
        if self.const is None or is_key(self.dtype) or self.const.size != 1:
            return None
        return self.const.reshape(())[()]

    @property
    def padded(self) -> Shape:
        """``held`` with leading ones, one entry for every logical axis."""
        return (1,) * (self.rank - len(self.held)) + self.held


def constant(array: Any, shape: Shape | None = None) -> Operand:
    """An operand of known values, optionally standing for a larger shape to which it broadcasts."""
    if not is_key(array.dtype):
        array = np.asarray(array)
    bounds = None
    if array.size and (is_integer(array.dtype) or is_bool(array.dtype)) and array.dtype != jax.dtypes.float0:
        bounds = (int(array.min()), int(array.max()))
    held = tuple(array.shape)
    return Operand(held if shape is None else shape, array.dtype, held, const=array, bounds=bounds)


def element_count(op: Operand) -> Dim:
    """Number of logical elements."""
    return dims.size(op.shape)
