"""The legality table: which primitives the converters take once the pipeline has done its work, and which never."""

from __future__ import annotations

from ...core.backend import Legality, LegalityTable
from ...core.node import Node
from .legalize.native import taken

OPENED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint", "composite")
"""Operations that are nothing but their bodies."""

_REFUSED = {
    **dict.fromkeys(
        ("schur", "eig", "tridiagonal", "geqp3", "ormqr", "cholesky_update"),
        "this factorisation is not supported",
    ),
    **dict.fromkeys(("pure_callback", "io_callback", "debug_callback", "debug_print"), "a file cannot call Python"),
}
"""Primitives that no rule makes legal, and why."""


def _refusal(reason: str) -> Legality:
    def check(node: Node) -> str:
        return reason

    return Legality("", check=check)


def table() -> LegalityTable:
    """The table; rows of refused primitives say why."""
    refused = [Legality(name, check=_refusal(reason).check) for name, reason in _REFUSED.items()]
    return LegalityTable([*taken(), *refused], opened=OPENED)
