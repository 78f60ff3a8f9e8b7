"""The way from a legal program to a checked file, and what is said when it ends early."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Mapping

import jax

from ...core.errors import CompileError, UnsupportedError
from ...core.manager import PassManager
from ...core.program import Program
from ...core.specialize import specialize, symbols
from . import blame, check, dynamic
from .assembly import assemble
from .conversion import convert
from .edges import with_edges
from .engines import Engine
from .interface import Interface, interface_of
from .process import Worker, WorkerFailure

_Fails = Callable[[Program, Worker, Worker], bool]
"""Whether a part of the program fails as the whole did, given a process that converts and one that runs files."""

PROBE_S = 60.0
"""Longest time for one of the conversions with which a culprit is looked for."""


@dataclasses.dataclass(frozen=True)
class Made:
    """A file that was made.

    Attributes:
      model: its bytes.
      agreement: what the comparison with JAX showed; None when it was not wanted.
    """

    model: bytes
    agreement: check.Agreement | None


@dataclasses.dataclass(frozen=True)
class Maker:
    """What makes files of programs.

    Attributes:
      engine: the converter.
      python: the interpreter that has it; empty for this one.
      timeout_s: limit of a conversion, and of the run that checks it.
      memory_bytes: limit of the address space of both; 0 for none.
    """

    engine: Engine
    python: str = ""
    timeout_s: float = 600.0
    memory_bytes: int = 0

    def make(self, program: Program, interface: Interface, *, verify: bool) -> Made:
        """Converts a program, and checks the file against JAX.

        Raises:
          CompileError: the converter failed, or the file is wrong; the message names the operation that is likely to
            blame.
        """
        with self._converter(self.timeout_s) as converter, self._runner(self.timeout_s) as runner:
            try:
                model = self._convert(program, interface, converter)
            except WorkerFailure as failure:
                converter.close()
                raise self._conversion_error(program, failure) from None
            if not verify:
                return Made(model, None)
            try:
                result = check.compare(program, interface, model, runner)
            except WorkerFailure as failure:
                raise self._run_error(program, failure) from None
        if isinstance(result, check.Disagreement):
            raise self._disagreement_error(program, result)
        return Made(model, result)

    def _convert(self, program: Program, interface: Interface, worker: Worker) -> bytes:
        """The file; one for every size where the program has symbolic dimensions."""
        if not program.is_symbolic:
            return self._convert_as_is(with_edges(program), interface, worker)
        names = symbols(program)
        try:
            trials = [with_edges(at_sizes(program, sizes)) for sizes in dynamic.trial_sizes(names)]
            return dynamic.merge([self._convert_as_is(trial, interface, worker) for trial in trials], names)
        except ValueError as error:  # the sizes break a constraint of the symbols
            return self._convert_unknown(with_edges(program), interface, worker, str(error))
        except dynamic.NotUniform as error:
            return self._convert_unknown(with_edges(program), interface, worker, str(error))

    def _convert_unknown(self, program: Program, interface: Interface, worker: Worker, reason: str) -> bytes:
        """The file that the converter itself makes for unknown sizes, where no file for every size could be made."""
        try:
            return self._convert_as_is(program, interface, worker)
        except WorkerFailure as failure:
            raise UnsupportedError(
                f"no TFLite file of {program.name} can be made for all of its sizes: {reason}; "
                f"and {self.engine.package} cannot either: {_first_line(failure.text)}",
                hint="make fewer sizes dynamic; those of the batch seldom do harm",
            ) from None

    def _convert_as_is(self, program: Program, interface: Interface, worker: Worker) -> bytes:
        converted = convert(program, self.engine, worker)
        facts = {
            "xlapass": importlib.metadata.version("xlapass"),
            "jax": jax.__version__,
            "pipeline": ",".join(program.history),
            **converted.versions,
        }
        return assemble(converted.model, interface, facts, symbolic=program.is_symbolic)

    def _converter(self, timeout_s: float) -> Worker:
        return Worker(self.python, timeout_s=timeout_s, memory_bytes=self.memory_bytes)

    def _runner(self, timeout_s: float) -> Worker:
        """A process that runs files: always of this environment, which has LiteRT."""
        return Worker(timeout_s=timeout_s)

    # -- what went wrong -----------------------------------------------------------------------------------------------

    def _conversion_error(self, program: Program, failure: WorkerFailure) -> CompileError:
        engine = self.engine.package
        hints = {
            "timeout": "give it more time with the backend's option timeout",
            "memory": "give it more memory, or convert a smaller part of the model",
        }
        what = {
            "failed": f"{engine} could not convert {program.name}",
            "crashed": f"{engine} crashed while it converted {program.name}",
            "timeout": f"{engine} took too long to convert {program.name}",
            "memory": f"{engine} ran out of memory while it converted {program.name}",
        }[failure.kind]

        def fails(part: Program, converter: Worker, runner: Worker) -> bool:
            try:
                self._convert(part, interface_of(part), converter)
            except WorkerFailure as found:
                return found.kind == failure.kind
            return False

        return self._blamed(program, f"{what}: {failure.text}", fails, hints.get(failure.kind))

    def _run_error(self, program: Program, failure: WorkerFailure) -> CompileError:
        def fails(part: Program, converter: Worker, runner: Worker) -> bool:
            interface = interface_of(part)
            model = self._convert(part, interface, converter)
            try:
                check.run_file(part, interface, model, check.input_sets(part)[0][1], runner)
            except WorkerFailure:
                return True
            return False

        message = f"LiteRT cannot run what {self.engine.package} made of {program.name}: {failure.text}"
        return self._blamed(program, message, fails)

    def _disagreement_error(self, program: Program, found: check.Disagreement) -> CompileError:
        def fails(part: Program, converter: Worker, runner: Worker) -> bool:
            interface = interface_of(part)
            model = self._convert(part, interface, converter)
            return isinstance(check.compare(part, interface, model, runner), check.Disagreement)

        message = f"run by LiteRT, {found}"
        return self._blamed(program, message, fails, "verify=false (--no-verify) writes the file all the same")

    def _blamed(self, program: Program, message: str, fails: _Fails, hint: str | None = None) -> CompileError:
        """The error, with the operation that is likely to blame, if one is found."""
        limit = min(self.timeout_s, PROBE_S)
        with self._converter(limit) as converter, self._runner(limit) as runner:

            def fails_too(part: Program) -> bool:
                try:
                    return fails(part, converter, runner)
                except (CompileError, WorkerFailure):  # some other failure than the one that is looked for
                    return False

            culprit = blame.find_culprit(at_some_sizes(program), fails_too)
        if culprit is None:
            return CompileError(message, hint=hint)
        return CompileError(f"{message}\n  {culprit}", where=culprit.where, hint=hint)


def at_some_sizes(program: Program) -> Program:
    """The program, or where it is symbolic the first that was converted in its place."""
    return at_sizes(program, dynamic.trial_sizes(symbols(program))[0]) if program.is_symbolic else program


def at_sizes(program: Program, sizes: Mapping[str, int]) -> Program:
    """The program at the given sizes, legal: most rules wait until sizes are known."""
    return PassManager("legalize-tflite,fold-constants,dead-code", instruments=()).run(specialize(program, sizes))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
