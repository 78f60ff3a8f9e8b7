"""Products of complex matrices, and convolutions of complex images."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .carriers import kind_of
from .real import bind
from .retype import Site

Array = jax.Array


def complex_product(site: Site, x: Array, y: Array) -> Array:
    """Four real products, or two where one operand is real."""
    left = [x[..., 0], x[..., 1]] if kind_of(site.operands[0].dtype) == "complex" else [x]
    right = [y[..., 0], y[..., 1]] if kind_of(site.operands[1].dtype) == "complex" else [y]
    re = bind(site, [left[0], right[0]])
    if len(left) == 2 and len(right) == 2:
        re = re - bind(site, [left[1], right[1]])
    crossed = [bind(site, [left[0], right[1]])] if len(right) == 2 else []
    crossed += [bind(site, [left[1], right[0]])] if len(left) == 2 else []
    return jnp.stack([re, sum(crossed[1:], crossed[0])], axis=-1)
