"""A progress bar on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from .calibration import Progress


@contextlib.contextmanager
def bar(text: str, total: int | None) -> Iterator[Progress | None]:
    """Shows a bar on stderr while the body runs; nothing where that is no terminal, or another display is up."""
    from rich import progress
    from rich.console import Console
    from rich.errors import LiveError

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield None
        return
    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
    shown = progress.Progress(*columns, progress.TimeRemainingColumn(), console=console, transient=True)
    task = shown.add_task(text, total=total)
    try:
        shown.start()
    except LiveError:
        yield None
        return
    try:
        yield lambda done, _: shown.update(task, completed=done)
    finally:
        shown.stop()
