"""Composites that ONNX has as one operator."""

from __future__ import annotations

from typing import Any

from ..operand import Operand


def whole(ctx: Any, eqn: Any, operands: tuple[Operand, ...]) -> list[Any] | None:
    """The results of the ONNX operator for a composite, or None when its decomposition is to be used."""
    return None
