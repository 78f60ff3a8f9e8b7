"""From exceptions to messages and exit statuses."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from ..core.errors import CompileError, UserCodeError, XlapassError
from .console import Terminal

EXIT_INTERRUPTED = 130
"""What shells report for a program that Ctrl-C ended (128 + SIGINT)."""

EXIT_PIPE_CLOSED = 141
"""What shells report for a program whose reader went away (128 + SIGPIPE)."""

EXIT_INTERNAL = 1

HIDDEN_PACKAGES = ("jax", "jaxlib", "flax", "equinox")
"""Frames of these are left out of the user's tracebacks: they hold a dozen frames between any two lines of a model."""

_HEADING = "Traceback (most recent call last):\n"

_PACKAGE = Path(__file__).resolve().parents[1]
_OWN_FOLDERS = ("backends", "cli", "core", "passes", "plugins")


def report_failure(error: BaseException, terminal: Terminal) -> int:
    """Shows what the user needs to know of an exception; returns the exit status."""
    if terminal.debug:
        terminal.show_plain("".join(traceback.format_exception(error)))
    if isinstance(error, KeyboardInterrupt):
        terminal.error("interrupted")
        return EXIT_INTERRUPTED
    if not isinstance(error, XlapassError):
        terminal.error(
            f"xlapass itself failed, which it should not: {type(error).__name__}: {error}\n"
            "  hint: --debug shows where; please report it with the command line"
        )
        return EXIT_INTERNAL
    if isinstance(error, UserCodeError) and error.__cause__ is not None and not terminal.debug:
        terminal.show_plain(user_traceback(error.__cause__))
    hint = "\n  hint: --debug shows the traceback" if _hides_a_traceback(error) and not terminal.debug else ""
    terminal.error(f"{error}{hint}")
    return error.exit_status


def _hides_a_traceback(error: XlapassError) -> bool:
    """Whether someone's code failed that is neither the user's model nor xlapass: a pass, a backend, a library."""
    if not isinstance(error, CompileError) or isinstance(error, UserCodeError):
        return False
    return error.__cause__ is not None and not isinstance(error.__cause__, XlapassError)


def user_traceback(error: BaseException) -> str:
    """The traceback of an exception without the frames of xlapass, JAX and the import system."""
    shown = traceback.TracebackException.from_exception(error, compact=True)
    pending = [shown]
    while pending:
        one = pending.pop()
        one.stack = traceback.StackSummary.from_list([f for f in one.stack if not _is_hidden(f.filename)])
        if one.__cause__ is not None and not _has_user_frames(one.__cause__):
            one.__cause__ = None
        if one.__context__ is not None and not _has_user_frames(one.__context__):
            one.__context__ = None
        notes = getattr(one, "__notes__", None) or []
        one.__notes__ = [note for note in notes if "JAX has removed its internal frames" not in note] or None
        pending += [other for other in (one.__cause__, one.__context__) if other is not None]
    text = "".join(shown.format(chain=True))
    return text.removeprefix(_HEADING) if not shown.stack else text


def _has_user_frames(shown: traceback.TracebackException) -> bool:
    """What JAX raised and caught inside itself on the way tells the user nothing."""
    is_syntax_error = shown.exc_type is not None and issubclass(shown.exc_type, SyntaxError)  # has its line, no frame
    return is_syntax_error or any(not _is_hidden(frame.filename) for frame in shown.stack)


def _is_hidden(filename: str) -> bool:
    if filename.startswith("<frozen "):
        return True
    path = Path(filename)
    if not path.is_absolute():
        return False
    if path.parent == _PACKAGE or any(path.is_relative_to(_PACKAGE / folder) for folder in _OWN_FOLDERS):
        return True
    return any(path.is_relative_to(folder) for folder in _hidden_folders())


def _hidden_folders() -> list[Path]:
    modules = [sys.modules.get(name) for name in HIDDEN_PACKAGES]
    return [Path(module.__file__).parent for module in modules if module is not None and module.__file__]


def close_streams() -> int:
    """After a reader went away: nothing more is written, and Python's end must not try to. Returns the exit status."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return EXIT_PIPE_CLOSED
