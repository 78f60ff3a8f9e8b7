"""``xlapass MODEL``: compile, run, compare with plain JAX, report."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.text import Text

from ..core.backend import Artifact, Description
from ..core.driver import Plan, Verify, emit, optimize
from ..core.errors import CompileError, UsageError, VerificationError, XlapassError
from ..core.files import write_atomically
from ..core.instruments.dump import Dump
from ..core.instruments.progress import progress_bar
from ..core.instruments.report import Report
from ..core.instruments.selection import require_promised
from ..core.manager import Instrument
from ..core.options import suggestion
from ..core.pipeline import Step
from ..core.program import Program
from ..core.rewrite import Numerics
from .comparison import LoosestNumerics, Run, run_and_compare
from .console import Terminal
from .explanation import Explanation, explain, require_rule
from .plan import plan_lines
from .request import Request
from .setup import (
    form_warnings_shown,
    load_plugins,
    load_program,
    make_plan,
    project_settings,
    warn_of_other_platform,
)

JAXPR = "jaxpr"
"""The stage that every program has; the others are the backend's."""

ARTIFACT = "artifact"
"""The key in a JSON report under which the artifact tells of itself."""

DIFF_STYLES = {"-": "red", "+": "green", "=": "bold"}


def run(args: argparse.Namespace, request: Request, terminal: Terminal) -> int:
    """Does what the command line asks for; returns the exit status."""
    settings = project_settings(args)
    chosen = make_plan(args, settings, load_plugins(args, settings, terminal))
    _require_sensible(request, chosen)
    numerics = args.numerics or settings.numerics
    require_promised(chosen.pipeline, numerics)
    warn_of_other_platform(chosen, terminal)
    compilation = _Compilation(request, terminal, chosen, numerics, args.verify or settings.verify)
    if args.dry_run:
        terminal.show("\n".join(plan_lines(chosen, numerics)))
    elif request.only_tunes:
        compilation.tune(load_program(args, terminal))
    elif request.explain:
        rule = require_rule(request.explain, chosen.pipeline, chosen.registry, numerics)
        explanation = Explanation(request.explain)
        compilation.optimize(load_program(args, terminal), [explanation])
        terminal.show("\n".join(explain(explanation, rule)))
    else:
        compilation.run(load_program(args, terminal))
    return 0


@dataclasses.dataclass(frozen=True)
class _Compilation:
    """What is wanted of a model, whichever it is."""

    request: Request
    terminal: Terminal
    chosen: Plan
    numerics: Numerics
    verify: Verify

    def run(self, program: Program) -> None:
        """Compiles, and shows or writes what was asked for."""
        report, loosest = Report(), LoosestNumerics()
        optimized = self.optimize(program, [report, loosest])
        if self.request.emit == JAXPR:
            self._write_stage(_jaxpr_text(optimized))
            self._show_report(report)
            return
        target = self.chosen.target
        with self.terminal.progress(f"compiling {program.name} for {target.name}"), self.terminal.user_output():
            artifact = emit(self.chosen, optimized)
            artifact.report = report
            with self._backend_named():
                text = artifact.stage(self.request.emit) if self.request.emit else ""
        if self.request.emit:
            self._write_stage(text)
            self._show_report(report)
            return
        with self.terminal.progress(f"compiling {program.name} for {target.name}"), self.terminal.user_output():
            with self._backend_named():
                self._save(artifact)
                notes = list(artifact.notes())
                described = _descriptions(artifact, self.request.check_for)
            result = self._run(artifact, program, loosest.numerics)
        self._show_report(report, notes, result, described)

    def tune(self, program: Program) -> None:
        """Runs the passes, which measure, and shows what they chose."""
        report = Report()
        self.optimize(program, [report])
        self._show_report(report)

    def optimize(self, program: Program, watching: Sequence[Instrument]) -> Program:
        """Runs the passes."""
        instruments = [*watching, _PassProgress(self.terminal)]
        if self.request.dump:
            only = self.request.dump_pass or None
            instruments.append(Dump(self.request.dump, self._dump_printer(), only))
        with self.terminal.progress("running passes"), self.terminal.user_output(), form_warnings_shown(self.terminal):
            return optimize(
                self.chosen,
                program,
                numerics=self.numerics,
                verify=self.verify,
                instruments=instruments,
                explain=[self.request.explain] if self.request.explain else (),
            )

    def _run(self, artifact: Artifact, program: Program, numerics: Numerics) -> Run | None:
        if not self.request.run:
            return None
        target = self.chosen.target
        self.terminal.say_progress(f"running {program.name} on {target.name}, and in plain JAX")
        return run_and_compare(artifact, self.chosen.backend.name, program, target.platform, numerics)

    @contextlib.contextmanager
    def _backend_named(self) -> Iterator[None]:
        """Whatever a backend's artifact raises becomes a `CompileError` that names the backend."""
        try:
            yield
        except XlapassError:
            raise
        except (Exception, SystemExit) as error:  # a stranger's backend may raise anything; say whose it is
            message = f"backend {self.chosen.backend.name!r} raised {type(error).__name__}: {error}"
            raise CompileError(message) from error

    # -- what is written and shown -------------------------------------------------------------------------------------

    def _write_stage(self, text: str) -> None:
        if self.request.output:
            write_atomically(self.request.output, text.encode())
            self._say_written(self.request.output)
        else:
            self.terminal.write(text)

    def _save(self, artifact: Artifact) -> None:
        if self.request.output:
            self.terminal.say_progress(f"writing {self.request.output}")
            artifact.save(self.request.output)
            self._say_written(self.request.output)

    def _say_written(self, path: str) -> None:
        if Path(path).is_file():
            self.terminal.note(f"wrote {path} ({_size(os.path.getsize(path))})")

    def _show_report(
        self,
        report: Report,
        notes: Sequence[str] = (),
        result: Run | None = None,
        described: Mapping[str, Description] = MappingProxyType({}),
    ) -> None:
        """The report and what the run showed; that a result is wrong is said in any case."""
        on_stderr, quiet = self.request.stdout_is_taken, self.terminal.quiet
        if self.request.report == "json":
            self._write_json(report, notes, result, described)
        else:
            shown: list[Any] = [report] if self.request.report == "table" and not quiet else []
            for what, description in described.items():
                if shown or what != ARTIFACT:  # a check is shown in any case: it was asked for
                    shown.append(description)
            for part in shown:
                self.terminal.show(part, on_stderr=on_stderr)
        if result is not None and not quiet:
            self.terminal.show(result.summary(), on_stderr=on_stderr)
        for note in notes:
            self.terminal.note(note)
        if result is not None and not result.acceptable:
            self._report_wrong_result(result)

    def _write_json(
        self, report: Report, notes: Sequence[str], result: Run | None, described: Mapping[str, Description]
    ) -> None:
        data: dict[str, Any] = json.loads(report.to_json())
        data |= {"backend": str(self.chosen.backend), "target": self.chosen.target.name, "notes": list(notes)}
        data["run"] = None if result is None else result.data()
        data |= {what: description.data() for what, description in described.items()}
        text = json.dumps(data, indent=2) + "\n"
        if self.request.report_file:
            write_atomically(self.request.report_file, text.encode())
            self._say_written(self.request.report_file)
        else:
            self.terminal.write(text)

    def _report_wrong_result(self, result: Run) -> None:
        worst = result.worst
        assert worst is not None
        message = (
            f"output {worst.output!r} differs from plain JAX by {worst.largest:.3g}, where its largest value is "
            f"{worst.magnitude:.3g}: more than rounding explains"
        )
        if self.verify == "numerics":
            hint = "every pass by itself kept the results: look at the backend, and at how the model amplifies rounding"
            raise VerificationError(message, hint=hint)
        self.terminal.warning(f"{message}\n  hint: --verify=numerics names the pass that did it, if one did")

    def _dump_printer(self) -> Callable[[str], None]:
        def show(text: str) -> None:
            styled = Text()
            for line in text.splitlines(keepends=True):
                styled.append(line, DIFF_STYLES.get(line[0], ""))
            self.terminal.show(styled, on_stderr=self.request.stdout_is_taken)

        return show


class _PassProgress(Instrument):
    """Says which pass is running."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def before(self, step: Step, program: Program) -> None:
        """Names the pass."""
        self._terminal.say_progress(f"pass {step.pass_.name}")

    def progress(self, done: int, total: int, what: str) -> None:
        """Shows how far a long pass has come."""
        self._terminal.say_progress(progress_bar(done, total, what))


def _descriptions(artifact: Artifact, check_for: Sequence[str]) -> dict[str, Description]:
    """What the artifact tells of itself, and of the places that were asked for, by the key in a JSON report."""
    described = {f"check_for_{place}": artifact.check_for(place) for place in check_for}
    artifact_itself = artifact.description()
    return described if artifact_itself is None else {ARTIFACT: artifact_itself, **described}


def _jaxpr_text(program: Program) -> str:
    if program.exported is not None:
        raise UsageError(
            f"{program.history[-1] if program.history else 'a pass'} left the jaxpr level: there is no jaxpr to show",
            hint="emit stablehlo, or --stop-after an earlier pass",
        )
    return f"{program.jaxpr}\n"


def _require_sensible(request: Request, chosen: Plan) -> None:
    """Fails before the long work: a stage that the backend lacks, a pass that the pipeline lacks, a foreign suffix."""
    backend = chosen.backend.name
    stages = (JAXPR, *chosen.backend.stages)
    if request.emit and request.emit not in stages:
        raise UsageError(f"the {backend} backend has no stage {request.emit!r}", hint=suggestion(request.emit, stages))
    for place in request.check_for:
        if place not in chosen.backend.checks:
            raise UsageError(
                f"the {backend} backend cannot check for {place!r}",
                hint=suggestion(place, chosen.backend.checks) or None,
            )
    names = {step.pass_.name for step in chosen.pipeline.steps()}
    if request.dump_pass and request.dump_pass not in names:
        raise UsageError(f"the pipeline has no pass {request.dump_pass!r}", hint=suggestion(request.dump_pass, names))
    file_format = Path(request.output).suffix.removeprefix(".")
    if not request.emit and file_format != backend and file_format in chosen.registry.names("backend"):
        raise UsageError(
            f"{request.output!r} looks like a file of the {file_format} backend, and this pipeline ends in {backend}",
            hint=f"--pipeline={file_format} or --backend={file_format}, or a file name that ends otherwise",
        )


def _size(count: float) -> str:
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"
