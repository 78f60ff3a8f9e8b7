"""`compile-options`: the XLA options under which a program runs fastest, by measurement."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import time
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from ..core.compile_options import CompileOptions
from ..core.fingerprint import hash_structure
from ..core.forms import FormWarning, Measured
from ..core.instruments.inputs import random_inputs
from ..core.lowering import platform_of
from ..core.pass_ import Pass, PassContext, PassResult, within
from ..core.program import Program
from ..core.resident import ResidentFunction
from ..core.rewrite import Numerics
from ..core.timings import Timings, this_environment
from ..core.tuning import Tuning, timings_path
from .forms.measure import Run, alternating_samples, compared, local_device, wrong_result

SHARE = 0.25
"""Of the time for tuning a program; ``select-forms`` has the rest."""

SECONDS = 1.5
"""Of measuring one candidate against XLA's defaults, compilation apart."""


@dataclasses.dataclass(frozen=True)
class SelectCompileOptions(Pass):
    """Chooses the XLA options under which the program runs fastest, by measurement; without times, XLA's defaults.

    Attributes:
      timings: a file of measured times, or ``cache`` for the user's own; without one, nothing is chosen.
      budget: seconds to spend on measuring candidates that the file does not know.
      least_gain: how many times faster than with XLA's defaults the program must be.
    """

    timings: str = ""
    budget: float = 0.0
    least_gain: float = 1.03

    name: ClassVar[str] = "compile-options"
    numerics: ClassVar[Numerics] = "reassociating"

    def tuned(self, tuning: Tuning) -> SelectCompileOptions:
        """The pass that measures what it does not know yet."""
        return dataclasses.replace(self, timings=tuning.file, budget=SHARE * tuning.budget)

    def run(self, program: Program, context: PassContext) -> PassResult:
        """The program with other ``compiler_options``; the choice is reported as ``options`` in the details."""
        device = local_device(context.target)
        if not self.timings or device is None or why_not_measured(program):
            return PassResult(program, False)
        candidates = {
            name: candidate
            for name, candidate in context.registry.all_of("compile options").items()
            if candidate.platform == platform_of(context.target) and within(candidate.numerics, context.numerics)
        }
        path = timings_path(self.timings)
        timings = Timings.read(path, this_environment(device))
        subject = f"program {structure_hash(program)}"
        known = timings.of(subject) or {}
        missing = {str(one): one for one in candidates.values() if str(one) not in known}
        if self.budget > 0 and missing and timings.is_writable:
            for key, measured in _measure(program, device, missing, self.budget, context):
                timings.record(subject, key, measured)
                timings.try_to_write(path)
            known = timings.of(subject) or {}
        return self._chosen(program, candidates, known, context)

    def _chosen(
        self,
        program: Program,
        candidates: Mapping[str, CompileOptions],
        known: Mapping[str, Measured],
        context: PassContext,
    ) -> PassResult:
        """The candidate that surely gains most: each was measured against the defaults of its own moment."""
        usable = {name: known[str(one)] for name, one in candidates.items() if str(one) in known}
        gaining = {name: one.gain for name, one in usable.items() if not one.problem and one.gain >= self.least_gain}
        if not gaining:
            return PassResult(program, False, details=context.details)
        best = max(gaining, key=gaining.__getitem__)
        chosen = candidates[best]
        context.details["options"] = [{"options": best, "set": str(chosen), "gain": round(gaining[best], 2)}]
        changed = program.replace(compiler_options={**program.compiler_options, **chosen.options})
        return PassResult(changed, True, chosen.numerics, context.details)


def why_not_measured(program: Program) -> str | None:
    """Why a program cannot be run here, again and again, to be measured."""
    if program.is_symbolic:
        return "its sizes are not known yet"
    if program.jaxpr.effects:
        return "it has effects, which would happen at every run"
    return None


def structure_hash(program: Program) -> str:
    """A short hash of a program's equations and types, whatever its weights."""
    digest = hashlib.sha256()
    hash_structure(program.jaxpr, digest)
    return digest.hexdigest()[:24]


def _measure(
    program: Program, device: jax.Device, missing: Mapping[str, CompileOptions], budget: float, context: PassContext
) -> Any:
    """Yields what each candidate showed, as long as the budget lasts."""
    start = time.perf_counter()
    inputs = jax.device_put(random_inputs(program), device)

    def prepared(options: Mapping[str, str | bool]) -> Run:
        function = ResidentFunction(program, device=device, compiler_options={**program.compiler_options, **options})
        return lambda: jax.block_until_ready(function(inputs))

    done = 0
    try:
        with jax.default_device(device):
            default = prepared({})
            wanted = default()
            for key, candidate in missing.items():
                if time.perf_counter() - start > budget:
                    break
                context.report_progress(done, len(missing), key)
                yield key, _against(default, wanted, prepared(candidate.options), candidate, key)
                done += 1
                gc.collect()  # the manager has paused collection, and what was compiled holds weights in cycles
    except KeyboardInterrupt:
        message = f"tuning was interrupted after {done} of {len(missing)} sets of compile options"
        warnings.warn(f"{message}; XLA's defaults stay in the place of the others", FormWarning, stacklevel=2)
    context.report_progress(len(missing), len(missing), "")


def _against(default: Run, wanted: Any, run: Run, candidate: CompileOptions, key: str) -> Measured:
    try:
        problem = wrong_result(wanted, run(), candidate.numerics)
    except Exception as error:  # this XLA may not know the option, or fail with it; its defaults always work
        problem = f"XLA raised {type(error).__name__}: {error}"
    if problem:
        warnings.warn(f"the compile options {key} are not used: {problem}", FormWarning, stacklevel=2)
        return Measured(problem=problem)
    return compared(alternating_samples([default, run], SECONDS))[1]
