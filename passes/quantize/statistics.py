"""What is remembered of a value while the calibration data go by: bounded memory, one look at each batch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BINS = 2048
"""Of the histogram: eight for each step of eight bits, as in the literature on clipping by relative entropy."""

_MOST_GROWTH = 2.0**40
"""How much wider the bins may become at once."""

MOMENTUM = 0.9
"""Weight of what was seen before in a moving average, per batch."""


@dataclasses.dataclass
class Histogram:
    """Counts of numbers in ``BINS`` bins of equal width, which grow when a number falls outside.

    Attributes:
      low: lower end of the first bin.
      width: of a bin.
      counts: int64, one number per bin.
    """

    low: float
    width: float
    counts: Array

    @classmethod
    def around(cls, low: float, high: float) -> Histogram:
        """An empty histogram of the range from ``low`` to ``high``."""
        extent = max(high - low, 1e-3 * max(abs(low), abs(high)), float(np.finfo(np.float32).tiny))
        return cls(low, extent * (1 + 1e-6) / BINS, np.zeros(BINS, np.int64))

    @property
    def centers(self) -> Array:
        """The middle of every bin."""
        return self.low + self.width * (np.arange(BINS) + 0.5)

    def add(self, numbers: Array, low: float, high: float) -> None:
        """Counts float numbers of which the smallest is ``low`` and the largest ``high``."""
        self._grow(low, high)
        index = ((numbers.reshape(-1) - np.float64(self.low)) * (1 / self.width)).astype(np.int64)
        self.counts += np.bincount(np.clip(index, 0, BINS - 1), minlength=BINS)

    def _grow(self, low: float, high: float) -> None:
        """Bins become wider by a power of two, so that every old bin lies inside one new bin."""
        if max(high - self.low, self.low - low) > _MOST_GROWTH * BINS * self.width:  # until now, all were the same
            wider = Histogram.around(min(low, self.low), max(high, self.low))
            wider.counts[min(int((self.low - wider.low) / wider.width), BINS - 1)] = self.counts.sum()
            self.low, self.width, self.counts = wider.low, wider.width, wider.counts
            return
        first = min(math.floor((low - self.low) / self.width), 0)
        last = max(math.floor((high - self.low) / self.width), BINS - 1)
        factor = 1
        while (last - first) // factor >= BINS:
            factor *= 2
        if factor == 1 and first == 0:
            return
        counts = np.zeros(BINS, np.int64)
        np.add.at(counts, (np.arange(BINS) - first) // factor, self.counts)
        self.low, self.width, self.counts = self.low + first * self.width, self.width * factor, counts


@dataclasses.dataclass
class Statistics:
    """The numbers that one value took.

    Attributes:
      batches: how many arrays were seen.
      count: how many numbers.
      zeros: how many of them were zero, which every quantizer represents exactly.
      low, high: the smallest and the largest number.
      moving_low, moving_high: moving averages of the smallest and the largest of each batch.
      histogram: None while nothing was seen.
      channel_low, channel_high, channel_mean: one number per channel; empty where the value has no channels.
    """

    batches: int = 0
    count: int = 0
    zeros: int = 0
    low: float = math.inf
    high: float = -math.inf
    moving_low: float = 0.0
    moving_high: float = 0.0
    histogram: Histogram | None = None
    channel_low: Array = dataclasses.field(default_factory=lambda: np.zeros(0))
    channel_high: Array = dataclasses.field(default_factory=lambda: np.zeros(0))
    channel_mean: Array = dataclasses.field(default_factory=lambda: np.zeros(0))

    def update(self, array: Array, channel_axis: int | None = None) -> None:
        """Takes one array into account.

        Args:
          array: floats of any shape, perhaps of no elements.
          channel_axis: the axis of the channels, if there is one.

        Raises:
          ValueError: a number is NaN or infinite.
        """
        if array.size == 0:
            return
        array = np.asarray(array, np.float32)
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("NaN" if math.isnan(low) or math.isnan(high) else "infinite")
        if self.batches == 0:
            self.moving_low, self.moving_high = low, high
        else:
            self.moving_low += (1 - MOMENTUM) * (low - self.moving_low)
            self.moving_high += (1 - MOMENTUM) * (high - self.moving_high)
        if self.histogram is None:
            self.histogram = Histogram.around(low, high)
        self.histogram.add(array, low, high)
        if channel_axis is not None:
            self._update_channels(np.moveaxis(array, channel_axis, 0).reshape(array.shape[channel_axis], -1))
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.batches += 1
        self.count += array.size
        self.zeros += int(array.size - np.count_nonzero(array))

    def _update_channels(self, rows: Array) -> None:
        low, high, mean = rows.min(1), rows.max(1), rows.mean(1, dtype=np.float64)
        if self.batches == 0:
            self.channel_low, self.channel_high, self.channel_mean = low, high, mean
            return
        share = rows.size / (self.count + rows.size)
        self.channel_low, self.channel_high = np.minimum(self.channel_low, low), np.maximum(self.channel_high, high)
        self.channel_mean = self.channel_mean + share * (mean - self.channel_mean)

    # -- as data -----------------------------------------------------------------------------------------------------

    def data(self) -> dict[str, Any]:
        """JSON-able."""
        written: dict[str, Any] = {
            "low": self.low if self.batches else None,
            "high": self.high if self.batches else None,
            "moving": [self.moving_low, self.moving_high],
            "batches": self.batches,
            "count": self.count,
            "zeros": self.zeros,
        }
        if self.channel_low.size:
            names = ("channel_low", "channel_high", "channel_mean")
            written["channels"] = {name.removeprefix("channel_"): _short(getattr(self, name)) for name in names}
        if self.histogram is not None:
            h = self.histogram
            written["histogram"] = {"low": h.low, "width": h.width, "counts": h.counts.tolist()}
        return written

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Statistics:
        """What `data` wrote; raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        histogram, channels = data.get("histogram"), data.get("channels", {})
        seen = int(data["batches"]) > 0
        found = cls(
            int(data["batches"]),
            int(data["count"]),
            int(data["zeros"]),
            float(data["low"]) if seen else math.inf,
            float(data["high"]) if seen else -math.inf,
            float(data["moving"][0]),
            float(data["moving"][1]),
            channel_low=np.asarray(channels.get("low", ()), np.float32),
            channel_high=np.asarray(channels.get("high", ()), np.float32),
            channel_mean=np.asarray(channels.get("mean", ()), np.float64),
        )
        if seen and not (math.isfinite(found.low) and math.isfinite(found.high) and found.low <= found.high):
            raise ValueError(f"from {found.low} to {found.high} is no range")
        if seen and histogram is None:
            raise KeyError("histogram")
        if histogram is not None:
            counts = np.asarray(histogram["counts"], np.int64)
            if counts.shape != (BINS,):
                raise ValueError(f"a histogram has {BINS} counts")
            found.histogram = Histogram(float(histogram["low"]), float(histogram["width"]), counts)
        return found


def _short(array: Array) -> list[float]:
    return [float(f"{number:.9g}") for number in array.tolist()]
