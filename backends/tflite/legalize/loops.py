"""Loops that the converters do not take as they are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ....core import _compat
from ....core.node import Node
from .rule import node_lowering

Array = jax.Array


def _no_rounds(node: Node, *operands: Array) -> list[Array]:
    consts, carries = _compat.scan_sizes(node.params)
    stacked = node.outputs[carries:]
    return [*operands[consts : consts + carries], *(jnp.zeros(v.shape, v.dtype) for v in stacked)]


def _why_not_no_rounds(node: Node) -> str | None:
    length: Any = node.params["length"]
    return "it has effects" if node.effects else "it has rounds" if length else None


RULES = (node_lowering("no-rounds", "scan", _no_rounds, _why_not_no_rounds, "exact"),)
