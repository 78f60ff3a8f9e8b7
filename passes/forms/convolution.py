"""All forms of convolution, the primitive itself first."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import primitives

from ...core.forms import Form, Signature, direct_form
from . import (
    canonical,
    costs,
    depthwise,
    grouped,
    patches,
    pointwise,
    rank,
    stretched,
    transposed,
    weight_gradient,
    winograd,
)
from .convolution_costs import direct_seconds
from .geometry import result_dtype, why_unusual

_FLOAT32_FORMS = (
    direct_form(primitives.conv_general_dilated_p, direct_seconds),
    *depthwise.FORMS,
    *pointwise.FORMS,
    *winograd.FORMS,
    *stretched.FORMS,
    *patches.FORMS,
    *rank.FORMS,
    *grouped.FORMS,
    *transposed.FORMS,
    *weight_gradient.FORMS,
    *canonical.FORMS,
)


def widened(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """A convolution of 16-bit floats in 32 bits, for the sake of the forms that it has there."""
    wide = params | {"preferred_element_type": None}
    out = primitives.conv_general_dilated_p.bind(lhs.astype(jnp.float32), rhs.astype(jnp.float32), **wide)
    return jnp.asarray(out).astype(result_dtype(lhs, params))


def _in_float32(signature: Signature) -> Signature:
    operands = tuple(dataclasses.replace(operand, dtype="float32") for operand in signature.operands)
    results = tuple(dataclasses.replace(result, dtype="float32") for result in signature.results)
    return dataclasses.replace(signature, operands=operands, results=results)


def _widened_applies(signature: Signature) -> str | None:
    if any(jnp.dtype(operand.dtype).itemsize != 2 for operand in signature.operands):
        return f"its operands are {signature.operands[0].dtype} and {signature.operands[1].dtype}, not of 16 bits"
    return why_unusual(signature)


def _widened_cost(signature: Signature) -> float:
    wide = _in_float32(signature)
    best = min(form.cost(wide) for form in _FLOAT32_FORMS if form.applies(wide) is None)
    return best + costs.loop(3.0 * signature.bytes)


FORMS = (*_FLOAT32_FORMS, Form("widened", "conv_general_dilated", widened, _widened_applies, _widened_cost))
