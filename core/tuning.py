"""`Tuning`: that measurements shall decide. Imports nothing heavy, so that mistakes in options are reported at once."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from .errors import UsageError

CACHE = "cache"
"""Stands for the user's own file, wherever an option names one."""

FILE_VARIABLE = "XLAPASS_TUNE_FILE"
"""Environment variable that says where the user's own file is."""

DEFAULT_BUDGET = 60.0
"""Seconds of measuring, for one program, unless told otherwise."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|)")
_UNITS = {"ms": 1e-3, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclasses.dataclass(frozen=True)
class Tuning:
    """That measurements shall decide, on which file, and how long they may take.

    Attributes:
      file: a path, or `CACHE`.
      budget: seconds to spend on what the file does not know yet; with 0, only what it knows is used.
    """

    file: str = CACHE
    budget: float = DEFAULT_BUDGET

    @classmethod
    def of(cls, budget: str | float | None = None, file: str | os.PathLike[str] | None = None) -> Tuning:
        """From what users write; raises `UsageError` for a budget that is no time."""
        return cls(CACHE if file is None else os.fspath(file), DEFAULT_BUDGET if budget is None else seconds_of(budget))


def tuning_of(tune: bool, budget: str | float | None, file: str | os.PathLike[str] | None) -> Tuning | None:
    """What the options of `xlapass.jit` and `xlapass.compile` ask for; a budget or a file asks for it, too."""
    return Tuning.of(budget, file) if tune or budget is not None or file is not None else None


def seconds_of(budget: str | float) -> float:
    """``60``, ``"60s"``, ``"1.5m"``, ``"500ms"`` or ``"1h"`` in seconds."""
    if isinstance(budget, int | float) and not isinstance(budget, bool) and 0 <= budget < float("inf"):
        return float(budget)
    found = _DURATION.fullmatch(budget.strip()) if isinstance(budget, str) else None
    if found is None:
        raise UsageError(f"a tuning budget cannot be {budget!r}", hint="write seconds, or 90s, 5m, 1h")
    return float(found[1]) * _UNITS[found[2]]


def timings_path(name: str) -> Path:
    """The file that an option names: a path, or `CACHE` for the user's own file."""
    if name != CACHE:
        return Path(name)
    if own := os.environ.get(FILE_VARIABLE):
        return Path(own)
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "xlapass" / "timings.json"
