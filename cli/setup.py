"""From flags and configuration to plugins, a plan and a program."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import UsageError
from ..core.options import suggestion
from ..core.plugins import PROJECT, PluginWarning, Registry, load_registry
from ..core.tuning import tuning_of
from .console import Terminal
from .settings import Settings, read_settings

if TYPE_CHECKING:
    from ..core.driver import Plan
    from ..core.program import Program

Choice = TypeVar("Choice", bound=str)

DEFAULT_PIPELINE = "cpu"

NO = "no:"
"""What stands before the name of a plugin to leave out."""


def project_settings(args: argparse.Namespace) -> Settings:
    """The configuration that applies to the model's folder, or to the current one where no file is named."""
    model = Path(getattr(args, "model", None) or "")
    folder = model.parent if model.suffix.startswith(".py") else Path()
    return read_settings(folder.resolve())


def load_plugins(args: argparse.Namespace, settings: Settings, terminal: Terminal, *, warn: bool = True) -> Registry:
    """The registry of what is installed, configured and named with ``-p``; plugins that fail become warnings."""
    given = [name for name in args.plugins if not name.startswith(NO)]
    blocked = [name.removeprefix(NO) for name in args.plugins if name.startswith(NO)]
    for folder in (settings.folder, str(Path.cwd())):
        if folder and folder not in sys.path:
            sys.path.append(folder)
    blocked += [name for name in settings.block if name not in given]
    modules = [name for name in dict.fromkeys([*settings.plugins, *given]) if not _is_installed_plugin(name)]
    for name in modules:
        if name not in blocked:
            _require_module(name)
    with warnings.catch_warnings():
        warnings.simplefilter("always", PluginWarning)
        _send_warnings(PluginWarning, terminal if warn else None)
        return load_registry(modules, block=blocked, strict=args.strict_plugins)


@contextlib.contextmanager
def form_warnings_shown(terminal: Terminal) -> Iterator[None]:
    """What passes say about forms and measurements while the body runs goes to ``terminal``."""
    from ..core.forms import FormWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", FormWarning)
        _send_warnings(FormWarning, terminal)
        yield


def _send_warnings(wanted: type[Warning], terminal: Terminal | None) -> None:
    """Inside `warnings.catch_warnings`: those of one kind go to ``terminal``, once each; the others as always."""
    usual, said = warnings.showwarning, set()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, wanted):
            usual(message, category, *place, **more)
        elif terminal is not None and str(message) not in said:
            said.add(str(message))
            terminal.warning(str(message))

    warnings.showwarning = show


def _is_installed_plugin(name: str) -> bool:
    return bool(importlib.metadata.entry_points(group=PROJECT, name=name))


def _require_module(name: str) -> None:
    """A plugin that raises is isolated; one that is not there was misspelt."""
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent package of a dotted name is missing
        found = False
    except Exception:  # the parent package is a stranger's code; loading the plugin reports what it raises
        found = True
    if not found:
        raise UsageError(
            f"there is no plugin or module {name!r}",
            hint="-p takes an importable name, such as my_package.plugin; pipelines are named with --pipeline",
        )


def make_plan(args: argparse.Namespace, settings: Settings, registry: Registry) -> Plan:
    """The passes, backend and target that the flags ask for."""
    from ..core.driver import plan

    tuning = tuning_of(args.tune, args.tune_budget, args.tune_file)
    device = None if args.device is None else _device_name(args.device)
    pipeline = args.pipeline
    if pipeline is None:
        pipeline = settings.pipeline or _pipeline_for(device, registry)
    chosen = plan(
        pipeline,
        backend=args.backend,
        target=device,
        registry=registry,
        skip=args.skip,
        stop_after=args.stop_after,
        tune=tuning,
    )
    chosen = _with_file_options(chosen, args)
    if args.accuracy_target is not None:
        aimed = chosen.pipeline.with_option("accuracy_target", args.accuracy_target)
        chosen = dataclasses.replace(chosen, pipeline=aimed)
    return _unverified(chosen) if getattr(args, "no_verify", False) else chosen


#: Flags that are options of the backend, by the attribute that argparse gives them, which is the option's name too.
FILE_OPTIONS = ("opset", "input_names", "output_names")


def _with_file_options(chosen: Plan, args: argparse.Namespace) -> Plan:
    """The plan with a backend that has the options which were given as flags."""
    given = {name: value for name in FILE_OPTIONS if (value := getattr(args, name, None)) is not None}
    known = {field.name for field in dataclasses.fields(chosen.backend)}
    for name in given:
        if name not in known:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"the {chosen.backend.name} backend has no option for {flag}", hint=f"drop {flag}")
    return dataclasses.replace(chosen, backend=dataclasses.replace(chosen.backend, **given)) if given else chosen


def _unverified(chosen: Plan) -> Plan:
    """The plan with a backend that does not check what it writes: ``--no-verify`` is its option ``verify=false``."""
    backend = chosen.backend
    if all(field.name != "verify" for field in dataclasses.fields(backend)):
        raise UsageError(f"the {backend.name} backend checks no file before it is written", hint="drop --no-verify")
    return dataclasses.replace(chosen, backend=dataclasses.replace(backend, **{"verify": False}))


def _device_name(text: str) -> str:
    """Upper case, blanks and underscores are forgiven."""
    return text.strip().lower().replace("_", "-").replace(" ", "-")


def _pipeline_for(device: str | None, registry: Registry) -> str:
    """The pipeline when none is named: the first whose usual target is of the same platform as the device asked for."""
    from ..core.driver import load_target

    names = registry.names("pipeline")
    if device is None or device in names:
        return device or DEFAULT_PIPELINE
    platform = load_target(device, registry).platform
    targets = {name: registry.find("pipeline", name).entry.target for name in names}
    usable = [name for name in names if targets[name] in registry.names("target")]
    return next((n for n in usable if load_target(targets[n], registry).platform == platform), DEFAULT_PIPELINE)


def warn_of_other_platform(chosen: Plan, terminal: Terminal) -> None:
    """Says where a pipeline was made for another platform than the device: what it does may be of no use there."""
    from ..core.driver import load_target

    usual = chosen.registry.find("pipeline", chosen.name).entry.target if chosen.name is not None else ""
    device, known = chosen.target.name, chosen.registry.names("target")
    if usual not in known or device not in known:
        return
    if load_target(usual, chosen.registry).platform != chosen.target.platform:
        better = _pipeline_for(device, chosen.registry)
        terminal.warning(f"pipeline {chosen.name!r} is not for {device}\n  hint: --pipeline={better} is")


def load_program(args: argparse.Namespace, terminal: Terminal) -> Program:
    """The model that the command line names, traced."""
    from ..core.modelfile import load_model, trace_model

    with terminal.progress(f"loading {args.model}"), terminal.user_output():
        loaded = load_model(args.model, args.entry)
        terminal.say_progress(f"tracing {loaded.entry}")
        program = trace_model(loaded, args.input, args.dynamic)
    return program if args.calibrate is None else program.replace(calibration=_calibration(args.calibrate))


def _calibration(path: str) -> str:
    """The place of calibration data, or of a calibration file that is there already."""
    if not Path(path).exists():
        raise UsageError(
            f"there is no file or folder {path!r} to calibrate with",
            hint="name an .npz or .npy file, a folder of such, or a calibration file (.json)",
        )
    return path


def checked_choice(text: str, choices: Sequence[Choice], option: str) -> Choice:
    """The one of ``choices`` that ``text`` is."""
    for choice in choices:
        if choice == text:
            return choice
    raise UsageError(f"{option} cannot be {text!r}", hint=suggestion(text, choices))
