"""The static cost model: seconds on the reference machine, two cores of an AVX-512 server.

The figures are fitted to what ``benchmarks/forms.py`` measures. They serve to compare forms of one operation, not to
predict how long a model takes.
"""

from __future__ import annotations

import math

KERNEL_SECONDS = 1e-6
"""Starting one kernel."""

WAKE_SECONDS = 4e-6
PARALLEL_BYTES = 64e3
"""XLA spreads a kernel over the cores, and waits for them, when it touches more than this."""

CACHE_BYTES = 32e6
CACHE_BYTES_PER_SECOND = 100e9
"""What a fused loop reads and writes while its arrays stay in the cache, and how much that may be."""

MEMORY_BYTES_PER_SECOND = 25e9
"""What streams through that does not stay in the cache, such as a product's weights."""

VECTOR_FLOPS = 150e9
"""Multiply-adds count as two; a fused loop that loads both operands of each."""

VECTOR_ELEMENTS = 8
"""Elements of one vector; XLA vectorizes along the innermost dimension."""

DOT_FLOPS = 400e9
"""A large product of float32 matrices."""

PARALLEL_MULTIPLY_ADDS = 2**23
"""A product, each one of a batch by itself, with fewer multiply-adds than this stays on one core."""

DOT_MINIMUM = 32
"""A product whose depth or width is less than this runs proportionally slower."""

BFLOAT16_SPEED = 1.9
"""How much faster the library multiplies matrices of bfloat16 into float32, on a CPU with instructions for it."""


def kernel(bytes_touched: float) -> float:
    """Starting a kernel, and waiting for it."""
    return KERNEL_SECONDS + (WAKE_SECONDS if bytes_touched > PARALLEL_BYTES else 0.0)


def loop(bytes_touched: float, operations: float = 0.0, *, width: int = 64) -> float:
    """A fused loop over arrays whose innermost dimension has ``width`` elements: memory, then arithmetic."""
    lanes = width / (VECTOR_ELEMENTS * -(-width // VECTOR_ELEMENTS))
    rate = CACHE_BYTES_PER_SECOND if bytes_touched <= CACHE_BYTES else MEMORY_BYTES_PER_SECOND
    work = bytes_touched / rate + operations / (VECTOR_FLOPS * lanes)
    return kernel(bytes_touched) + work


def dot(rows: float, depth: float, columns: float, batch: float = 1.0) -> float:
    """``batch`` products of ``[rows, depth]`` and ``[depth, columns]`` in float32."""
    return _dot(rows, depth, columns, batch, DOT_FLOPS, 4.0)


def bfloat16_dot(rows: float, depth: float, columns: float, batch: float = 1.0) -> float:
    """The same of matrices of bfloat16, with a result in float32; not of vectors, which it takes far longer for."""
    return _dot(rows, depth, columns, batch, BFLOAT16_SPEED * DOT_FLOPS, 2.0)


def _dot(rows: float, depth: float, columns: float, batch: float, flops: float, operand_bytes: float) -> float:
    fill = 1.0 if rows * depth * columns >= PARALLEL_MULTIPLY_ADDS else 0.5
    for side in (depth, columns):
        fill *= math.sqrt(min(1.0, side / DOT_MINIMUM))
    traffic = batch * (operand_bytes * depth * (rows + columns) + 4.0 * rows * columns)
    arithmetic = 2.0 * batch * rows * depth * columns / (flops * fill)
    return kernel(traffic) + max(arithmetic, traffic / MEMORY_BYTES_PER_SECOND)
