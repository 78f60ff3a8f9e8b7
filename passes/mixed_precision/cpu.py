"""When XLA:CPU multiplies matrices of bfloat16 faster than those of float32, the casts included."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

from ...core.forms import Signature
from ...core.precision import Candidate
from ...core.target import Target
from ..forms import costs
from ..forms.dots import matrix_sizes
from .operands import lies_across

PROPERTY = "bfloat16_products"
"""Property of a target: whether its CPU multiplies bfloat16 in vectors; without it, this machine is asked."""

FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names of such instructions, of x86 and of Arm, as Linux tells them."""

LEAST_ROWS = 16
"""Of either operand. A product with a vector takes up to ten times as long in bfloat16, and with a few no less."""

LEAST_GAIN = 1.15
"""What the estimate must promise: it knows nothing of what XLA fuses."""

CAST_SECONDS = 0.2e-9
"""Rounding one element, in a loop of its own."""


def why_slower(candidate: Candidate) -> str | None:
    """Why a product is no faster in the small type, as an estimate says, or None."""
    if candidate.dtype.name != "bfloat16":
        return f"XLA:CPU is no faster with {candidate.dtype}"
    if not has_bfloat16_products(candidate.target):
        return "this CPU has no instructions for it"
    signature = Signature.of_node(candidate.node)
    if not signature.is_static:
        return "its sizes are not known yet"
    if signature.is_empty:
        return "it has no elements"
    batch, rows, depth, columns = matrix_sizes(signature)
    if min(rows, columns) < LEAST_ROWS:
        return f"it has {min(rows, columns)} rows or columns, fewer than {LEAST_ROWS}"
    if lies_across(candidate.node):
        return "its first operand lies across, and XLA:CPU multiplies it in float32"
    casts = sum(signature.operands[i].size / candidate.sharing.get(i, 1) for i in candidate.runtime_casts)
    before = costs.dot(rows, depth, columns, batch)
    after = costs.bfloat16_dot(rows, depth, columns, batch) + CAST_SECONDS * casts
    return None if before > LEAST_GAIN * after else f"it would gain less than {LEAST_GAIN}x"


def has_bfloat16_products(target: Target | None) -> bool:
    """Whether the CPU that programs are compiled for multiplies bfloat16 in vectors."""
    known = target.properties.get(PROPERTY) if target is not None else None
    return _this_machine_has() if known is None else bool(known)


@functools.cache
def _this_machine_has() -> bool:
    path = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not path.exists():
        return False
    words = set(path.read_text(encoding="utf-8", errors="replace").split())
    return not words.isdisjoint(FLAGS)
