"""Where the command writes: what was asked for on stdout, all else on stderr; colour and progress for terminals."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.status import Status
from rich.text import Text

PIPED_WIDTH = 200
"""Columns of tables that no terminal shows: enough that few rows are folded."""


class Terminal:
    """The two streams of one run of the command.

    Args:
      quiet: show nothing but results and errors.
      debug: show tracebacks.
    """

    def __init__(self, *, quiet: bool = False, debug: bool = False) -> None:
        self.quiet = quiet
        self.debug = debug
        self._stdout = sys.stdout
        self._stderr = sys.stderr
        self._out = _console(self._stdout)
        self._err = _console(self._stderr)
        self._status: Status | None = None

    def show(self, what: Any, *, on_stderr: bool = False) -> None:
        """Shows a result: a table, or text of which a line stays a line."""
        console = self._err if on_stderr else self._out
        shown = Text(what) if isinstance(what, str) else what  # not markup: "f32[batch]" is to stay as it is
        with self._progress_paused():
            console.print(shown, soft_wrap=isinstance(shown, Text))

    def write(self, text: str) -> None:
        """Writes text to stdout as it is."""
        with self._progress_paused():
            self._stdout.write(text)
            self._stdout.flush()

    def show_plain(self, text: str) -> None:
        """Shows text on stderr as it is: tracebacks."""
        self._stderr.write(text)

    def note(self, text: str) -> None:
        """Says something on stderr that the user should know."""
        if not self.quiet:
            self._say("note", "cyan", text)

    def warning(self, text: str) -> None:
        """Says on stderr that something is wrong, though the command goes on."""
        self._say("warning", "bold yellow", text)

    def error(self, text: str) -> None:
        """Says on stderr why the command ends."""
        self._say("error", "bold red", text)

    def _say(self, kind: str, style: str, text: str) -> None:
        self._err.print(Text.assemble((f"{kind}: ", style), text), soft_wrap=True)

    @contextlib.contextmanager
    def user_output(self) -> Iterator[None]:
        """What the user's code prints while the body runs goes to stderr: stdout is for what was asked for."""
        with contextlib.redirect_stdout(self._stderr):
            yield

    @contextlib.contextmanager
    def progress(self, text: str) -> Iterator[None]:
        """Shows on a terminal that something is going on while the body runs."""
        if self.quiet or not self._err.is_terminal or self._status is not None:
            self.say_progress(text)
            yield
            return
        with self._err.status(Text(text)) as self._status:
            try:
                yield
            finally:
                self._status = None

    def say_progress(self, text: str) -> None:
        """Changes what the progress line says, if there is one."""
        if self._status is not None:
            self._status.update(Text(text))

    @contextlib.contextmanager
    def _progress_paused(self) -> Iterator[None]:
        """The progress line and a result on the same terminal would be drawn over each other."""
        status = self._status
        if status is not None:
            status.stop()
        yield
        if status is not None:
            status.start()

    def flush(self) -> None:
        """Writes what is buffered; raises `BrokenPipeError` when nobody reads."""
        self._stdout.flush()
        self._stderr.flush()


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader went away; the command decides what that means."""
        raise BrokenPipeError


def _console(stream: TextIO) -> Console:
    console = _Console(file=stream, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Rows of texts as lines with aligned columns, the last one as long as it is."""
    table = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)
