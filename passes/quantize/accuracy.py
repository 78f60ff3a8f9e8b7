"""Which products cost the accuracy, and how many may be integers for a given one.

Every product is quantized alone, and what that does to the outputs is measured. Products are then left in float, those
that do most harm for the work that they save first, until the target is met: the fewest that do, found by bisection.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...core.errors import MissingDependencyError, UsageError, UserCodeError
from ...core.files import write_atomically

Outputs = Sequence[Any]
Metric = Callable[[Outputs, Outputs], float]
"""``metric(outputs in float, outputs)`` for one batch, flat; larger is better."""

_TARGET = re.compile(r"\s*([\w.]+(?::\w+)?)\s*>=?\s*([-+.\deE]+)\s*")


def _joined(outputs: Outputs) -> np.ndarray[Any, Any]:
    floats = [np.asarray(x, np.float64).reshape(-1) for x in outputs if np.asarray(x).dtype.kind in "fbiu"]
    return np.concatenate(floats) if floats else np.zeros(0)


def cosine(exact: Outputs, found: Outputs) -> float:
    """Of the angle between all outputs and all outputs in float."""
    a, b = _joined(exact), _joined(found)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1.0 if norms == 0 and not a.any() and not b.any() else float(a @ b) / max(norms, 1e-30)


def sqnr(exact: Outputs, found: Outputs) -> float:
    """Signal to quantization noise in dB."""
    a, b = _joined(exact), _joined(found)
    return float(10 * np.log10(max((a**2).sum(), 1e-30) / max(((a - b) ** 2).sum(), 1e-30)))


def agreement(exact: Outputs, found: Outputs) -> float:
    """The share of rows of the first output in which the largest number stands in the same place."""
    a, b = (np.asarray(outputs[0]) for outputs in (exact, found))
    return float((a.argmax(-1) == b.argmax(-1)).mean()) if a.size else 1.0


METRICS: Mapping[str, Metric] = {"cosine": cosine, "sqnr": sqnr, "agreement": agreement}


@dataclasses.dataclass(frozen=True)
class Target:
    """What is asked of a quantized program: ``cosine>0.999``.

    Attributes:
      metric: measures one batch.
      threshold: the least mean over batches.
      text: as it was written.
    """

    metric: Metric
    threshold: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Reads ``NAME>NUMBER``, where the name is one of `METRICS` or ``module:function`` of the user's.

        Raises:
          UsageError: it is not of that form, or there is no such metric.
        """
        match = _TARGET.fullmatch(text)
        if match is None:
            raise UsageError(
                f"cannot read the accuracy target {text!r}", hint="write cosine>0.999, or module:function>1"
            )
        try:
            threshold = float(match[2])
        except ValueError:
            raise UsageError(f"the accuracy target {text!r} ends in no number") from None
        return cls(_metric(match[1]), threshold, text)


def _metric(name: str) -> Metric:
    if name in METRICS:
        return METRICS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise UsageError(f"there is no metric {name!r}", hint=f"there are: {', '.join(METRICS)}, and module:function")
    try:
        found: Metric = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"there is no metric {name!r}: {error}") from error
    return found


@dataclasses.dataclass(frozen=True)
class Row:
    """One choice of products to leave in float.

    Attributes:
      floats: how many, of those that could be integers.
      integer_work: the share of the multiplications of all of these that is done with integers.
      metric: mean over batches.
    """

    floats: int
    integer_work: float
    metric: float

    def data(self) -> dict[str, Any]:
        """For the report."""
        return {
            "products in float": self.floats,
            "work in integers": f"{100 * self.integer_work:.1f} %",
            "accuracy": f"{self.metric:.6g}",
        }


@dataclasses.dataclass(frozen=True)
class Tradeoff:
    """What was found.

    Attributes:
      keep: names of the products to leave in float.
      rows: what was tried, by how much is left in float.
      harm: for each product, the metric with that one alone in integers, worst first.
    """

    keep: tuple[str, ...]
    rows: tuple[Row, ...]
    harm: Mapping[str, float]

    def tables(self, target: Target) -> dict[str, Any]:
        """For the report."""
        alone = [{"product, quantized alone": name, "accuracy": f"{value:.6g}"} for name, value in self.harm.items()]
        return {f"trade-off for {target.text}": [row.data() for row in self.rows], "sensitivity": alone}


Evaluate = Callable[[Sequence[str]], float]
"""The metric with these products in float."""


def meet(target: Target, work: Mapping[str, float], evaluate: Evaluate) -> Tradeoff:
    """Finds the products to leave in float.

    Args:
      target: what is to be met.
      work: multiplications of every product that can be an integer kernel.
      evaluate: measures a choice.

    Raises:
      UsageError: not even with all products in float is the target met.
    """
    names, total = list(work), max(sum(work.values()), 1.0)
    tried: dict[int, Row] = {}
    order: list[str] = []

    def attempt(count: int) -> Row:
        if count not in tried:
            floats = order[:count]
            share = 1 - sum(work[name] for name in floats) / total
            tried[count] = Row(count, share, evaluate(floats))
        return tried[count]

    if attempt(0).metric >= target.threshold:
        return Tradeoff((), (attempt(0),), {})
    harm = {name: evaluate([other for other in names if other != name]) for name in names}
    best = max([*harm.values(), evaluate(names)])
    order = sorted(names, key=lambda name: (best - harm[name]) / max(work[name], 1.0), reverse=True)
    low, high = 0, len(names)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if attempt(middle).metric >= target.threshold else (middle, high)
    if attempt(high).metric < target.threshold:
        raise UsageError(
            f"the accuracy target {target.text} is not met even with every product in float "
            f"({attempt(high).metric:.6g})",
            hint="ask for less",
        )
    rows = tuple(row for _, row in sorted(tried.items()))
    return Tradeoff(tuple(order[:high]), rows, dict(sorted(harm.items(), key=lambda item: item[1])))


def plot(found: Tradeoff, target: Target, path: str) -> None:
    """Draws the trade-off; the format follows from the name of the file."""
    import io

    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("plotting", "dev", "matplotlib") from error
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    rows = sorted(found.rows, key=lambda row: row.integer_work)
    axes.plot([100 * row.integer_work for row in rows], [row.metric for row in rows], marker="o")
    axes.axhline(target.threshold, linestyle="--", color="gray")
    axes.set_xlabel("multiplications done with integers, %")
    axes.set_ylabel(target.text.partition(">")[0])
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.rpartition(".")[2])
    write_atomically(path, buffer.getvalue())


def checked(metric: Metric, exact: Outputs, found: Outputs) -> float:
    """The metric of one batch; what a user's function raises, or returns besides numbers, is reported as such."""
    try:
        value = float(metric(exact, found))
    except Exception as error:  # the function may be the user's, and may raise anything
        raise UserCodeError(f"the metric {getattr(metric, '__name__', metric)!r} raised") from error
    return value if math.isfinite(value) else -math.inf
