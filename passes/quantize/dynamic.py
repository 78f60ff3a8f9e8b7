"""The composite `dynamic_dot`: rows whose range is measured when they are there, times a matrix of int8.

Rows are quantized as ONNX's ``DynamicQuantizeLinear`` does: 8 bits, one scale and zero point for the whole array.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ...core.composites import Composite
from .arithmetic import SMALLEST_SCALE

_STEPS = 255


def _dynamic_dot(x: jax.Array, w: jax.Array, scale: jax.Array) -> jax.Array:
    """``x @ (w * scale)``: float32 ``[rows, depth]``, int8 ``[depth, columns]``, float32 ``[columns]`` or ``[]``."""
    low = jnp.minimum(jnp.min(x, initial=0.0), 0.0)
    high = jnp.maximum(jnp.max(x, initial=0.0), 0.0)
    step = jnp.maximum((high - low) / np.float32(_STEPS), np.float32(SMALLEST_SCALE))
    zero = jnp.clip(jnp.round(-low / step), 0, _STEPS) - 128
    numbers = jnp.clip(jnp.round(x / step) + zero, -128, 127).astype(jnp.int8)
    products = jax.lax.dot_general(numbers, w, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32)
    products = products - zero.astype(jnp.int32) * w.astype(jnp.int32).sum(0)
    return products.astype(jnp.float32) * (step * scale)


DYNAMIC_DOT = Composite("xlapass.dynamic_dot", _dynamic_dot)
"""``DYNAMIC_DOT(x, w, scale)``."""


DYNAMIC_RANGE = Composite("xlapass.dynamic_range", lambda x: jnp.asarray(x) + 0.0)
"""Marks an activation whose range the runtime is to measure."""
