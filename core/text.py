"""Programs as text to read and to compare: the same for equal programs, in every process and with every JAX release.

    program(a:f32[2,3], b:f32[3]):
      const c:f32[3] = [1.0, 2.0, 3.0]
      d:f32[3] = jit[name=scale] b
        jaxpr(e:f32[3]):
          f:f32[3] = mul e 2.0:f32[]
          return f
      return a, d

Variables are named in order of definition, ``_`` when nothing reads them; ``~`` marks a weak type. Parameters that say
nothing (``None``, ``False``, unspecified shardings, functions) are left out: one that JAX adds changes no text.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from . import _compat
from .program import Program

MOST_ELEMENTS_SHOWN = 8
"""Constants with more elements than this are shown by their type alone."""

USUAL = {"is_stable": True, "unroll": 1}
"""Parameters that are shown when they have another value than this."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_BRACKETS = re.compile(r"([\[\]])")
_IDENTIFIER = re.compile(r"(?<![\w.])(?!(?:nan|inf|True|False)\b)([A-Za-z_]\w*)(:(?=\S))?")


def program_text(program: Program | jex_core.ClosedJaxpr) -> str:
    """The program as text. One that is lowered to StableHLO is printed as the module that it is."""
    if isinstance(program, Program):
        if program.exported is not None:
            return str(program.exported.mlir_module())
        program = program.jaxpr
    return canonical_text("\n".join(_Printer().body("program", program)))


def canonical_text(text: str) -> str:
    """A program's text with variables renamed in order of definition, and with uniform white space.

    Two texts of one program are equal afterwards, whatever their authors called the variables.
    """
    lines = [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]
    renaming = _Renaming()
    renamed = [renaming.line(line) for line in lines]
    return "\n".join(_indent(renaming.without_unused(line) for line in renamed))


class _Printer:
    """Prints one program; variables get names as they are met."""

    def __init__(self) -> None:
        self.names: dict[Any, str] = {}
        self.count = 0

    def body(self, label: str, body: Any) -> Iterator[str]:
        """The lines of a (closed) jaxpr."""
        jaxpr = body.jaxpr if isinstance(body, jex_core.ClosedJaxpr) else body
        consts = body.consts if isinstance(body, jex_core.ClosedJaxpr) else [None] * len(jaxpr.constvars)
        yield f"{label}({', '.join(map(self.define, jaxpr.invars))}):"
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            yield f"  const {self.define(var)}{_constant_text(const)}"
        for eqn in jaxpr.eqns:
            yield from self.equation(eqn)
        yield f"  return {', '.join(map(self.atom, jaxpr.outvars))}".rstrip()

    def equation(self, eqn: Any) -> Iterator[str]:
        """The lines of one equation, its bodies below it."""
        params = _parameters(eqn)
        bodies = [body for key in sorted(params) for body in _bodies(key, params[key])]
        shown = [
            f"{key}={_value_text(value)}"
            for key, value in sorted(params.items())
            if not any(_bodies(key, value)) and not _says_nothing(key, value)
        ]
        results = ", ".join(map(self.define, eqn.outvars))
        operation = eqn.primitive.name + (f"[{' '.join(shown)}]" if shown else "")
        operands = " ".join(map(self.atom, eqn.invars))
        yield f"  {results}{' = ' if results else ''}{operation} {operands}".rstrip()
        for label, body in bodies:
            yield from ("    " + line for line in self.body(label, body))

    def define(self, var: Any) -> str:
        """A variable's name, new, with its type."""
        weak = "~" if getattr(var.aval, "weak_type", False) else ""
        self.names[var] = _name(self.count)
        self.count += 1
        return f"{self.names[var]}:{weak}{var.aval.str_short(short_dtypes=True)}"

    def atom(self, atom: Any) -> str:
        """An operand: a name, or a literal with its type."""
        if isinstance(atom, jex_core.Literal):
            return f"{_array_text(atom.val, atom.aval)}:{atom.aval.str_short(short_dtypes=True)}"
        return self.names.get(atom, "?")


class _Renaming:
    """Gives names in order of definition, line by line; results that nothing reads are all called ``_``."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.count = 0
        self.used: set[str] = set()

    def line(self, line: str) -> str:
        """The line with the new names."""
        return _outside_brackets(line, self._rename)

    def _rename(self, match: re.Match[str]) -> str:
        name, colon = match.groups()
        if colon is None:
            self.used.add(self.names.get(name, name))
            return self.names.get(name, name)
        self.names[name] = _name(self.count)
        self.count += 1
        return self.names[name] + colon

    def without_unused(self, line: str) -> str:
        """A renamed line, once all lines are renamed."""
        if line.endswith(":") or line.startswith("const "):
            return line
        return _outside_brackets(line, lambda m: m[0] if m[2] is None or m[1] in self.used else "_" + m[2])


def _outside_brackets(line: str, replacement: Callable[[re.Match[str]], str]) -> str:
    """Replaces identifiers, but not in parameters and shapes, which hold no variables."""
    depth, parts = 0, []
    for part in _BRACKETS.split(line):
        depth += (part == "[") - (part == "]")
        parts.append(part if depth else _IDENTIFIER.sub(replacement, part))
    return "".join(parts)


def _indent(lines: Iterable[str]) -> Iterator[str]:
    """Indents by structure: a line that ends in a colon opens a body, ``return`` closes it."""
    open_at: list[int] = []
    for line in lines:
        opens = line.endswith(":")
        indent = (open_at[-1] + 2 if open_at else 0) + (2 if opens and open_at else 0)
        yield " " * indent + line
        if opens:
            open_at.append(indent)
        elif open_at and (line == "return" or line.startswith("return ")):
            open_at.pop()


def _name(number: int) -> str:
    """a, b, ..., z, a1, b1, ...: never the name of a primitive."""
    return chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")


def _bodies(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The jaxprs in a parameter, each with its label."""
    if isinstance(value, jex_core.Jaxpr | jex_core.ClosedJaxpr):
        yield key, value
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _bodies(f"{key}.{index}", item)


def _parameters(eqn: Any) -> dict[str, Any]:
    """The parameters of an equation as the oldest supported release of JAX calls them."""
    params = dict(eqn.params)
    if eqn.primitive.name == "scan":
        params = {key: value for key, value in params.items() if key not in ("ft_in", "ft_out")}
        params["num_consts"], params["num_carry"] = _compat.scan_sizes(eqn.params)
    elif eqn.primitive.name == "composite" and "call_jaxpr" in params:
        params["jaxpr"] = params.pop("call_jaxpr")
    return params


def _says_nothing(key: str, value: Any) -> bool:
    """Whether a parameter is at a value that every release may leave out."""
    if key in USUAL:
        return bool(value == USUAL[key])
    if isinstance(value, tuple | list):
        return all(_says_nothing("", item) for item in value)
    if value is None or value is False or _compat.is_unspecified_sharding(value):
        return True
    if isinstance(value, enum.Enum):
        return value.name == "AUTO"
    is_function = callable(value) and not isinstance(value, type)
    return is_function or hasattr(value, "call_wrapped") or getattr(value, "empty", None) is True


def _value_text(value: Any) -> str:
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return f"({','.join(map(_value_text, value))})"
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    return " ".join(_ADDRESS.sub("", str(value)).split())


def _constant_text(const: Any) -> str:
    if const is None or np.size(const) > MOST_ELEMENTS_SHOWN:
        return ""
    if jnp.issubdtype(const.dtype, jax.dtypes.extended):
        return f" = {np.asarray(jax.random.key_data(const)).tolist()}"
    return f" = {_array_text(const, const)}"


def _array_text(value: Any, aval: Any) -> str:
    array = np.asarray(value, aval.dtype)
    if array.ndim:
        return f"[{', '.join(_array_text(item, aval) for item in array)}]"
    return _float_text(array) if jnp.issubdtype(array.dtype, jnp.floating) else str(array[()])


def _float_text(number: np.ndarray[Any, Any]) -> str:
    """The shortest decimal form that gives the same number of its dtype; small float types print as they like."""
    for digits in range(1, 18):
        short = float(f"{float(number):.{digits}g}")
        with np.errstate(over="ignore"):  # the largest numbers, rounded up
            same = np.asarray(short).astype(number.dtype) == number
        if same:
            return repr(short)
    return repr(float(number))
