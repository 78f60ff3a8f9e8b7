"""`compile`: model -> pipeline for the target -> backend -> artifact."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from . import options
from .backend import Artifact, Backend, Origin
from .errors import CompileError, UsageError, XlapassError
from .instruments.numerics import NumericalVerifier
from .instruments.progress import ProgressLine
from .instruments.report import Report
from .instruments.selection import PermittedNumerics, SkipSettled
from .instruments.structure import StructuralVerifier
from .manager import Instrument, PassManager
from .pass_ import Pass
from .pipeline import Pipeline, PipelineLike, parse_item, resolve
from .plugins import NamedPipeline, Registry, load_registry
from .program import Program
from .rewrite import Numerics
from .target import Target
from .tracing import trace
from .tuning import Tuning, tuning_of

Verify = Literal["none", "structure", "numerics"]
"""How much is checked after every pass: nothing, well-formedness and types, or results too."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A resolved compilation: what will run, before it does.

    Attributes:
      pipeline: the passes.
      name: the pipeline's name, or None when it was given as text or passes.
      backend: what takes the result.
      target: what it is for.
      registry: the plugins.
    """

    pipeline: Pipeline
    name: str | None
    backend: Backend
    target: Target
    registry: Registry


def plan(
    pipeline: PipelineLike = "cpu",
    *,
    backend: str | Backend | None = None,
    target: str | Target | None = None,
    registry: Registry | None = None,
    skip: Iterable[str] = (),
    stop_after: str | None = None,
    tune: Tuning | None = None,
) -> Plan:
    """Resolves names to passes, backend and target.

    Args:
      pipeline: the name of a pipeline, or passes in any form. Only a name brings a backend; else it is XLA on the CPU.
      backend: overrides the pipeline's; text in the form ``name{option=value}``.
      target: overrides the backend's default; the name of a target.
      registry: the plugins; by default those that are installed.
      skip: names of passes to leave out, or one name.
      stop_after: name of the last pass to run.
      tune: that measurements shall decide where passes have a choice; None leaves it to static cost models.

    Raises:
      UsageError: unknown names, options that do not parse, an impossible order.
    """
    registry = registry if registry is not None else load_registry()
    named = _named(pipeline, registry)
    resolved = resolve(pipeline, registry)
    if names := [skip] if isinstance(skip, str) else list(skip):
        resolved = resolved.without(names)
    if stop_after is not None:
        resolved = resolved.until(stop_after)
    if tune is not None:
        resolved = resolved.tuned(tune)
    chosen = backend if backend is not None else named.backend if named is not None else "xla"
    backend_object = chosen if isinstance(chosen, Backend) else load_backend(chosen, registry)
    wanted = target if target is not None else (named.target if named is not None else "")
    return Plan(
        resolved,
        pipeline if isinstance(pipeline, str) and named is not None else None,
        backend_object,
        wanted if isinstance(wanted, Target) else load_target(wanted or backend_object.default_target, registry),
        registry,
    )


def compile(
    model: Any,
    *example_args: Any,
    pipeline: PipelineLike = "cpu",
    params: Any = None,
    dynamic: Any = None,
    donate_argnums: int | Sequence[int] = (),
    backend: str | Backend | None = None,
    target: str | Target | None = None,
    numerics: Numerics = "lossy",
    verify: Verify = "structure",
    instruments: Sequence[Instrument] = (),
    registry: Registry | None = None,
    tune: bool = False,
    tune_budget: str | float | None = None,
    tune_file: str | os.PathLike[str] | None = None,
    calibration_data: Any = None,
) -> Artifact:
    """Compiles a model.

    Args:
      model: anything that `trace` takes, or a `Program`, which needs no ``example_args``.
      *example_args, params, dynamic, donate_argnums: see `trace`.
      pipeline, backend, target, registry: see `plan`.
      numerics: the loosest change to results that is permitted; passes and rules beyond it are left out.
      verify: what is checked after every pass.
      instruments: what else watches the passes.
      tune, tune_budget, tune_file: see `xlapass.jit`.
      calibration_data: typical inputs, for passes that measure ranges: see `Program.calibration`.

    Returns:
      The backend's artifact; ``artifact.report`` says what the passes did.

    Raises:
      UsageError: something was asked for wrongly.
      CompileError: the model cannot be compiled; subclasses say why.
    """
    tuning = tuning_of(tune, tune_budget, tune_file)
    chosen = plan(pipeline, backend=backend, target=target, registry=registry, tune=tuning)
    if tuning is not None or calibration_data is not None:
        instruments = [*instruments, ProgressLine()]
    program = as_program(model, example_args, params=params, dynamic=dynamic, donate_argnums=donate_argnums)
    if calibration_data is not None:
        program = program.replace(calibration=calibration_data)
    return run_plan(chosen, program, numerics=numerics, verify=verify, instruments=instruments)


def as_program(model: Any, example_args: Sequence[Any], **options: Any) -> Program:
    """``model`` itself when it is a `Program`, else its trace."""
    if not isinstance(model, Program):
        return trace(model, *example_args, **options)
    if example_args:
        raise UsageError("a Program is compiled as it was traced; it takes no example arguments")
    return model


def run_plan(
    chosen: Plan,
    program: Program,
    *,
    numerics: Numerics = "lossy",
    verify: Verify = "structure",
    instruments: Sequence[Instrument] = (),
) -> Artifact:
    """Runs the passes of a plan over a program and hands the result to its backend."""
    report = Report()
    optimized = optimize(chosen, program, numerics=numerics, verify=verify, instruments=[report, *instruments])
    artifact = emit(chosen, optimized)
    artifact.report = report
    again = functools.partial(run_plan, chosen, numerics=numerics, verify=verify, instruments=instruments)
    artifact.origin = Origin(program, again)
    return artifact


def emit(chosen: Plan, program: Program) -> Artifact:
    """Hands a program to the backend of a plan; whatever the backend raises becomes a `CompileError` that names it."""
    name = chosen.backend.name
    try:
        artifact = chosen.backend.emit(program, chosen.target)
    except XlapassError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's backend may raise anything; say whose it is
        raise CompileError(f"backend {name!r} raised {type(error).__name__}: {error}") from error
    if not isinstance(artifact, Artifact):
        raise CompileError(f"backend {name!r} returned {type(artifact).__name__}, not an Artifact")
    return artifact


def optimize(
    chosen: Plan,
    program: Program,
    *,
    numerics: Numerics = "lossy",
    verify: Verify = "structure",
    instruments: Sequence[Instrument] = (),
    explain: Iterable[str] = (),
) -> Program:
    """Runs the passes of a plan over a program; ``explain`` names rules whose near misses the rewrite logs keep."""
    manager = PassManager(
        chosen.pipeline,
        registry=chosen.registry,
        target=chosen.target,
        numerics=numerics,
        instruments=[PermittedNumerics(numerics), SkipSettled(), *instruments, *verifiers(verify)],
        explain=explain,
        pipeline_name=chosen.name,
    )
    optimized = manager.run(program)
    compares = chosen.backend.compares and optimized is not program
    return optimized.replace(traced=program.traced or program) if compares else optimized


def verifiers(verify: Verify) -> list[Instrument]:
    """The instruments of a level of verification."""
    chosen: dict[str, list[Instrument]] = {
        "none": [],
        "structure": [StructuralVerifier()],
        "numerics": [StructuralVerifier(), NumericalVerifier()],
    }
    if verify not in chosen:
        raise UsageError(f"cannot verify {verify!r}", hint=options.suggestion(str(verify), chosen))
    return chosen[verify]


def load_backend(text: str, registry: Registry) -> Backend:
    """A backend from ``name{option=value}``."""
    name, option_texts = parse_item(text)
    cls = registry.load("backend", name)
    if not (isinstance(cls, type) and issubclass(cls, Backend)):
        plugin = registry.find("backend", name).plugin
        raise UsageError(
            f"backend {name!r} of plugin {plugin!r} is {cls!r}, which is not a subclass of xlapass.Backend"
        )
    backend: Backend = options.build(cls, f"backend {name!r}", option_texts)
    return backend


def load_target(name: str, registry: Registry) -> Target:
    """A target by name."""
    target = registry.load("target", name)
    if not isinstance(target, Target):
        plugin = registry.find("target", name).plugin
        raise UsageError(f"target {name!r} of plugin {plugin!r} is {target!r}, which is not an xlapass.Target")
    return target


def _named(pipeline: PipelineLike, registry: Registry) -> NamedPipeline | None:
    if isinstance(pipeline, str) and pipeline in registry.names("pipeline"):
        entry: NamedPipeline = registry.find("pipeline", pipeline).entry
        return entry
    if not isinstance(pipeline, str | Pipeline | Pass | Sequence):
        raise UsageError(f"a pipeline is text, passes or an xlapass.Pipeline, and not {type(pipeline).__name__}")
    return None
