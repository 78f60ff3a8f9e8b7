"""What a convolution computes, read off its parameters, and the change to channels-last and back."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...core.forms import Signature


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A convolution in canonical terms; tuples have one entry per spatial dimension.

    Attributes:
      batch: size of the batch dimension of the left operand.
      image: spatial sizes of the left operand.
      in_features: features of the left operand.
      kernel: spatial sizes of the kernel.
      group_features: input features that one output feature sees.
      out_features: features of the result.
      out_image: spatial sizes of the result.
      strides, padding, lhs_dilation, rhs_dilation, groups, batch_groups: as in ``lax.conv_general_dilated``.
    """

    batch: int
    image: tuple[int, ...]
    in_features: int
    kernel: tuple[int, ...]
    group_features: int
    out_features: int
    out_image: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    groups: int
    batch_groups: int

    @property
    def rank(self) -> int:
        """Number of spatial dimensions."""
        return len(self.image)

    @property
    def taps(self) -> int:
        """Number of kernel positions."""
        return math.prod(self.kernel)

    @property
    def out_positions(self) -> int:
        """Batch size of the result times its spatial sizes."""
        return self.batch // self.batch_groups * math.prod(self.out_image)

    @property
    def in_positions(self) -> int:
        """Batch size of the left operand times its spatial sizes."""
        return self.batch * math.prod(self.image)

    @property
    def multiply_adds(self) -> float:
        """Multiply-adds, those on padding and on dilation's zeros included."""
        return float(self.out_positions) * self.taps * self.group_features * self.out_features

    @property
    def is_depthwise(self) -> bool:
        """Whether every output feature sees one input feature."""
        return self.group_features == 1 and self.groups > 1

    @property
    def is_plain(self) -> bool:
        """Whether there are no groups of features or batches."""
        return self.groups == 1 and self.batch_groups == 1

    @property
    def is_undilated(self) -> bool:
        """Whether neither operand is dilated."""
        return set(self.lhs_dilation) | set(self.rhs_dilation) <= {1}


def geometry(lhs_shape: Sequence[int], rhs_shape: Sequence[int], params: Mapping[str, Any]) -> Geometry:
    """The geometry of one ``conv_general_dilated`` equation."""
    numbers = params["dimension_numbers"]
    lhs, rhs = numbers.lhs_spec, numbers.rhs_spec
    image = tuple(lhs_shape[d] for d in lhs[2:])
    kernel = tuple(rhs_shape[d] for d in rhs[2:])
    strides = tuple(map(int, params["window_strides"]))
    padding = tuple((int(low), int(high)) for low, high in params["padding"])
    lhs_dilation = tuple(map(int, params["lhs_dilation"]))
    rhs_dilation = tuple(map(int, params["rhs_dilation"]))
    return Geometry(
        batch=lhs_shape[lhs[0]],
        image=image,
        in_features=lhs_shape[lhs[1]],
        kernel=kernel,
        group_features=rhs_shape[rhs[1]],
        out_features=rhs_shape[rhs[0]],
        out_image=tuple(
            window_count(dilated(size, up) + low + high, dilated(taps, down), step)
            for size, up, (low, high), taps, down, step in zip(
                image, lhs_dilation, padding, kernel, rhs_dilation, strides, strict=True
            )
        ),
        strides=strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        groups=int(params["feature_group_count"]),
        batch_groups=int(params["batch_group_count"]),
    )


def dilated(size: int, dilation: int) -> int:
    """Length of ``size`` elements with ``dilation - 1`` holes between neighbours."""
    return (size - 1) * dilation + 1 if size else 0


def window_count(size: int, window: int, stride: int) -> int:
    """How many windows fit."""
    return max(0, (size - window) // stride + 1)


@functools.lru_cache(maxsize=4096)
def signature_geometry(signature: Signature) -> Geometry:
    """The geometry of a signature."""
    lhs, rhs = signature.operands
    return geometry(lhs.shape, rhs.shape, signature.params)


def channels_last(lhs: jax.Array, params: Mapping[str, Any]) -> jax.Array:
    """The left operand as ``[batch, *image, features]``."""
    batch, feature, *spatial = params["dimension_numbers"].lhs_spec
    return _transposed(lhs, (batch, *spatial, feature))


def kernel_last(rhs: jax.Array, params: Mapping[str, Any]) -> jax.Array:
    """The right operand as ``[*kernel, group features, out features]``."""
    out, feature, *spatial = params["dimension_numbers"].rhs_spec
    return _transposed(rhs, (*spatial, feature, out))


def from_channels_last(out: jax.Array, params: Mapping[str, Any]) -> jax.Array:
    """``[batch, *image, features]`` in the order that the equation's result has."""
    batch, feature, *spatial = params["dimension_numbers"].out_spec
    return _transposed(out, tuple(np.argsort((batch, *spatial, feature)).tolist()))


def is_canonical(signature: Signature) -> bool:
    """Whether the operands are ``[batch, *image, features]`` and ``[*kernel, in, out]``, the result like the image."""
    numbers = signature.params["dimension_numbers"]
    rank = len(numbers.lhs_spec)
    image, kernel = (0, rank - 1, *range(1, rank - 1)), (rank - 1, rank - 2, *range(rank - 2))
    return bool(numbers.lhs_spec == image and numbers.rhs_spec == kernel and numbers.out_spec == image)


def _transposed(x: jax.Array, permutation: tuple[int, ...]) -> jax.Array:
    return x if permutation == tuple(range(x.ndim)) else lax.transpose(x, permutation)


def result_dtype(lhs: jax.Array, params: Mapping[str, Any]) -> Any:
    """Element type of the result."""
    preferred = params.get("preferred_element_type")
    return lhs.dtype if preferred is None else np.dtype(preferred)


def accumulation_dtype(lhs: jax.Array, params: Mapping[str, Any]) -> Any:
    """The type to add up products in: that of the result, at least 32 bits for floats, as XLA does."""
    dtype = result_dtype(lhs, params)
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
        dtype = np.dtype(np.float32)
    return lhs.dtype if lhs.dtype.itemsize > dtype.itemsize else dtype


def pad_image(
    image: jax.Array, padding: Sequence[tuple[int, int]], dilation: Sequence[int] | None = None, value: Any = 0
) -> jax.Array:
    """Spreads the spatial dimensions of ``[batch, *image, features]`` by ``dilation``, then pads or crops them.

    The barrier keeps XLA from pushing slices of the result through the padding, which would give each slice a padding
    of its own; the padding itself still fuses with what produces the image.
    """
    holes = [0] * len(padding) if dilation is None else [up - 1 for up in dilation]
    spatial = [(low, high, inner) for (low, high), inner in zip(padding, holes, strict=True)]
    if all(entry == (0, 0, 0) for entry in spatial):
        return image
    fill = jnp.asarray(value, image.dtype)
    padded: jax.Array = lax.optimization_barrier(lax.pad(image, fill, [(0, 0, 0), *spatial, (0, 0, 0)]))
    return padded


def window_slice(x: jax.Array, starts: Sequence[int], sizes: Sequence[int], strides: Sequence[int]) -> jax.Array:
    """``sizes`` elements of each spatial dimension of ``[batch, *image, features]``, from ``starts`` by ``strides``."""
    limits = [start + (size - 1) * step + 1 for start, size, step in zip(starts, sizes, strides, strict=True)]
    return lax.slice(x, (0, *starts, 0), (x.shape[0], *limits, x.shape[-1]), (1, *strides, 1))


def balanced(operation: Any, terms: Sequence[jax.Array]) -> jax.Array:
    """Combines the terms as a balanced tree: short dependency chains, and less rounding than one long sum."""
    terms = list(terms)
    while len(terms) > 1:
        pairs = [operation(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + ([terms[-1]] if len(terms) % 2 else [])
    return terms[0]


def why_unusual(signature: Signature, *, integers: bool = False) -> str | None:
    """Why a convolution is not of the usual kind that forms handle, or None.

    Complex numbers are left alone, mixed operand types too, and dot algorithms that prescribe how to compute.
    """
    lhs, rhs = signature.operands
    if lhs.dtype != rhs.dtype:
        return f"its operands have different types, {lhs.dtype} and {rhs.dtype}"
    dtype = jnp.dtype(lhs.dtype)
    if not (jnp.issubdtype(dtype, jnp.floating) or (integers and jnp.issubdtype(dtype, jnp.integer))):
        return f"it has elements of type {lhs.dtype}"
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 16:
        return f"it has elements of type {lhs.dtype}"
    result = jnp.dtype(signature.results[0].dtype)
    if jnp.issubdtype(result, jnp.floating) != jnp.issubdtype(dtype, jnp.floating):
        return f"it turns {lhs.dtype} into {result}"
    return why_prescribed(signature)


def why_prescribed(signature: Signature) -> str | None:
    """Why precision or sharding parameters prescribe how a product is computed, or None."""
    precision = signature.params.get("precision")
    parts = precision if isinstance(precision, tuple) else (precision,)
    if not all(part is None or isinstance(part, lax.Precision) for part in parts):
        return f"its precision {precision} prescribes how to compute it"
    if signature.params.get("out_sharding") is not None:
        return "its result is sharded"
    return None


def plain_convolution(
    image: jax.Array,
    kernel: jax.Array,
    params: Mapping[str, Any],
    *,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    groups: int = 1,
) -> jax.Array:
    """A convolution of ``[batch, *image, features]`` and ``[*kernel, in, out]``, the order that XLA:CPU is made for.

    Precision and the element type of the result are those of ``params``.
    """
    spatial = tuple(range(1, image.ndim - 1))
    image_spec = (0, image.ndim - 1, *spatial)
    kernel_spec = (image.ndim - 1, image.ndim - 2, *range(image.ndim - 2))
    return lax.conv_general_dilated(
        image,
        kernel,
        window_strides=tuple(strides),
        padding=tuple(padding),
        lhs_dilation=None if lhs_dilation is None else tuple(lhs_dilation),
        rhs_dilation=None if rhs_dilation is None else tuple(rhs_dilation),
        dimension_numbers=lax.ConvDimensionNumbers(image_spec, kernel_spec, image_spec),
        feature_group_count=groups,
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
