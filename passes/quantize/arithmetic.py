"""Quantizer arithmetic: scales, zero points, rounding and saturation, on NumPy arrays.

A quantized number ``q`` stands for ``(q - zero_point) * scale``: Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", arXiv:1712.05877.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
Rounding = Literal["even", "away"]

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""Scales below the smallest normal float32 would be flushed to zero, and numbers divided by them be infinite."""

LARGEST_BIAS = 2**30
"""An int32 bias stays below this, so that a sum of products can be added to it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Parameters:
    """How one array is quantized.

    Attributes:
      scale: float32; of shape ``()`` for the whole array, ``(channels,)`` along ``axis``, or, with ``group``, of the
        rank of the array, with one entry for each group along ``axis``.
      zero_point: int32, of the shape of ``scale``.
      dtype: ``int8``, ``uint8``, ``int4``, ``uint4`` or ``int32``.
      axis: the axis along which the scale varies; None for none.
      group: how many consecutive elements along ``axis`` share a scale; 0 for one.
      narrow: whether the lowest number of the type is left out, so that the range is symmetric.
    """

    scale: Array
    zero_point: Array
    dtype: str = "int8"
    axis: int | None = None
    group: int = 0
    narrow: bool = False

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest quantized number."""
        return limits(self.dtype, self.narrow)

    def attributes(self) -> dict[str, Any]:
        """What composites hold as attributes: all but the numbers."""
        axis = -1 if self.axis is None else self.axis
        return {"dtype": self.dtype, "axis": axis, "group": self.group, "narrow": self.narrow}

    @classmethod
    def of(cls, scale: Any, zero_point: Any, attributes: Mapping[str, Any]) -> Parameters:
        """The parameters with the given numbers and `attributes`."""
        axis = int(attributes["axis"])
        return cls(
            np.asarray(scale, np.float32),
            np.asarray(zero_point, np.int32),
            str(attributes["dtype"]),
            None if axis < 0 else axis,
            int(attributes["group"]),
            bool(attributes["narrow"]),
        )

    def same_as(self, other: Parameters) -> bool:
        """Whether both say the same."""
        mine, theirs = (
            (p.dtype, p.axis, p.group, p.scale.shape, p.scale.tobytes(), p.zero_point.tobytes()) for p in (self, other)
        )
        return mine == theirs

    def moved(self, axis: int | None) -> Parameters:
        """The same along another axis."""
        return dataclasses.replace(self, axis=axis)


def limits(dtype: str, narrow: bool = False) -> tuple[int, int]:
    """The smallest and the largest number of a quantized type."""
    info = np.iinfo(dtype) if dtype not in ("int4", "uint4") else ml_dtypes.iinfo(dtype)
    return int(info.min) + (1 if narrow else 0), int(info.max)


def asymmetric(low: Any, high: Any, dtype: str = "int8") -> Parameters:
    """Parameters for values from ``low`` to ``high``; zero is always represented exactly.

    Args:
      low, high: scalars, or one number per channel (then set the axis with `Parameters.moved`).
      dtype: of the quantized numbers.

    Raises:
      ValueError: the range is empty or not finite.
    """
    low, high = _checked(low, high)
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    smallest, largest = limits(dtype)
    scale = _scale(high - low, largest - smallest)
    zero = np.clip(np.rint(smallest - low / scale.astype(np.float64)), smallest, largest)
    return Parameters(scale, np.asarray(zero, np.int32), dtype)


def symmetric(low: Any, high: Any, dtype: str = "int8", narrow: bool = True) -> Parameters:
    """As `asymmetric`, with a zero point of zero (the middle, for an unsigned type)."""
    low, high = _checked(low, high)
    smallest, largest = limits(dtype, narrow)
    middle = 0 if smallest < 0 else (largest + 1) // 2
    scale = _scale(np.maximum(np.abs(low), np.abs(high)), largest - middle)
    return Parameters(scale, np.full(scale.shape, middle, np.int32), dtype, narrow=narrow)


def _checked(low: Any, high: Any) -> tuple[Array, Array]:
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("the range is not finite")
    if (low > high).any():
        raise ValueError("the range is empty: its lower end is above the upper one")
    return low, high


def _scale(extent: Array, steps: int) -> Array:
    """Float32 steps; one for an extent of nothing, of which every value is zero whatever the step."""
    scale = np.where(extent == 0, 1.0, np.maximum(extent / steps, SMALLEST_SCALE))
    return np.asarray(scale, np.float32)


def spread(values: Array, shape: tuple[int, ...], axis: int | None, group: int = 0) -> Array:
    """Scales or zero points laid out so that they broadcast against an array of ``shape``."""
    if axis is None:
        return values.reshape(())
    if group:
        repeated: Array = np.repeat(values, group, axis=axis)
        return np.take(repeated, np.arange(shape[axis]), axis=axis)
    return values.reshape([-1 if k == axis else 1 for k in range(len(shape))])


def rounded(numbers: Array, rounding: Rounding = "even") -> Array:
    """Integers nearest to float numbers; halves go to the even one, or away from zero."""
    if rounding == "even":
        return np.asarray(np.rint(numbers))
    whole = np.trunc(numbers)
    return np.asarray(whole + np.copysign(np.abs(numbers - whole) >= 0.5, numbers))


def quantize_array(array: Array, parameters: Parameters, rounding: Rounding = "even") -> Array:
    """The quantized numbers of a float array, in double precision, saturated."""
    p = parameters
    scale = spread(p.scale, array.shape, p.axis, p.group).astype(np.float64)
    zero = spread(p.zero_point, array.shape, p.axis, p.group)
    low, high = p.limits
    numbers = np.clip(rounded(np.asarray(array, np.float64) / scale, rounding) + zero, low, high)
    return np.asarray(numbers.astype(np.int64).astype(jnp.dtype(p.dtype)))


def dequantize_array(numbers: Array, parameters: Parameters) -> Array:
    """The float32 values that quantized numbers stand for."""
    p = parameters
    scale = spread(p.scale, numbers.shape, p.axis, p.group)
    zero = spread(p.zero_point, numbers.shape, p.axis, p.group)
    return np.asarray((numbers.astype(np.int32) - zero).astype(np.float32) * scale, np.float32)
