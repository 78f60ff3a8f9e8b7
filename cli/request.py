"""What ``xlapass MODEL`` is asked for: checked before JAX is imported, so that a mistake is reported at once."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Literal

from ..core.errors import UsageError
from .arguments import REPORTS
from .setup import checked_choice

When = Literal["before", "after", "changed"]
WHENS: tuple[When, ...] = ("before", "after", "changed")
"""What ``--print-ir`` takes."""

STDOUT = "-"


@dataclasses.dataclass(frozen=True)
class Request:
    """The parts of the command line that say what to show and to write.

    Attributes:
      emit: stage to write; empty for none.
      output: path for the artifact or the stage; empty for none, or for the stage on stdout.
      report: one of `REPORTS`.
      report_file: path for the JSON report; empty for stdout.
      dump: when to show programs, one of `WHENS`; empty for never.
      dump_pass: the pass to show them of; empty for all.
      explain: name of a rule; empty for none.
      run: whether to run the artifact.
      check_for: places for which the artifact is checked.
      only_tunes: whether to stop after the passes, which measure.
    """

    emit: str
    output: str
    report: str
    report_file: str
    dump: When | Literal[""]
    dump_pass: str
    explain: str
    run: bool
    check_for: tuple[str, ...] = ()
    only_tunes: bool = False

    @property
    def stdout_is_taken(self) -> bool:
        """Whether a stage or JSON goes to stdout, so that nothing else may."""
        return bool(self.emit and not self.output) or (self.report == "json" and not self.report_file)


def read_request(args: argparse.Namespace) -> Request:
    """The request of parsed arguments.

    Raises:
      UsageError: flags contradict each other, have no such value, or name files that cannot be written.
    """
    report, report_file = read_report(args.report)
    dump, dump_pass = _read_print_ir(args.print_ir)
    output = args.output or ""
    if output == STDOUT:
        if not args.emit:
            raise UsageError("an artifact is not written to stdout", hint="name a file, or ask for a stage with --emit")
        output = ""
    request = Request(
        args.emit or "",
        output,
        report,
        report_file,
        dump,
        dump_pass,
        args.explain or "",
        not args.no_run,
        tuple(args.check_for),
    )
    _require_consistent(request, args.dry_run)
    if args.model is None and not args.dry_run:
        raise UsageError("which model?", hint="xlapass model.py compiles one; xlapass --help explains")
    written = [path for path in (output, report_file) if path]
    for path in written:
        require_writable(path)
        require_not_the_model(path, args.model)
    if len(written) == 2 and os.path.realpath(output) == os.path.realpath(report_file):
        raise UsageError(f"the report would overwrite {output!r}", hint="give it another name")
    return request


def read_tuning_request(args: argparse.Namespace) -> Request:
    """What ``xlapass tune`` is asked for; it always tunes."""
    report, report_file = read_report(args.report)
    if report_file:
        require_writable(report_file)
        require_not_the_model(report_file, args.model)
    args.tune, args.verify, args.dry_run = True, None, False
    return Request("", "", report, report_file, "", "", "", run=False, only_tunes=True)


def read_report(text: str) -> tuple[str, str]:
    """``json:FILE`` as the kind of report and its file."""
    kind, _, file = text.partition(":")
    checked_choice(kind, REPORTS, "--report")
    if file and kind != "json":
        raise UsageError(f"--report={kind} has no file", hint="write --report=json:FILE")
    return kind, file


def _read_print_ir(text: str | None) -> tuple[When | Literal[""], str]:
    if text is None:
        return "", ""
    when, _, name = text.partition(":")
    return checked_choice(when, WHENS, "--print-ir"), name


def require_writable(path: str) -> None:
    """Fails before the long work where writing would fail after it; `write_atomically` has the last word."""
    parent = Path(os.path.realpath(path)).parent
    if Path(path).is_dir():
        raise UsageError(f"cannot write {path!r}: it is a folder", hint="name a file inside it")
    if not parent.is_dir():
        raise UsageError(f"cannot write {path!r}: there is no folder {str(parent)!r}", hint="create the folder first")
    if not os.access(path if Path(path).exists() else parent, os.W_OK):
        raise UsageError(f"cannot write {path!r}: permission denied", hint="choose a path that can be written")


def require_not_the_model(path: str, model: str | None) -> None:
    """Fails where ``path`` is the file that ``model``, as ``file.py`` or ``file.py:NAME``, is read from."""
    for file in (model or "", (model or "").rpartition(":")[0]):
        if file and os.path.realpath(file) == os.path.realpath(path):
            raise UsageError(f"writing {path!r} would overwrite the model", hint="give the output another name")


def _require_consistent(request: Request, dry_run: bool) -> None:
    asked = {"--emit": request.emit, "--explain": request.explain, "--dry-run": dry_run}
    alone = [flag for flag, value in asked.items() if value]
    if len(alone) > 1:
        raise UsageError(f"{alone[0]} and {alone[1]} do not go together", hint="give one of them")
    if request.check_for and alone:
        raise UsageError(f"{alone[0]} makes no file that could be checked for {request.check_for[0]}")
    if request.output and (request.explain or dry_run):
        raise UsageError(
            f"{alone[0]} compiles nothing that could be written to {request.output!r}", hint="leave out -o"
        )
    json_on_stdout = request.report == "json" and not request.report_file
    if request.emit and not request.output and json_on_stdout:
        raise UsageError(
            "the stage and the report would both go to stdout", hint="write --report=json:FILE, or -o FILE"
        )
