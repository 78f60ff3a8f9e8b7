"""One pass, rule, pipeline, backend, target or plugin, explained from its class, its docstring and its options."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from ..core import options
from ..core.backend import Backend
from ..core.errors import UsageError
from ..core.pass_ import Pass, RewritePass
from ..core.plugins import Registered, Registry
from ..core.rewrite import Rule

TYPE_NAMES = {bool: "true|false", int: "INTEGER", float: "NUMBER", str: "TEXT"}


@dataclasses.dataclass(frozen=True)
class HeldRule:
    """A rule with the name of the pass that has it."""

    pass_name: str
    rule: Rule


def describe(kind: str, name: str, registry: Registry) -> Iterator[str]:
    """What there is to say about one thing, line by line; raises `UsageError` when there is no such thing."""
    if kind == "plugin":
        yield from _plugin(name, registry)
    elif kind == "rule":
        yield from _rules(name, registry)
    else:
        found = registry.find(kind, name)
        yield f"{kind} {name} (plugin {found.plugin})"
        yield from _DETAILS.get(kind, _implementation)(found, registry)


def rules_by_name(registry: Registry, problem: Callable[[str], None] = lambda text: None) -> dict[str, list[HeldRule]]:
    """Every rule of every pass, by name. Imports the modules that hold them; ``problem`` hears of those that fail."""
    found: dict[str, list[HeldRule]] = {}
    for pass_name in registry.names("pass"):
        try:
            cls = registry.load("pass", pass_name)
            rules = cls.known_rules(registry) if _is_class(cls, RewritePass) else []
        except Exception as error:  # a stranger's pass may raise anything; the others are listed
            problem(f"the rules of {pass_name} are left out: {error}")
            continue
        for rule in rules:
            found.setdefault(rule.name, []).append(HeldRule(pass_name, rule))
    return found


def _pass(found: Registered, registry: Registry) -> Iterator[str]:
    cls = _class_of(found, Pass)
    yield from _docstring(cls, found.entry.summary)
    needs = f"; needs {', '.join(cls.requires)} before it" if cls.requires else ""
    yield f"  works on {cls.level}, numerics: {cls.numerics}{needs}"
    yield from _options(found.name, cls)
    if issubclass(cls, RewritePass):
        rules = cls.known_rules(registry)
        yield ""
        yield "  rules:"
        width = max((len(rule.name) for rule in rules), default=0)
        yield from (f"    {rule.name:<{width}}  {rule.numerics}" for rule in rules)


def _backend(found: Registered, registry: Registry) -> Iterator[str]:
    cls = _class_of(found, Backend)
    yield from _docstring(cls, found.entry.summary)
    yield f"  usual target: {cls.default_target}; stages for --emit: {', '.join(('jaxpr', *cls.stages))}"
    yield from _options(found.name, cls)


def _pipeline(found: Registered, registry: Registry) -> Iterator[str]:
    yield f"  {found.entry.summary}"
    yield f"  backend {found.entry.backend}, target {found.entry.target or 'the backend chooses'}"
    yield f"  {found.entry.text}"
    yield f"  (xlapass --dry-run --pipeline={found.name} shows what plugins make of it)"


def _target(found: Registered, registry: Registry) -> Iterator[str]:
    target = registry.load("target", found.name)
    yield f"  {found.entry.summary}"
    yield f"  platform: {target.platform}"
    for key, value in target.properties.items():
        yield f"  {key}: {value}"


def _implementation(found: Registered, registry: Registry) -> Iterator[str]:
    yield f"  {found.entry.summary}"
    yield f"  {found.entry.implementation}"


_DETAILS: dict[str, Callable[[Registered, Registry], Iterator[str]]] = {
    "pass": _pass,
    "backend": _backend,
    "pipeline": _pipeline,
    "target": _target,
}


def _plugin(name: str, registry: Registry) -> Iterator[str]:
    known = {status.name: status for status in registry.status()}
    if name not in known:
        raise UsageError(f"there is no plugin {name!r}", hint=options.suggestion(name, known))
    status = known[name]
    yield f"plugin {name} ({status.origin}): {status.state}"
    for kind, names in status.brings.items():
        yield f"  {kind}: {', '.join(names)}"
    if status.error:
        yield status.error.rstrip()


def _rules(name: str, registry: Registry) -> Iterator[str]:
    known = rules_by_name(registry)
    if name not in known:
        raise UsageError(f"there is no rule {name!r}", hint=options.suggestion(name, known))
    for held in known[name]:
        yield f"rule {name} of {held.pass_name} ({held.rule.where})"
        yield f"  looks at {', '.join(held.rule.pattern.names)}; numerics: {held.rule.numerics}"
        yield f"  xlapass --explain {name} model.py shows where it applies, and where not and why"


# -- classes -----------------------------------------------------------------------------------------------------------


def _class_of(found: Registered, base: type) -> Any:
    cls = found.entry.load(f"{found.name!r}")
    if not _is_class(cls, base):
        raise UsageError(f"{found.name!r} of plugin {found.plugin!r} is {cls!r}, and not an xlapass.{base.__name__}")
    return cls


def _is_class(value: Any, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)


def _docstring(cls: type, otherwise: str) -> Iterator[str]:
    """The text of the class's own docstring, without its sections."""
    text = inspect.cleandoc(cls.__doc__ or "")
    if not text or text.startswith(f"{cls.__name__}("):  # what dataclasses write for a class without one
        text = otherwise
    for line in re.split(r"\n\n?[A-Z][a-z ]+:\n", text)[0].rstrip().splitlines():
        yield f"  {line}".rstrip()


def _options(name: str, cls: type) -> Iterator[str]:
    """The options: fields of the dataclass, with types, defaults and what the docstrings say."""
    fields, hints, documented = options.option_fields(cls), options.option_types(cls), attribute_docs(cls)
    yield ""
    if not fields:
        yield "  no options"
        return
    yield f"  options, as in {name}{{{next(iter(fields))}=...}}:"
    for written, field in fields.items():
        default = options.default_of(field)
        shown = "required" if default is dataclasses.MISSING else f"default: {_shown_default(default)}"
        yield f"    {written}={type_text(hints[written])}  ({shown})"
        if field.name in documented:
            yield f"        {documented[field.name]}"


def _shown_default(value: Any) -> str:
    return "none" if value in ((), "") else options.format_value(value)


def type_text(hint: Any) -> str:
    """How values of a type are written."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "|".join(map(str, arguments))
    if origin is tuple:
        inner = type_text(arguments[0])
        return f"{inner}+{inner}+..."
    if origin in (typing.Union, types.UnionType):
        choices = [type_text(a) for a in arguments if a is not type(None)]
        return "|".join([*choices, "none"] if type(None) in arguments else choices)
    return TYPE_NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def attribute_docs(cls: type) -> dict[str, str]:
    """What the sections "Attributes:" of a class and its bases say of each attribute, each on one line."""
    documented: dict[str, str] = {}
    for base in cls.__mro__:
        section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)+)", inspect.cleandoc(base.__doc__ or ""), re.MULTILINE)
        for entry in re.finditer(r"^  (\S.*?):((?:.*\n?)(?:^   +.*\n?)*)", section[1] if section else "", re.MULTILINE):
            for attribute in entry[1].split(","):
                documented.setdefault(attribute.strip(), " ".join(entry[2].split()))
    return documented
