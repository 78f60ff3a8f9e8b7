"""Arrays for the calls in ``onnx_library`` and ``onnx_programs``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

RNG = np.random.default_rng(0)

Call = tuple[Callable[..., Any], tuple[Any, ...]]


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def between(low, high, *shape, dtype=np.float32):
    return RNG.uniform(low, high, shape).astype(dtype)


def names(text):
    return text.split()


def whole(low, high, *shape, dtype=np.int32):
    return RNG.integers(low, high, shape).astype(dtype)


X, Y, V = normal(3, 4), normal(3, 4), normal(5)
P = between(0.05, 0.95, 3, 4)
BIG = between(1.05, 3.0, 3, 4)
K, J = whole(-9, 9, 3, 4), whole(1, 5, 3, 4)
Z = (normal(3, 4) + 1j * normal(3, 4)).astype(np.complex64)
MASK = RNG.random((3, 4)) > 0.5
CUBE = normal(2, 3, 4)
SQUARE = normal(4, 4)
SPD = (SQUARE @ SQUARE.T + 4 * np.eye(4)).astype(np.float32)
KEY = np.array([3, 7], np.uint32)
IMAGE = normal(1, 6, 6, 2)
