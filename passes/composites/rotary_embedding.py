"""Rotary position embedding: Su et al., "RoFormer", arXiv:2104.09864."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ...core.composites import Composite
from ...core.node import Node
from ...core.patterns import op, var
from ...core.rewrite import Match, Rule
from .spelling import Through, declines, outlined

_x, _cos, _sin = var("x"), var("cos"), var("sin")


def rotary_embedding(x: jax.Array, cos: jax.Array, sin: jax.Array, *, interleaved: bool) -> jax.Array:
    """Turns pairs of neighbours along the last dimension by angles.

    Args:
      x: real floats of shape ``[..., n]``, with ``n`` even.
      cos, sin: of the angles; broadcast to ``[..., n / 2]``, or to ``[..., n]`` with the angles twice.
      interleaved: pairs are elements ``2 i`` and ``2 i + 1``; else ``i`` and ``i + n / 2``.

    Returns:
      An array of the shape of ``x``.
    """
    half = x.shape[-1] // 2
    first, second = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    if cos.shape[-1] == x.shape[-1]:
        return x * cos + jnp.concatenate((-second, first), -1) * sin
    turned = first * cos - second * sin, second * cos + first * sin
    return jnp.stack(turned, -1).reshape(x.shape) if interleaved else jnp.concatenate(turned, -1)


def _halves(match: Match) -> dict[str, Any] | str:
    last = len(match["x"].shape) - 1
    size = match["x"].shape[last]
    if not isinstance(size, int) or size % 2 or match["joined"].params["dimension"] != last:
        return "it does not join two halves along the last dimension"
    if not all(_takes(match[n], last, (i * size // 2, (i + 1) * size // 2, 1)) for i, n in enumerate(_PARTS)):
        return "its parts are not halves"
    return {"interleaved": False}


def _interleaved(match: Match) -> dict[str, Any] | str:
    last = len(match["x"].shape) - 1
    size = match["x"].shape[last]
    if not isinstance(size, int) or size % 2 or match.root.outputs[0].shape != match["x"].shape:
        return "it does not interleave along the last dimension"
    joined: Node = match["joined"]
    half = (*match["x"].shape[:last], size // 2)
    axis, shape = (joined.params["axis"], half) if joined.name == "stack" else (joined.params["dimension"], (*half, 1))
    if axis != last + 1 or any(value.shape != shape for value in joined.inputs):
        return "it does not interleave along the last dimension"
    if not all(
        match[n].name == "slice" and _takes(match[n], last, (i, size - 1 + i, 2), (i, size, 2))
        for i, n in enumerate(_PARTS)
    ):
        return "its parts are not every other element"
    return {"interleaved": True}


_PARTS = ("first", "second")


def _takes(node: Node, last: int, *ranges: tuple[int, int, int]) -> bool:
    """Whether a slice takes one of some ranges (start, limit, stride) of the last dimension, or a split halves it."""
    shape, params = node.inputs[0].shape, node.params
    if node.name == "split":
        return params["axis"] == last and len(node.outputs) == 2 and node.outputs[0].shape[last] * 2 == shape[last]
    strides = params["strides"] or (1,) * len(shape)
    taken = tuple(zip(params["start_indices"], params["limit_indices"], strides, strict=True))
    return taken[last] in ranges and all(t == (0, n, 1) for t, n in zip(taken[:last], shape[:last], strict=True))


_first = op.slice(_x, name="first") | op.split(_x, name="first", output=0)
_second = op.slice(_x, name="second") | op.split(_x, name="second", output=1)
_lower = op.sub(op.mul(_first, _cos), op.mul(_second, _sin))
_upper = op.add(op.mul(_second, _cos), op.mul(_first, _sin))
_stacked = op.stack(_lower, _upper, name="joined") | op.concatenate(Through(_lower), Through(_upper), name="joined")
_turned_whole = op.add(op.mul(_x, _cos), op.mul(op.concatenate(-_second, _first, name="joined"), _sin))

_OUTLINE = Composite("xlapass.rotary_embedding", rotary_embedding)
_OPERANDS = ("x", "cos", "sin")

ROTARY_EMBEDDING = dataclasses.replace(
    _OUTLINE,
    rules=(
        Rule(
            "rotary-of-halves",
            op.concatenate(_lower, _upper, name="joined") | _turned_whole,
            outlined(_OUTLINE, _OPERANDS, _halves),
            declines(_halves),
        ),
        Rule(
            "rotary-interleaved",
            op.reshape(_stacked),
            outlined(_OUTLINE, _OPERANDS, _interleaved),
            declines(_interleaved),
        ),
    ),
)
"""``ROTARY_EMBEDDING(x, cos, sin, interleaved=...)``."""
