"""``xlapass list``, ``xlapass plugins`` and ``xlapass help NAME``. Only rules, and what is explained, are imported."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ..core.errors import UsageError
from ..core.options import suggestion
from ..core.plugins import Entry, Registry
from .arguments import COMMANDS, LISTS
from .console import Terminal, aligned
from .setup import load_plugins, project_settings

Row = tuple[str, ...]


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """``xlapass list KIND [NAME]``."""
    kind = LISTS.get(args.kind)
    if kind is None:
        raise UsageError(f"there is no list of {args.kind!r}", hint=suggestion(args.kind, LISTS))
    registry = load_plugins(args, project_settings(args), terminal, warn=kind != "plugin")
    if args.name is not None:
        from .describing import describe

        terminal.show("\n".join(describe(kind, args.name, registry)))
    elif kind == "plugin":
        _show_plugins(registry, terminal)
    elif kind == "rule":
        terminal.show(aligned(_rules(registry, terminal)))
    else:
        terminal.show(aligned(_pipelines(registry) if kind == "pipeline" else _entries(kind, registry)))
    return 0


def show_plugins(args: argparse.Namespace, terminal: Terminal) -> int:
    """``xlapass plugins``."""
    _show_plugins(load_plugins(args, project_settings(args), terminal, warn=False), terminal)
    return 0


def explain_name(args: argparse.Namespace, terminal: Terminal) -> int:
    """``xlapass help NAME``: everything that has the name, of whatever kind."""
    registry = load_plugins(args, project_settings(args), terminal)
    kinds = [kind for kind in LISTS.values() if kind not in ("rule", "plugin") and args.name in registry.names(kind)]
    if args.name in [status.name for status in registry.status()]:
        kinds.append("plugin")
    if not kinds:
        from .describing import rules_by_name

        rules = rules_by_name(registry)
        if args.name not in rules:
            known = {name for kind in LISTS.values() if kind not in ("rule", "plugin") for name in registry.names(kind)}
            hint = suggestion(args.name, known | set(rules) | set(COMMANDS))
            raise UsageError(f"there is nothing called {args.name!r}", hint=hint)
        kinds = ["rule"]
    from .describing import describe

    terminal.show("\n\n".join("\n".join(describe(kind, args.name, registry)) for kind in kinds))
    return 0


def _entries(kind: str, registry: Registry) -> Iterator[Row]:
    yield kind, "plugin", "about"
    for one in (registry.find(kind, name) for name in registry.names(kind)):
        yield one.name, one.plugin, about(one.entry)


def about(entry: Entry) -> str:
    """The summary of an entry, and what it still needs."""
    missing = entry.missing()
    if not missing:
        return entry.summary
    needs = f"pip install xlapass[{entry.extra}]" if entry.extra else f"the module {missing[0]}"
    return f"{entry.summary} (needs: {needs})"


def _pipelines(registry: Registry) -> Iterator[Row]:
    yield "pipeline", "plugin", "backend", "target", "about"
    for one in (registry.find("pipeline", name) for name in registry.names("pipeline")):
        yield one.name, one.plugin, one.entry.backend, one.entry.target, one.entry.summary


def _rules(registry: Registry, terminal: Terminal) -> Iterator[Row]:
    from .describing import rules_by_name

    yield "rule", "pass", "numerics", "operations"
    for name, found in sorted(rules_by_name(registry, terminal.warning).items()):
        for one in found:
            yield name, one.pass_name, one.rule.numerics, ", ".join(one.rule.pattern.names)


def _show_plugins(registry: Registry, terminal: Terminal) -> None:
    rows = [("plugin", "state", "from", "brings")]
    for status in registry.status():
        brings = "; ".join(f"{_counted(len(names), kind)}" for kind, names in status.brings.items())
        rows.append((status.name, status.state, status.origin, brings))
    terminal.show(aligned(rows))
    for status in registry.status():
        if status.error:
            terminal.show(f"\n{status.name} failed:\n{status.error.rstrip()}")


def _counted(count: int, kind: str) -> str:
    plurals = {singular: plural for plural, singular in LISTS.items()} | {"rule set": "rule sets"}
    return f"{count} {kind if count == 1 else plurals[kind].replace('-', ' ')}"
