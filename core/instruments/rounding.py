"""Whether rounding alone explains how far results are from each other.

A training step, in which a rounding turns a ReLU on or off and changes whole gradients with it, has no results that two
correct runtimes agree on. What they may differ by is what results move by when all that the program reads is moved as
far as roundings may.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..program import Program
from .numerics import SENSITIVITY_MARGIN, nudged


def moved_by_rounding(
    program: Program, flat: Sequence[Any], want: Sequence[Any], differs: Callable[[Any, Any], bool], times: float
) -> list[Any]:
    """What a program gives when its inputs and constants are moved as far as a runtime may round.

    Args:
      program: at the jaxpr level.
      flat: its inputs.
      want: its outputs, in the layout in which it was traced.
      differs: whether two outputs are further from each other than XLA's programs may be.
      times: how many times further the runtime may be.

    Returns:
      Its outputs then. None of them where roundings do not show: where moving all as far as XLA may round leaves the
      results what they are.
    """

    def results(times: float) -> list[Any]:
        moved, values = nudged(program, flat, times=times)
        return moved.as_traced(moved.evaluate_flat(values), outputs=True)

    shows = any(differs(a, b) for a, b in zip(want, results(1.0), strict=True))
    return results(times) if shows else []


def is_rounding(want: Any, have: Any, moved: Any) -> bool:
    """Whether an output differs no further than one that comes of inputs and constants a little off.

    Args:
      want: what JAX gives; floats or complex numbers, as the others.
      have: what the file gives.
      moved: what JAX gives where all that the program reads is moved as far as a file may round.
    """
    if _strays(want, have) > SENSITIVITY_MARGIN * _strays(want, moved):
        return False
    finite = np.isfinite(want) & np.isfinite(have) & np.isfinite(moved)
    wide = np.complex128 if np.iscomplexobj(want) else np.float64
    numbers, ours, theirs = (array[finite].astype(wide) for array in (want, have, moved))
    gap = np.max(np.abs(numbers - ours), initial=0.0)
    return bool(gap <= SENSITIVITY_MARGIN * np.max(np.abs(numbers - theirs), initial=0.0))


def _strays(a: Any, b: Any) -> int:
    """At how many places one has a number and the other has none, or another infinity."""
    finite = np.isfinite(a) & np.isfinite(b)
    return int(np.sum(~finite & (a != b) & ~(np.isnan(a) & np.isnan(b))))
