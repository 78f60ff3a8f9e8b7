"""Hook specifications, discovery and the registry of everything that plugins bring.

A plugin is a module or object whose functions are marked with `hookimpl`; an installed package names it in the
entry-point group ``xlapass``. What comes with xlapass is registered in the same way. Hooks return mappings from names
to `Entry`; an entry names its implementation as text, ``"package.module:Attribute"``, so that listing imports nothing
heavy.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pluggy

from .errors import MissingDependencyError, UsageError, XlapassError
from .options import suggestion

PROJECT = "xlapass"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of its name."""


class PluginWarning(UserWarning):
    """A plugin failed and was left out; everything else works."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One thing that a plugin brings.

    Attributes:
      implementation: the object itself, or ``"package.module:Attribute"``, imported when first used.
      summary: one line for listings.
      extra: the optional dependencies of the plugin's package that it needs, if any.
      needs: the modules that must be importable for it to work.
    """

    implementation: Any
    summary: str = ""
    extra: str = ""
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Modules that are needed and not installed."""
        return [name for name in self.needs if not _is_installed(name)]

    def load(self, what: str) -> Any:
        """The implementation; raises `MissingDependencyError` or `UsageError` naming ``what``."""
        missing = self.missing()
        if missing:
            raise MissingDependencyError(what, self.extra, missing[0])
        if not isinstance(self.implementation, str):
            return self.implementation
        module, _, attribute = self.implementation.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except XlapassError:
            raise
        except (Exception, SystemExit) as error:  # a stranger's module may raise anything; say whose it is
            raise UsageError(f"{what} could not be loaded from {self.implementation}: {_summary(error)}") from error


@dataclasses.dataclass(frozen=True)
class NamedPipeline:
    """A pipeline with a name.

    Attributes:
      text: the pipeline, in the textual form.
      backend: the backend that takes its result, in the form ``name{option=value}``.
      summary: one line for listings.
      target: the target when the user names none.
    """

    text: str
    backend: str
    summary: str = ""
    target: str = ""


@dataclasses.dataclass(frozen=True)
class PhasePasses:
    """Passes that a plugin puts into a phase of existing pipelines.

    Attributes:
      phase: ``"simplify"``, ``"optimize"``, ``"legalize"`` or ``"finish"``, or another that a pipeline names.
      text: the passes, in the textual form.
      pipelines: names of the pipelines they go into; empty means all that have the phase.
    """

    phase: str
    text: str
    pipelines: tuple[str, ...] = ()


class HookSpecs:
    """The hooks. Every one is optional; each returns a mapping or a list, without side effects."""

    @hookspec
    def xlapass_passes(self) -> Mapping[str, Entry]:
        """Passes: `Entry` of a `Pass` subclass, by the name that pipelines use."""
        raise NotImplementedError

    @hookspec
    def xlapass_rules(self) -> Mapping[str, Entry]:
        """Rules for existing passes: `Entry` of a sequence of `Rule`, by the name of a `RewritePass`."""
        raise NotImplementedError

    @hookspec
    def xlapass_composites(self) -> Mapping[str, Entry]:
        """Composites: `Entry` of a `Composite`, by the composite's name."""
        raise NotImplementedError

    @hookspec
    def xlapass_forms(self) -> Mapping[str, Entry]:
        """Lowering forms: `Entry` of a sequence of `Form`, by a name for the family."""
        raise NotImplementedError

    @hookspec
    def xlapass_compile_options(self) -> Mapping[str, Entry]:
        """Options of XLA that may suit a program: `Entry` of a `CompileOptions`, by a name for reports."""
        raise NotImplementedError

    @hookspec
    def xlapass_precision_policies(self) -> Mapping[str, Entry]:
        """Rows of precision policies: `Entry` of a sequence of `Treatment`, by the name of the policy."""
        raise NotImplementedError

    @hookspec
    def xlapass_backends(self) -> Mapping[str, Entry]:
        """Backends: `Entry` of a `Backend` subclass, by name."""
        raise NotImplementedError

    @hookspec
    def xlapass_targets(self) -> Mapping[str, Entry]:
        """Targets: `Entry` of a `Target`, by name."""
        raise NotImplementedError

    @hookspec
    def xlapass_pipelines(self) -> Mapping[str, NamedPipeline]:
        """Named pipelines."""
        raise NotImplementedError

    @hookspec
    def xlapass_phases(self) -> Sequence[PhasePasses]:
        """Passes to insert into phases of existing pipelines."""
        raise NotImplementedError


KINDS: Mapping[str, str] = {
    "pass": "xlapass_passes",
    "rule set": "xlapass_rules",
    "composite": "xlapass_composites",
    "form family": "xlapass_forms",
    "compile options": "xlapass_compile_options",
    "precision policy": "xlapass_precision_policies",
    "backend": "xlapass_backends",
    "target": "xlapass_targets",
    "pipeline": "xlapass_pipelines",
}
"""What is looked up by name, and the hook that brings it."""

SHARED_NAMES = frozenset({"rule set", "precision policy"})
"""Kinds where several plugins may speak under one name, each adding its own."""


@dataclasses.dataclass(frozen=True)
class PluginStatus:
    """How a plugin fared: for ``xlapass plugins``.

    Attributes:
      name: name of its entry point, or of its module.
      origin: distribution and version, or ``"given"`` for one handed over in the program or by ``-p``.
      state: ``"active"``, ``"blocked"`` or ``"failed"``.
      brings: per kind, the names it registered.
      error: the traceback of its failure, or empty.
    """

    name: str
    origin: str
    state: str
    brings: Mapping[str, tuple[str, ...]]
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Registered:
    """An entry with the plugin that brought it."""

    name: str
    plugin: str
    entry: Any


class Registry:
    """Everything that the active plugins bring, by kind and name. Made by `load_registry`; not changed afterwards."""

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(HookSpecs)
        self._found: dict[str, dict[str, list[Registered]]] = {kind: {} for kind in KINDS}
        self._phases: list[tuple[str, PhasePasses]] = []
        self._status: list[PluginStatus] = []

    # -- filling -----------------------------------------------------------------------------------------------------

    def _add(self, name: str, origin: str, load: Any) -> None:
        """Loads and registers one plugin; a failure is kept as its status and, unless strict, becomes a warning."""
        try:
            brings = self._collect(name, load())
        except (Exception, SystemExit) as error:  # isolation: whatever a plugin raises is reported, the others go on
            if self.strict:
                raise UsageError(
                    f"plugin {name!r} ({origin}) failed: {_summary(error)}", hint=f"leave it out with -p no:{name}"
                ) from error
            self._status.append(PluginStatus(name, origin, "failed", {}, traceback.format_exc()))
            warnings.warn(
                f"plugin {name!r} ({origin}) failed and is left out: {_summary(error)} (see: xlapass list plugins)",
                PluginWarning,
                stacklevel=4,
            )
            return
        for kind, entries in brings.items():
            for key, entry in entries.items():
                self._found[kind].setdefault(key, []).append(Registered(key, name, entry))
        self._status.append(PluginStatus(name, origin, "active", {k: tuple(v) for k, v in brings.items() if v}))

    def _collect(self, name: str, plugin: Any) -> dict[str, dict[str, Any]]:
        """Registers one plugin, calls every hook of it and checks what it returns."""
        if self._manager.has_plugin(name):
            raise UsageError("another plugin of this name is active")
        self._manager.register(plugin, name)
        try:
            self._manager.check_pending()
            return self._call_hooks(name, plugin)
        except BaseException:
            self._manager.unregister(plugin)  # else its mistakes would be held against the plugins that follow
            raise

    def _call_hooks(self, name: str, plugin: Any) -> dict[str, dict[str, Any]]:
        others = [p for p in self._manager.get_plugins() if p is not plugin]
        brings: dict[str, dict[str, Any]] = {}
        for kind, hook in KINDS.items():
            brings[kind] = {}
            for result in self._manager.subset_hook_caller(hook, others)():
                brings[kind].update(_checked(hook, kind, result))
        phases = [p for result in self._manager.subset_hook_caller("xlapass_phases", others)() for p in result]
        for phase in phases:
            if not isinstance(phase, PhasePasses):
                raise TypeError(f"xlapass_phases returned {phase!r}, which is not a PhasePasses")
        self._phases.extend((name, phase) for phase in phases)
        return brings

    def _check_clashes(self) -> None:
        for kind, by_name in self._found.items():
            for name, claims in by_name.items():
                if len(claims) > 1 and kind not in SHARED_NAMES:
                    _raise_clash(claims, f"both bring a {kind} named {name!r}")
        passes, pipelines = self._found["pass"], self._found["pipeline"]
        for name in sorted(passes.keys() & pipelines.keys()):
            _raise_clash([*passes[name], *pipelines[name]], f"bring a pass and a pipeline, both named {name!r}")

    # -- asking ------------------------------------------------------------------------------------------------------

    def status(self) -> list[PluginStatus]:
        """How every plugin fared, in order of discovery."""
        return list(self._status)

    def names(self, kind: str) -> list[str]:
        """The known names of a kind (a key of `KINDS`), sorted."""
        return sorted(self._found[kind])

    def find(self, kind: str, name: str) -> Registered:
        """The entry of that name; raises `UsageError` with a suggestion when there is none."""
        claims = self._found[kind].get(name)
        if not claims:
            raise UsageError(f"there is no {kind} {name!r}", hint=suggestion(name, self._found[kind]))
        return claims[0]

    def load(self, kind: str, name: str) -> Any:
        """The implementation behind a name."""
        return self.find(kind, name).entry.load(f"{kind} {name!r}")

    def claims(self, kind: str, name: str) -> list[Registered]:
        """What every plugin brings under one name of a kind in `SHARED_NAMES`."""
        return list(self._found[kind].get(name, ()))

    def rules_for(self, pass_name: str) -> list[Any]:
        """The rules that plugins add to the `RewritePass` of that name."""
        claims = self.claims("rule set", pass_name)
        return [rule for claim in claims for rule in claim.entry.load(f"rules of plugin {claim.plugin!r}")]

    def all_of(self, kind: str) -> dict[str, Any]:
        """Every implementation of a kind, loaded, by name; those with missing dependencies left out."""
        return {name: self.load(kind, name) for name in self.names(kind) if not self.find(kind, name).entry.missing()}

    def phase(self, phase: str, pipeline: str | None) -> list[tuple[str, str]]:
        """``(plugin, pipeline text)`` of what plugins insert into a phase, in order of plugin names."""
        wanted = [
            (plugin, p.text)
            for plugin, p in self._phases
            if p.phase == phase and (not p.pipelines or pipeline in p.pipelines)
        ]
        return sorted(wanted, key=lambda item: item[0])


def _raise_clash(claims: Sequence[Registered], what: str) -> None:
    first, second = claims[0].plugin, claims[1].plugin
    raise UsageError(
        f"the plugins {first!r} and {second!r} {what}", hint=f"leave one out with -p no:{first} or -p no:{second}"
    )


def _checked(hook: str, kind: str, result: Any) -> Mapping[str, Any]:
    expected = NamedPipeline if kind == "pipeline" else Entry
    if not isinstance(result, Mapping):
        raise TypeError(f"{hook} returned {type(result).__name__}, not a mapping from names to {expected.__name__}")
    for name, entry in result.items():
        if not isinstance(name, str) or not isinstance(entry, expected):
            raise TypeError(f"{hook} returned {name!r}: {entry!r}, not a name with an {expected.__name__}")
    return result


def load_registry(
    plugins: Iterable[Any] = (), *, block: Iterable[str] = (), strict: bool = False, discover: bool = True
) -> Registry:
    """Discovers plugins and returns what they bring.

    Args:
      plugins: further plugins: modules, objects, or importable names.
      block: names of plugins to leave out.
      strict: a plugin that fails is an error, not a warning.
      discover: look at the entry-point group ``xlapass`` of installed packages.

    Raises:
      UsageError: two plugins bring the same name; with ``strict``, a plugin failed.
    """
    registry = Registry(strict)
    blocked = set(block)
    candidates: list[tuple[str, str, Any]] = []
    if discover:
        for point in sorted(importlib.metadata.entry_points(group=PROJECT), key=lambda p: p.name):
            origin = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown"
            candidates.append((point.name, origin, point.load))
    for plugin in plugins:
        name = plugin if isinstance(plugin, str) else getattr(plugin, "__name__", type(plugin).__name__)
        candidates.append((name, "given", _loader(plugin)))
    for name, origin, load in candidates:
        if name in blocked:
            registry._status.append(PluginStatus(name, origin, "blocked", {}))
        else:
            registry._add(name, origin, load)
    unknown = blocked - {name for name, _, _ in candidates}
    if unknown:
        raise UsageError(
            f"there is no plugin {min(unknown)!r} to leave out",
            hint=suggestion(min(unknown), [name for name, _, _ in candidates]),
        )
    registry._check_clashes()
    return registry


def _loader(plugin: Any) -> Any:
    if isinstance(plugin, str):
        return lambda: importlib.import_module(plugin)
    return lambda: plugin


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package of a dotted name is missing
        return False


def _summary(error: BaseException) -> str:
    return error.message if isinstance(error, XlapassError) else f"{type(error).__name__}: {error}"
