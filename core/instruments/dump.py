"""Programs as text around passes, and readable differences between them."""

from __future__ import annotations

import bisect
import difflib
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from jax.extend import core as jex_core

from .. import _compat
from ..manager import Instrument, PassEvent
from ..pipeline import Pipeline, Step
from ..program import Program

When = Literal["before", "after", "changed"]
"""What is shown of a pass: the program it is given, the one it leaves, or the difference when it changed something."""

CONTEXT = 2
"""Unchanged lines shown on either side of a change."""

LONG_PARAMETER = 120
"""A parameter's text is cut beyond this: tables of indices and sharding specifications say little to a reader."""

LONG_STRETCH = 1_000_000
"""Stretches without common lines, whose lengths multiply to more than this, are shown as replaced altogether."""


class Dump(Instrument):
    """Shows the program around passes.

    Args:
      when: see `When`.
      show: takes the text of one dump, lines ended by newlines.
      only: name of the pass to look at; None for every one.
    """

    def __init__(self, when: When, show: Callable[[str], None], only: str | None = None) -> None:
        self._when = when
        self._show = show
        self._only = only
        self._names = Names()

    def begin(self, pipeline: Pipeline, program: Program) -> None:
        """Forgets the names of the previous program's variables."""
        self._names = Names()

    def before(self, step: Step, program: Program) -> None:
        """Shows the program that the pass is given."""
        if self._when == "before" and self._wanted(step):
            self._show("\n".join([f"=== before {step.pass_}", *self._lines(program), ""]))

    def after(self, event: PassEvent) -> None:
        """Shows the program that the pass leaves, or what it changed."""
        if not self._wanted(event.step):
            return
        if self._when == "after":
            self._show("\n".join([f"=== after {event.step.pass_}", *self._lines(event.result.program), ""]))
        elif self._when == "changed" and event.result.changed:
            old, new = self._lines(event.before), self._lines(event.result.program)
            self._show("\n".join([f"=== changed by {event.step.pass_}", *changed_lines(old, new), ""]))

    def _wanted(self, step: Step) -> bool:
        return self._only is None or step.pass_.name == self._only

    def _lines(self, program: Program) -> list[str]:
        return program_lines(program, self._names)


class Names:
    """Names of variables that stay the same from one dump to the next, so that only what changed differs."""

    def __init__(self) -> None:
        self._names: dict[Any, str] = {}

    def of(self, var: Any) -> str:
        """The name of a variable: a, b, ..., z, ba, bb, ... in order of first sight."""
        if isinstance(var, jex_core.Literal):
            return str(var.val)
        if isinstance(var, jex_core.DropVar):
            return "_"
        name = self._names.get(var)
        if name is None:
            name = self._names[var] = _letters(len(self._names))
        return name


def program_lines(program: Program, names: Names) -> list[str]:
    """A program as lines: one for each operation, with types, parameters and the user's source line."""
    if program.exported is not None:
        return str(program.exported.mlir_module()).splitlines()
    return _jaxpr_lines(program.jaxpr.jaxpr, names, "")


def changed_lines(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """What differs: lines that start with ``-``, ``+`` or a blank, and ``...`` where unchanged ones are left out."""
    script = list(_edit_script(old, new))
    changed = [i for i, (sign, _) in enumerate(script) if sign != " "]
    shown = {j for i in changed for j in range(i - CONTEXT, i + CONTEXT + 1)}
    lines: list[str] = []
    for i, (sign, line) in enumerate(script):
        if i in shown:
            lines.append(f"{sign} {line}")
        elif not lines or lines[-1] != "  ...":
            lines.append("  ...")
    return lines


def _jaxpr_lines(jaxpr: jex_core.Jaxpr, names: Names, indent: str) -> list[str]:
    lines = []
    if jaxpr.constvars:
        lines.append(f"{indent}constants {_typed(jaxpr.constvars, names)}")
    lines.append(f"{indent}inputs {_typed(jaxpr.invars, names)}".rstrip())
    for eqn in jaxpr.eqns:
        lines.extend(_equation_lines(eqn, names, indent))
    lines.append(f"{indent}return {', '.join(map(names.of, jaxpr.outvars))}".rstrip())
    return lines


def _equation_lines(eqn: Any, names: Names, indent: str) -> Iterator[str]:
    parameters = {key: value for key, value in eqn.params.items() if not _says_nothing(value)}
    bodies = {key: found for key, value in parameters.items() if (found := _bodies(value))}
    shown = ", ".join(f"{key}={_short(value)}" for key, value in parameters.items() if key not in bodies)
    operands = " ".join([eqn.primitive.name + (f"[{shown}]" if shown else ""), *map(names.of, eqn.invars)])
    results = f"{_typed(eqn.outvars, names)} = " if eqn.outvars else ""
    where = _compat.user_location(eqn.source_info)
    place = f"  # {short_place(where)}" if where else ""
    yield f"{indent}{results}{operands}{' {' if bodies else ''}{place}"
    for key, found in bodies.items():
        for index, body in enumerate(found):
            yield f"{indent}  {key}{f'[{index}]' if len(found) > 1 else ''}:"
            yield from _jaxpr_lines(body, names, indent + "    ")
    if bodies:
        yield f"{indent}}}"


def short_place(where: str) -> str:
    """A source line without the folder that packages are installed in."""
    return where.rpartition("site-packages/")[2]


def _bodies(value: Any) -> list[jex_core.Jaxpr]:
    items = value if isinstance(value, tuple | list) else (value,)
    found = [item.jaxpr if isinstance(item, jex_core.ClosedJaxpr) else item for item in items]
    return found if all(isinstance(item, jex_core.Jaxpr) for item in found) else []


def _says_nothing(value: Any) -> bool:
    """Whether a parameter has the value that means "nothing special", or is a function, such as a derivative's."""
    if isinstance(value, tuple):
        return all(map(_says_nothing, value))
    if value is None or value is False or _compat.is_unspecified_sharding(value):
        return True
    is_empty_mesh = getattr(value, "empty", None) is True
    return is_empty_mesh or isinstance(value, types.FunctionType)


def _short(value: Any) -> str:
    text = " ".join(str(getattr(value, "__name__", value)).split())
    return text if len(text) <= LONG_PARAMETER else text[: LONG_PARAMETER - 3] + "..."


def _typed(variables: Sequence[Any], names: Names) -> str:
    return " ".join(f"{names.of(v)}:{v.aval.str_short(short_dtypes=True)}" for v in variables)


def _letters(number: int) -> str:
    name = ""
    while True:
        number, digit = divmod(number, 26)
        name = chr(ord("a") + digit) + name
        if number == 0:
            return name


# -- differences in near-linear time -----------------------------------------------------------------------------------


def _edit_script(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str, str]]:
    """``(sign, line)`` pairs that turn ``old`` into ``new``.

    The lines that occur once in each, in an order common to both, are anchors ("patience" difference, B. Cohen); only
    the short stretches between them are compared line by line. Programs have a fresh variable on nearly every line, so
    that nearly every unchanged line is an anchor.
    """
    start_old = start_new = 0
    for end_old, end_new in [*_anchors(old, new), (len(old), len(new))]:
        yield from _stretch(old[start_old:end_old], new[start_new:end_new])
        if end_old < len(old):
            yield " ", old[end_old]
        start_old, start_new = end_old + 1, end_new + 1


def _anchors(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """The longest increasing run of positions of lines that are unique on both sides."""
    unique_new = _unique_positions(new)
    pairs = [(i, unique_new[line]) for line, i in _unique_positions(old).items() if line in unique_new]
    return _longest_increasing(pairs)


def _unique_positions(lines: Sequence[str]) -> dict[str, int]:
    positions: dict[str, int] = {}
    repeated = set()
    for i, line in enumerate(lines):
        if line in positions:
            repeated.add(line)
        positions[line] = i
    return {line: i for line, i in positions.items() if line not in repeated}


def _longest_increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """By patience sorting: the last pair of each pile, linked to the top of the pile before it."""
    tops: list[int] = []
    chains: list[Any] = []
    for pair in pairs:
        pile = bisect.bisect_left(tops, pair[1])
        chain = (pair, chains[pile - 1] if pile else None)
        if pile == len(tops):
            tops.append(pair[1])
            chains.append(chain)
        else:
            tops[pile], chains[pile] = pair[1], chain
    found = []
    link = chains[-1] if chains else None
    while link is not None:
        found.append(link[0])
        link = link[1]
    return found[::-1]


def _stretch(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str, str]]:
    if len(old) * len(new) > LONG_STRETCH:
        yield from (("-", line) for line in old)
        yield from (("+", line) for line in new)
        return
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from ((" ", line) for line in old[i1:i2])
        else:
            yield from (("-", line) for line in old[i1:i2])
            yield from (("+", line) for line in new[j1:j2])
