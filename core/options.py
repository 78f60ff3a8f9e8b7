"""Options of passes and backends: dataclass fields as text, ``name{key=value,other-key=value}``, and back.

One grammar serves passes, backends and targets. Values are read by the type of the field: bool (``true``/``false``),
int (``1_000``, ``64k``, ``1m``), float, str, `Literal`, and tuples of these, joined by ``+``. A value that holds
``,{}()+`` outside matching brackets is written in double quotes.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .errors import UsageError

_NEEDS_QUOTES = re.compile(r'[][,{}()+"\s=]|^$|^none$')
_SUFFIXES = {"k": 2**10, "m": 2**20, "g": 2**30}

MOST_NAMES = 50
"""So many known names a suggestion lists: a page of them hides the message."""


def option_name(field: str) -> str:
    """``max_bytes`` is written ``max-bytes``."""
    return field.replace("_", "-")


def option_fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """The options of a dataclass by their written names."""
    return {option_name(f.name): f for f in dataclasses.fields(cls) if f.init}


def option_types(cls: type) -> dict[str, Any]:
    """The resolved type of each option, by written name."""
    hints = typing.get_type_hints(cls)
    return {name: hints[field.name] for name, field in option_fields(cls).items()}


def build(cls: type, what: str, options: Mapping[str, str]) -> Any:
    """Makes an instance of the dataclass ``cls`` from option texts.

    Args:
      cls: a frozen dataclass.
      what: how to call it in messages, such as ``pass 'inline'``.
      options: texts by written name.

    Raises:
      UsageError: an unknown option (with the nearest known one), or a value that does not parse.
    """
    fields, hints = option_fields(cls), option_types(cls)
    values = {}
    for name, text in options.items():
        if name not in fields:
            raise UsageError(f"{what} has no option {name!r}", hint=suggestion(name, fields, "it has no options"))
        values[fields[name].name] = parse_value(text, hints[name], f"option {name!r} of {what}")
    missing = [n for n, f in fields.items() if f.name not in values and not has_default(f)]
    if missing:
        raise UsageError(f"{what} needs the option {missing[0]!r}", hint=f"write {{{missing[0]}=...}}")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what}: {error}") from error


def has_default(field: dataclasses.Field[Any]) -> bool:
    """Whether an option may be left out."""
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field, or `dataclasses.MISSING`."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def to_text(name: str, instance: Any) -> str:
    """``name{key=value}`` with the options that differ from their defaults; `build` reads it back."""
    parts = []
    for written, field in option_fields(type(instance)).items():
        value = getattr(instance, field.name)
        if value != default_of(field):
            parts.append(f"{written}={format_value(value)}")
    return f"{name}{{{','.join(parts)}}}" if parts else name


def format_value(value: Any) -> str:
    """One value as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "+".join(map(format_value, value))
    text = str(value)
    if isinstance(value, str) and _NEEDS_QUOTES.search(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def parse_value(text: str, hint: Any, what: str) -> Any:
    """Reads one value by its type; raises `UsageError` naming ``what``."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        choices = [a for a in typing.get_args(hint) if a is not type(None)]
        return None if text == "none" else parse_value(text, choices[0], what)
    if origin is tuple:
        inner = typing.get_args(hint)[0]
        return tuple(parse_value(part, inner, what) for part in split_outside_brackets(text, "+") if part != "")
    if origin is typing.Literal:
        allowed = typing.get_args(hint)
        for choice in allowed:
            if str(choice) == unquote(text):
                return choice
        raise UsageError(f"{what} cannot be {text!r}", hint=f"one of: {', '.join(map(str, allowed))}")
    return _parse_scalar(text, hint, what)


def _parse_scalar(text: str, hint: Any, what: str) -> Any:
    if hint is bool:
        if text.lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
            return text.lower() in ("true", "yes", "on", "1")
        raise UsageError(f"{what} must be true or false, and is {text!r}")
    if hint is int:
        factor = _SUFFIXES.get(text[-1:].lower(), 1)
        try:
            return int(text[:-1] if factor > 1 else text, 0) * factor
        except ValueError:
            raise UsageError(f"{what} must be an integer, and is {text!r}") from None
    if hint is float:
        try:
            return float(text)
        except ValueError:
            raise UsageError(f"{what} must be a number, and is {text!r}") from None
    return unquote(text)


def unquote(text: str) -> str:
    """Removes double quotes around a value."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """Splits at ``separator`` where no bracket or quote is open; raises `UsageError` on unbalanced ones."""
    parts, depth, start = [], 0, 0
    for i, char in _outside_quotes(text):
        depth += (char in "{([") - (char in "})]")
        if depth < 0:
            raise UsageError(f"{text!r} has a {char!r} too many")
        if char == separator and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    if depth:
        raise UsageError(f"{text!r} has a bracket that is not closed")
    return [part.strip() for part in [*parts, text[start:]]]


def split_bracketed(text: str) -> tuple[str, str]:
    """``"{a}b"`` as ``("a", "b")``: what stands in the bracket at the beginning, and what follows it."""
    depth = 0
    for i, char in _outside_quotes(text):
        depth += (char in "{([") - (char in "})]")
        if depth == 0:
            return text[1:i], text[i + 1 :].strip()
    raise UsageError(f"{text!r} has a bracket that is not closed")


def _outside_quotes(text: str) -> Iterator[tuple[int, str]]:
    """The characters that stand in no quotes, with their positions."""
    quoted, i = False, 0
    while i < len(text):
        if text[i] == '"':
            quoted = not quoted
        elif not quoted:
            yield i, text[i]
        elif text[i] == "\\":
            i += 1
        i += 1
    if quoted:
        raise UsageError(f"{text!r} has a quote that is not closed")


def suggestion(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """``did you mean 'x'?`` for the nearest known name, or the first that has it as a part; else what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    close = close or [whole for whole in names if name in re.split(r"[./]", whole)]
    if close:
        return f"did you mean {close[0]!r}?"
    more = len(names) - MOST_NAMES
    listed = ", ".join(names[:MOST_NAMES]) + (f", and {more} more" if more > 0 else "")
    return f"known: {listed}" if names else otherwise
