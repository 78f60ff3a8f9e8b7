"""Calibration: what the values of a program are on typical inputs, as a file that can be read, edited and reused.

Values are known by the operations that make or read them (`encoder/Dense_0/dot`), not by variables, so that a file
serves the same model traced again, in another layout, for another backend.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.extend import core as jex_core

from ...core.errors import UsageError
from ...core.files import write_atomically
from ...core.node import Value
from ...core.program import Program
from .observers import Method, Range, range_of
from .statistics import Statistics

FORMAT = "xlapass calibration"
VERSION = 1

SAVED_EVERY = 16
"""Batches between two writes of a calibration file: what is lost when a calibration is interrupted."""


@dataclasses.dataclass
class Calibration:
    """What was seen of every value.

    Attributes:
      batches: how many batches of the data were used.
      values: statistics by the name of the value.
      complete: whether all of the data were used; not so while a calibration goes on, or was interrupted.
      ranges: ranges that a person wrote into the file; they go before what was seen.
    """

    batches: int = 0
    complete: bool = False
    values: dict[str, Statistics] = dataclasses.field(default_factory=dict)
    ranges: dict[str, Range] = dataclasses.field(default_factory=dict)

    def range_of(self, name: str, method: Method = "min-max", **options: Any) -> Range:
        """The range of a value; raises `UsageError` for one that was not observed."""
        if name in self.ranges:
            return self.ranges[name]
        if name not in self.values:
            raise UsageError(
                f"the calibration says nothing of {name!r}", hint="calibrate again with the model as it is now"
            )
        return range_of(self.values[name], method, **options)

    def lacks(self, names: Iterable[str]) -> list[str]:
        """The names of which nothing is known."""
        return [name for name in names if name not in self.values and name not in self.ranges]

    # -- the file ----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file, one value a paragraph, atomically."""
        entries = []
        for name in sorted({*self.values, *self.ranges}):
            data = self.values[name].data() if name in self.values else {}
            lines = [f'      "range": {json.dumps(self.ranges.get(name))}']
            lines += [f"      {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items()]
            entries.append(f"    {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n    }")
        body = ",\n".join(entries)
        head = f'{{\n  "format": "{FORMAT}",\n  "version": {VERSION},\n  "batches": {self.batches},\n'
        head += f'  "complete": {json.dumps(self.complete)},\n'
        write_atomically(path, f'{head}  "values": {{\n{body}\n  }}\n}}\n'.encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Reads a file that `save` wrote and a person may have edited; raises `UsageError` where it cannot."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from error
        except ValueError as error:
            raise UsageError(f"{str(path)!r} is not JSON: {error}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
            raise UsageError(f"{str(path)!r} is not a calibration file", hint="--calibrate and quantize write one")
        try:
            found = cls(int(data["batches"]), bool(data["complete"]))
            entries = dict(data["values"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{str(path)!r} is no whole calibration file: {_said(error)}") from error
        for name, entry in entries.items():
            try:
                found._read(name, dict(entry))
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(f"{str(path)!r}: the entry {name!r} cannot be read: {_said(error)}") from error
        return found

    def _read(self, name: str, entry: dict[str, Any]) -> None:
        written = entry.pop("range", None)
        if written is not None:
            low, high = map(float, written)
            if not (np.isfinite([low, high]).all() and low <= high):
                raise ValueError(f"the range {written} is not one")
            self.ranges[name] = (low, high)
        if entry:
            self.values[name] = Statistics.of(entry)


def _said(error: Exception) -> str:
    """An error in words: of a missing key, Python says nothing but the key."""
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


@dataclasses.dataclass(frozen=True)
class Tap:
    """A value that is observed.

    Attributes:
      name: stable.
      value: of the graph.
      channel_axis: the axis of its channels, if it has any.
    """

    name: str
    value: Value
    channel_axis: int | None = None


Progress = Callable[[int], None]
"""Called after every batch with how many are done."""


def calibrate(
    program: Program,
    taps: Sequence[Tap],
    batches: Iterable[Sequence[Any]],
    *,
    into: Calibration | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Runs a program on typical inputs and observes the values of ``taps``.

    Args:
      program: whose graph holds the tapped values.
      taps: what to observe.
      batches: flat inputs, in the layout in which the program was traced.
      into: a calibration to go on with; as many batches as it has seen already are skipped.
      path: where to save the calibration, now and then and at the end.
      progress: told of every batch.

    Raises:
      UsageError: a value is NaN or infinite; the message names it.
    """
    calibration = into if into is not None else Calibration()
    for tap in taps:
        calibration.values.setdefault(tap.name, Statistics())
    tapped = observed(program, [tap.value for tap in taps])
    for number, flat in enumerate(batches, 1):
        if number <= calibration.batches:
            continue
        arrays = tapped.evaluate_flat(program.as_converted(flat))
        for tap, array in zip(taps, arrays, strict=True):
            _observe(calibration, tap, np.asarray(array), number)
        calibration.batches = number
        if path is not None and number % SAVED_EVERY == 0:
            calibration.save(path)
        if progress is not None:
            progress(number)
    calibration.complete = True
    if path is not None:
        calibration.save(path)
    return calibration


def _observe(calibration: Calibration, tap: Tap, array: Any, number: int) -> None:
    try:
        calibration.values[tap.name].update(array, tap.channel_axis)
    except ValueError as error:
        where = tap.value.producer.where if tap.value.producer is not None else None
        place = f" ({where})" if where else ""
        raise UsageError(
            f"the value {tap.name!r}{place} is {error} on batch {number} of the calibration data",
            hint="leave that batch out, or look at what the model does with it",
        ) from error


def observed(program: Program, values: Sequence[Value]) -> Program:
    """The program with other results: values of its graph, which must not have been edited."""
    closed = program.jaxpr
    jaxpr = closed.jaxpr.replace(
        outvars=[value.var for value in values], debug_info=closed.jaxpr.debug_info.with_unknown_names()
    )
    names = tuple(f"value{k}" for k in range(len(values)))
    return program.replace(
        jaxpr=jex_core.ClosedJaxpr(jaxpr, closed.consts), output_names=names, output_permutations=(), out_tree=None
    )
