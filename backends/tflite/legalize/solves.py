"""`jax.lax.custom_linear_solve`: the solver alone, without what its derivatives need."""

from __future__ import annotations

from typing import Any

import jax

from ....core import _compat
from ....core.node import Node
from .retype import Site
from .rule import node_lowering


def solved(node: Node, *operands: jax.Array) -> list[jax.Array]:
    """The solver applied to its constants and the right-hand sides."""
    lengths, jaxprs = node.params["const_lengths"], node.params["jaxprs"]
    first = lengths.matvec + lengths.vecmat
    consts = operands[first : first + lengths.solve]
    sides = operands[first + lengths.solve + lengths.transpose_solve :]
    body: Any = jaxprs.solve
    return _compat.eval_jaxpr(body.jaxpr, body.consts, *consts, *sides)


def solved_at(site: Site, *operands: jax.Array) -> list[jax.Array]:
    """The same at the operation's own types."""
    return solved(site.node, *operands)


RULES = (node_lowering("solver", "custom_linear_solve", solved, any_size=True),)
