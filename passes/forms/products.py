"""The matrix product that forms are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def product(
    lhs: jax.Array,
    rhs: jax.Array,
    contract: tuple[Sequence[int], Sequence[int]],
    batch: tuple[Sequence[int], Sequence[int]] = ((), ()),
    *,
    dtype: Any,
    precision: Any = None,
) -> jax.Array:
    """``lax.dot_general`` with a result of type ``dtype``, added up in at least 32 bits.

    16-bit floats are widened first: XLA:CPU multiplies them in scalar loops.
    """
    if jnp.issubdtype(lhs.dtype, jnp.floating) and lhs.dtype.itemsize < 4:
        lhs, rhs = lhs.astype(jnp.float32), rhs.astype(jnp.float32)
    wide = lhs.dtype if lhs.dtype.itemsize > jnp.dtype(dtype).itemsize else dtype
    dimensions = ((tuple(contract[0]), tuple(contract[1])), (tuple(batch[0]), tuple(batch[1])))
    if jnp.issubdtype(wide, jnp.floating) and jnp.dtype(wide).itemsize < 4:
        wide = jnp.float32
    out = lax.dot_general(lhs, rhs, dimensions, precision=precision, preferred_element_type=wide)
    return out.astype(dtype)
