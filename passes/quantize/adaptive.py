"""Weights rounded up or down by what that does to the output of their layer, on typical inputs.

Rounding to the nearest is best for the weights, not for the products they are in: errors of weights that meet
correlated inputs may cancel. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization",
arXiv:2004.10568, section 3, show that the loss is, to second order and layer by layer, the mean square error of the
layer's output: ``E' M E`` for errors ``E`` of the weights and second moments ``M`` of its inputs. They relax the choice
and follow its gradient; here the same sum is minimized over the integers themselves, one weight of every output channel
at a time, which needs no learning rate, and never ends above where it began.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...core.program import Program
from .arithmetic import Parameters, quantize_array, spread
from .calibration import Progress, observed
from .operations import Operation
from .product_forms import Form, summed_rows

Array = np.ndarray[Any, Any]

SWEEPS = 12
"""Times that every weight is looked at; most layers settle sooner."""

BLOCK = 64
"""Weights between two multiplications by the whole matrix of moments."""

PLACES = 1024
"""Of every batch, at most so many sums of a layer are looked at: neighbours in an image tell little more."""

DEPTH = 8192
"""Sums of more terms are rounded to the nearest: the matrix of their moments would take more than 256 MB."""

DAMPING = 0.01
"""Of the mean moment, added to each: inputs that were seen too seldom do not pull on weights."""

SEED = 0


def second_moments(
    program: Program,
    products: Sequence[Operation],
    batches: Iterable[Sequence[Any]],
    progress: Progress = lambda done: None,
) -> dict[str, Array]:
    """Of the inputs of products, summed over some of the places where each product is computed.

    Args:
      program: whose graph the products are in.
      products: those with sums of at most `DEPTH` terms are looked at.
      batches: flat inputs, in the layout in which the program was traced.
      progress: told of every batch.

    Returns:
      For the name of each product, float32 ``[groups, terms of the sum, terms of the sum]``.
    """
    products = [op for op in products if _terms(op) <= DEPTH]
    tapped = observed(program, [op.node.inputs[op.operands[0]] for op in products])
    rng = np.random.default_rng(SEED)
    found: dict[str, Array] = {}
    for number, flat in enumerate(batches, 1):
        arrays = tapped.evaluate_flat(program.as_converted(flat))
        for op, array in zip(products, arrays, strict=True):
            rows = summed_rows(op, np.asarray(array, np.float32), PLACES, rng)
            moments = np.swapaxes(rows, 1, 2) @ rows
            found[op.name] = found[op.name] + moments if op.name in found else moments
        progress(number)
    return found


def _terms(operation: Operation) -> int:
    """Of the sum that makes one number of the result."""
    if operation.kind == "conv":
        axis = operation.node.params["dimension_numbers"].rhs_spec[0]
        return math.prod(size for k, size in enumerate(operation.weights.shape) if k != axis)
    (contracting, _) = operation.node.params["dimension_numbers"]
    return math.prod(operation.weights.shape[axis] for axis in contracting[1 - operation.operands[0]])


@dataclasses.dataclass
class AdaptiveRounding:
    """Rounds the weights of a program's products, for some time.

    Attributes:
      moments: of the inputs, as `second_moments` gives them.
      seconds: that may be spent; after these, products are rounded to the nearest. 0 for no limit.
      gains: for each product that was rounded, the error of its output by the error with the nearest integers; None
        where time was up.
    """

    moments: Mapping[str, Array]
    seconds: float = 0.0
    gains: dict[str, float | None] = dataclasses.field(default_factory=dict)
    _spent: float = 0.0
    _known: dict[tuple[str, bytes], Array] = dataclasses.field(default_factory=dict)

    def integers(self, name: str, form: Form, p: Parameters) -> Array:
        """The integers of the weights of a product; the same when asked again."""
        key = (name, p.scale.tobytes())
        if key not in self._known:
            self._known[key] = self._rounded(name, form, p)
        return self._known[key]

    def _rounded(self, name: str, form: Form, p: Parameters) -> Array:
        nearest = quantize_array(form.weights, p)
        if name not in self.moments or 0 < self.seconds <= self._spent:
            self.gains[name] = None
            return nearest
        start = time.perf_counter()
        numbers = form.matrices(nearest.astype(np.float32))
        scales = form.matrices(spread(p.scale, form.weights.shape, p.axis, p.group))
        parts = zip(form.matrices(form.weights), numbers, scales, self.moments[name], strict=True)
        left = max(self.seconds - self._spent, 0.0) if self.seconds else None
        found, before, after = [], 0.0, 0.0
        for weights, integers, scale, moments in parts:
            until = None if left is None else start + left
            better, errors = descend(weights, integers, scale, moments, p.limits, until)
            found.append(better)
            before, after = before + errors[0], after + errors[1]
        self.gains[name] = after / before if before else 1.0
        self._spent += time.perf_counter() - start
        return form.from_matrices(np.stack(found)).astype(nearest.dtype)


def descend(
    weights: Array,
    integers: Array,
    scale: Array,
    moments: Array,
    limits: tuple[int, int],
    until: float | None = None,
) -> tuple[Array, tuple[float, float]]:
    """Integers for weights with less error of the sums over terms, and that error before and after.

    Args:
      weights: float32 ``[terms, outputs]``.
      integers: where to begin; float32 of the same shape.
      scale: of the integers; of the same shape.
      moments: float32 ``[terms, terms]``.
      limits: the smallest and the largest integer.
      until: of `time.perf_counter`, when to stop; None for never.
    """
    damping = np.float32(DAMPING * np.mean(np.diag(moments)))
    damped = moments + damping * np.eye(len(moments), dtype=np.float32)
    own = np.diag(damped)
    numbers = integers.astype(np.float32)

    def gradient() -> Array:
        return np.asarray(damped @ (numbers * scale - weights), np.float32)

    def error(slope: Array) -> float:
        return float(np.sum((numbers * scale - weights).astype(np.float64) * slope))

    slope = gradient()
    before = after = error(slope)
    for _ in range(SWEEPS):
        if not own.any() or (until is not None and time.perf_counter() > until):
            break
        kept = numbers.copy()
        for first in range(0, len(numbers), BLOCK):
            block = slice(first, first + BLOCK)
            change = _descend_block(numbers[block], slope[block].copy(), scale[block], damped[block, block], limits)
            slope += damped[:, block] @ change
        slope = gradient()  # afresh: without the rounding errors of its updates
        less = error(slope)
        if not less < after:  # what float32 resolves has been reached
            numbers = kept if less > after else numbers
            break
        after = less
    return numbers, (before, after)


def _descend_block(numbers: Array, slope: Array, scale: Array, damped: Array, limits: tuple[int, int]) -> Array:
    """Moves some consecutive weights, each to where the error is least as the others are; returns by how much."""
    change = np.zeros_like(numbers)
    for k in range(len(numbers)):
        if not damped[k, k] > 0:
            continue
        better = np.clip(numbers[k] - np.rint(slope[k] / (damped[k, k] * scale[k])), *limits)
        moved = (better - numbers[k]) * scale[k]
        if moved.any():
            numbers[k], change[k] = better, moved
            slope += damped[:, k : k + 1] * moved
    return change
