"""`main`: finds the command, runs it, and turns whatever happens into a message and an exit status."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..core.errors import UsageError
from .arguments import COMMANDS, COMPILE, PARSERS
from .console import Terminal
from .failures import EXIT_INTERRUPTED, close_streams, report_failure
from .platforms import leave_out_missing_gpu


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``xlapass``.

    Args:
      argv: the arguments; by default those of the process.

    Returns:
      The exit status: 0, 1 (the model could not be compiled), 2 (used wrongly), 130 (interrupted).
    """
    if argv is not None:
        return _guarded(list(argv))
    leave_out_missing_gpu()
    status = _guarded(sys.argv[1:])
    if status == EXIT_INTERRUPTED:
        os._exit(status)  # XLA's threads may be in the middle of a compilation, for which Python's own end would wait
    return status


def _guarded(arguments: list[str]) -> int:
    terminal = Terminal(quiet="-q" in arguments or "--quiet" in arguments, debug="--debug" in arguments)
    try:
        try:
            status = _run(arguments, terminal)
            terminal.flush()
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # here everything ends up, as a message
            status = report_failure(error, terminal)
            terminal.flush()
        return status
    except BrokenPipeError:
        return close_streams()


def _run(arguments: list[str], terminal: Terminal) -> int:
    if "--version" in arguments:
        terminal.show(f"xlapass {__version__}")
        return 0
    name = _command_name(arguments)
    parser = PARSERS[name]()
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    try:
        args = parser.parse(arguments[1:] if arguments[0] == name else arguments)
    except SystemExit:  # argparse has shown the help
        return 0
    return _COMMANDS[name](args, terminal)


def _command_name(arguments: list[str]) -> str:
    """The command that the first argument names, else the usual one."""
    first = arguments[0] if arguments else ""
    if first in COMMANDS:
        return first
    near = difflib.get_close_matches(first, COMMANDS, n=1, cutoff=0.7)
    if near and not first.startswith("-") and not Path(first).exists() and not Path(f"{first}.py").exists():
        raise UsageError(f"there is no command or file {first!r}", hint=f"did you mean {near[0]!r}?")
    return COMPILE


def _compile(args: argparse.Namespace, terminal: Terminal) -> int:
    from .request import read_request

    request = read_request(args)
    with terminal.progress("starting JAX"):
        from .compiling import run
    return run(args, request, terminal)


def _bench(args: argparse.Namespace, terminal: Terminal) -> int:
    with terminal.progress("starting JAX"):
        from .benchmarking import run
    return run(args, terminal)


def _tune(args: argparse.Namespace, terminal: Terminal) -> int:
    from .request import read_tuning_request

    request = read_tuning_request(args)
    with terminal.progress("starting JAX"):
        from .compiling import run
    return run(args, request, terminal)


def _list(args: argparse.Namespace, terminal: Terminal) -> int:
    from .listing import run

    return run(args, terminal)


def _help(args: argparse.Namespace, terminal: Terminal) -> int:
    from .listing import explain_name

    if args.name is None or args.name in COMMANDS:
        PARSERS[args.name or COMPILE]().print_help()
        return 0
    return explain_name(args, terminal)


def _plugins(args: argparse.Namespace, terminal: Terminal) -> int:
    from .listing import show_plugins

    return show_plugins(args, terminal)


def _new_plugin(args: argparse.Namespace, terminal: Terminal) -> int:
    from ..scaffold import create

    folder = create(args.name, args.folder)
    terminal.show(str(folder))
    terminal.note(f"next: cd {folder}; pip install -e .; pytest")
    return 0


_COMMANDS = {
    COMPILE: _compile,
    "bench": _bench,
    "tune": _tune,
    "list": _list,
    "help": _help,
    "plugins": _plugins,
    "new-plugin": _new_plugin,
}
"""What runs each command; the parser of each is in `PARSERS`, its line in the help in `COMMANDS`."""
