"""A progress bar on a terminal, for passes that take long."""

from __future__ import annotations

import sys

from ..manager import Instrument
from ..program import Program

BAR_WIDTH = 24
TEXT_WIDTH = 48
"""Columns of the bar, and of what comes next."""


def progress_bar(done: int, total: int, what: str) -> str:
    """``tuning ━━━━────  3/6  conv_general_dilated(...``; of ``doing: what``, ``doing`` in the place of tuning."""
    doing, _, what = what.rpartition(": ")
    filled = round(BAR_WIDTH * done / max(total, 1))
    shown = what if len(what) <= TEXT_WIDTH else what[: TEXT_WIDTH - 3] + "..."
    return f"{doing or 'tuning'} {'━' * filled}{'─' * (BAR_WIDTH - filled)} {done}/{total}  {shown}".rstrip()


class ProgressLine(Instrument):
    """Shows the progress of long passes on stderr, where that is a terminal; removes it at the end."""

    def __init__(self) -> None:
        self._width = 0

    def progress(self, done: int, total: int, what: str) -> None:
        """Draws the bar over the one before."""
        if sys.stderr is not None and sys.stderr.isatty():
            self._draw(progress_bar(done, total, what) if done < total else "")

    def end(self, program: Program) -> None:
        """Removes the bar that an interruption left."""
        if self._width:
            self._draw("")

    def _draw(self, text: str) -> None:
        sys.stderr.write(f"\r{text.ljust(self._width)}\r{text}")
        sys.stderr.flush()
        self._width = len(text)
