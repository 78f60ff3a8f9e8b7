"""Sorts of floats as sorts of integers, whose comparison is one instruction.

XLA:CPU sorts floats by a comparison that puts NaNs last and zeros together, and calls it for every pair; for integers
it uses the library's own loop.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives

from ...core.forms import Form, Signature, direct_form
from . import costs
from .top_k import from_keys, ordered_keys

COMPARISON_SECONDS = 11e-9
INTEGER_COMPARISON_SECONDS = 2.5e-9
"""Per element and doubling of the axis."""

CONVERSION_SECONDS = 1e-9
"""Per element, both ways."""


def integer_keys(operand: jax.Array, *, dimension: int, is_stable: bool, num_keys: int) -> list[jax.Array]:
    """``sort`` of one operand of floats.

    Zeros come out with -0 before 0, NaNs as one kind of NaN, and subnormal numbers, which the primitive takes for
    zeros, where they belong.
    """
    del is_stable, num_keys  # of equal numbers, none can be told from another
    wide = operand.astype(jnp.float32)
    keys = ordered_keys(jnp.where(wide != wide, jnp.float32(jnp.nan), wide))
    return [from_keys(lax.sort(keys, dimension=dimension, is_stable=False)).astype(operand.dtype)]


def _applies(signature: Signature) -> str | None:
    if len(signature.operands) != 1:
        return "it carries other arrays along"
    dtype = signature.operands[0].dtype
    return None if dtype in ("float32", "float16", "bfloat16") else f"it has elements of type {dtype}"


def _comparisons(signature: Signature) -> float:
    operand = signature.operands[0]
    return operand.size * math.log2(max(2, operand.shape[signature.params["dimension"]]))


def _direct_cost(signature: Signature) -> float:
    return costs.kernel(0.0) + COMPARISON_SECONDS * _comparisons(signature)


def _cost(signature: Signature) -> float:
    conversion = CONVERSION_SECONDS * signature.operands[0].size
    return 3 * costs.kernel(0.0) + conversion + INTEGER_COMPARISON_SECONDS * _comparisons(signature)


FORMS: tuple[Any, ...] = (
    direct_form(primitives.sort_p, _direct_cost),
    Form("integer-keys", "sort", integer_keys, _applies, _cost, "reassociating"),
)
