"""Observers: the range that is to be represented, from what was seen.

All of them read the same `Statistics`, so that one calibration serves every method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from .statistics import Statistics

Range = tuple[float, float]
Method = Literal["min-max", "moving-average", "percentile", "entropy", "mse"]

CANDIDATES = 128
"""Ranges that the searching observers try."""

NARROWEST = 1 / 64
"""Of the whole range; a search stops there."""


def min_max(seen: Statistics, levels: int, percentile: float) -> Range:
    """Everything that was seen."""
    return seen.low, seen.high


def moving_average(seen: Statistics, levels: int, percentile: float) -> Range:
    """Moving averages of the extremes of each batch; Jacob et al., arXiv:1712.05877, section 3.1."""
    return seen.moving_low, seen.moving_high


def by_percentile(seen: Statistics, levels: int, percentile: float) -> Range:
    """Without the outermost numbers: ``percentile`` percent of all numbers lie below the upper end, and as many above
    the lower one."""
    histogram = seen.histogram
    assert histogram is not None
    shares = np.cumsum(histogram.counts) / histogram.counts.sum()
    tail = 1 - percentile / 100
    low = histogram.low + histogram.width * int(np.searchsorted(shares, tail, side="right"))
    high = histogram.low + histogram.width * (int(np.searchsorted(shares, 1 - tail)) + 1)
    return max(low, seen.low), min(high, seen.high)


def entropy(seen: Statistics, levels: int, percentile: float) -> Range:
    """The range whose quantized distribution loses least information (Kullback-Leibler divergence).

    Migacz, "8-bit Inference with TensorRT", GTC 2017; here for ranges that need not be symmetric.
    """
    ranges = _shrunk(seen)
    losses = [_divergence(seen, low, high, levels) for low, high in ranges]
    return ranges[int(np.argmin(losses))]


def mse(seen: Statistics, levels: int, percentile: float) -> Range:
    """The range with the least mean square error, each end by itself; Banner et al., arXiv:1810.05723."""
    best = min(_shrunk(seen), key=lambda r: _square_error(seen, r, levels))
    for _ in range(2):
        low, high = best
        ends = [(end, high) for end in np.linspace(min(seen.low, 0.0), 0.0, CANDIDATES, endpoint=False)]
        low, high = min([best, *ends], key=lambda r: _square_error(seen, r, levels))
        ends = [(low, end) for end in np.linspace(max(seen.high, 0.0), 0.0, CANDIDATES, endpoint=False)]
        best = min([(low, high), *ends], key=lambda r: _square_error(seen, r, levels))
    return float(best[0]), float(best[1])


OBSERVERS: Mapping[str, Callable[[Statistics, int, float], Range]] = {
    "min-max": min_max,
    "moving-average": moving_average,
    "percentile": by_percentile,
    "entropy": entropy,
    "mse": mse,
}


def range_of(seen: Statistics, method: Method = "min-max", *, levels: int = 256, percentile: float = 99.99) -> Range:
    """The range to represent; zero for a value that was never seen to hold a number.

    Args:
      seen: what was seen.
      method: which observer.
      levels: how many numbers the quantized type has.
      percentile: for the observer of that name, between 50 and 100.
    """
    if seen.count == 0:
        return 0.0, 0.0
    if seen.low == seen.high:
        return seen.low, seen.high
    return OBSERVERS[method](seen, levels, percentile)


def _shrunk(seen: Statistics) -> list[Range]:
    """The range that was seen, and smaller ones, both ends moved towards zero alike."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    return [(low * share, high * share) for share in np.linspace(1, NARROWEST, CANDIDATES).tolist()]


def _square_error(seen: Statistics, ends: Range, levels: int) -> float:
    """Mean square error of quantization: of rounding inside the range, of saturation outside."""
    low, high = ends
    histogram = seen.histogram
    assert histogram is not None
    centers, counts = histogram.centers, histogram.counts.astype(np.float64)
    nearest = int(np.argmin(np.abs(centers)))
    counts[nearest] = max(counts[nearest] - seen.zeros, 0.0)
    step = (high - low) / (levels - 1)
    outside = centers - np.clip(centers, low, high)
    return float((counts * (outside**2 + step**2 / 12)).sum() / seen.count)


def _divergence(seen: Statistics, low: float, high: float, levels: int) -> float:
    """Of the distribution with its outliers at the ends from the same distribution in ``levels`` steps."""
    histogram = seen.histogram
    assert histogram is not None
    centers = histogram.centers
    inside = (centers >= low) & (centers <= high)
    if np.count_nonzero(inside) <= levels // 2:
        return np.inf
    counts = histogram.counts.astype(np.float64)
    counts[int(np.argmin(np.abs(centers)))] -= min(seen.zeros, counts[int(np.argmin(np.abs(centers)))])
    reference = counts[inside].copy()
    reference[0] += counts[centers < low].sum()
    reference[-1] += counts[centers > high].sum()
    step = np.minimum((centers[inside] - low) / (high - low) * levels, levels - 1).astype(np.int64)
    occupied = counts[inside] > 0
    totals = np.bincount(step, counts[inside], minlength=levels)
    shares = totals / np.maximum(np.bincount(step, occupied, minlength=levels), 1)
    quantized = np.where(occupied, shares[step], 0.0)
    if not reference.sum() or not quantized.sum():
        return np.inf
    p, q = reference / reference.sum(), quantized / quantized.sum()
    seen_in_p = p > 0
    return float((p[seen_in_p] * np.log(p[seen_in_p] / np.maximum(q[seen_in_p], 1e-12))).sum())
