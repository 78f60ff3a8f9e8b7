"""Timing in alternation: every contender once a round, so that a drift of the machine meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Run = Callable[[], Any]
Clock = Callable[[], float]

MINIMUM_ROUNDS = 7
# Below this a sample is mostly the clock and the dispatch: several calls make one sample.
SHORTEST_SAMPLE = 2e-3
# Short runs live from what is in the caches, which the contender before has emptied.
WARM_UP_BELOW = 50e-3
# Thread pools keep spinning for a moment after a run, at the next contender's expense.
PAUSE = 5e-3


def alternate(runs: Sequence[Run], seconds: float, clock: Clock = time.perf_counter) -> np.ndarray:
    """Times of the `runs`, `[runs, rounds]` in seconds per call, by `clock`.

    Takes about `seconds` in all, but at least `MINIMUM_ROUNDS` rounds. The order rotates from round to round.
    """
    estimates = [_estimate(run, clock) for run in runs]
    rounds: list[list[float]] = []
    deadline = time.perf_counter() + seconds
    while len(rounds) < MINIMUM_ROUNDS or time.perf_counter() < deadline:
        times = [0.0] * len(runs)
        for offset in range(len(runs)):
            index = (len(rounds) + offset) % len(runs)
            times[index] = _sample(runs[index], estimates[index], clock)
        rounds.append(times)
    return np.array(rounds).T


def quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def largest_error(outputs: Sequence[Any], expected: Sequence[Any]) -> float:
    """The largest difference of any output, relative to the largest magnitude in that output.

    Infinite where the number or the shapes of the outputs differ, or one is not finite where the other is.
    """
    if len(outputs) != len(expected):
        return float("inf")
    return max((_error(np.asarray(a), np.asarray(b)) for a, b in zip(outputs, expected, strict=True)), default=0.0)


def _error(output: np.ndarray, expected: np.ndarray) -> float:
    if output.shape != expected.shape:
        return float("inf")
    if output.size == 0:
        return 0.0
    output, expected = output.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        differences = np.where(output == expected, 0.0, np.abs(output - expected))
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    largest = float(differences.max())
    if np.isnan(largest):
        return float("inf")
    return largest / float(scale) if scale > 0 else largest


def _estimate(run: Run, clock: Clock) -> float:
    """The shortest of three calls, the first of which may still set things up."""
    times = []
    for _ in range(3):
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


def _sample(run: Run, estimate: float, clock: Clock) -> float:
    time.sleep(PAUSE)
    if estimate < WARM_UP_BELOW:
        run()
    calls = max(1, round(SHORTEST_SAMPLE / estimate))
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls
