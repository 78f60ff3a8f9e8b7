"""Is a program independent along the batch: does each row of its results depend on the same row of its inputs alone?

Only then may a batch be padded, cut, or run in parts. The answer comes from the equations, without running them: a
value whose shape holds the size of the batch has the rows along one axis, and each primitive must keep them apart. What
is not known to do so is refused, with a reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend import core as jex_core

from . import _compat
from .batching_rules import BATCH_SIZE, COUNT, RULES, Dependent, Rows, Where, axes_with_rows, common, elementwise, fits
from .errors import UsageError
from .primitives import CALLS, ELEMENTWISE
from .program import Program
from .specialize import specialize, symbols

OTHER_SIZES = (10_007, 20_011, 30_011, 40_009, 50_021, 60_013)
"""Primes, so that a size tells which symbols are in it."""


@dataclasses.dataclass(frozen=True)
class BatchAxes:
    """The axis of the batch in each input and output; None where one has no batch."""

    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]


def batch_symbol(program: Program, name: str | None = None) -> str:
    """The symbolic dimension that is the batch: the one named, the only one, or the one called ``batch`` or ``b``.

    Raises:
      UsageError: there is none, or it is not clear which.
    """
    known = symbols(program)
    if name is not None:
        if name not in known:
            raise UsageError(
                f"{program.name} has no symbolic dimension {name!r}", hint=f"it has: {', '.join(known) or 'none'}"
            )
        return name
    if not known:
        raise UsageError(
            f"the batch of {program.name} has a fixed size",
            hint='give it a name when you trace or compile: dynamic="batch, ..."',
        )
    if len(known) == 1:
        return str(known[0])
    for usual in ("batch", "b"):
        if usual in known:
            return usual
    raise UsageError(f"which dimension of {program.name} is the batch?", hint=f"batch= one of: {', '.join(known)}")


def batch_axes(program: Program, symbol: str) -> BatchAxes:
    """Where the batch is in inputs and outputs.

    Args:
      program: at the jaxpr level, with symbolic dimensions.
      symbol: the dimension that is the batch.

    Raises:
      UsageError: rows depend on each other or on their number, or may do; the message says where and why.
    """
    _require_plain_sizes(program.jaxpr.jaxpr, symbol, program.name)
    others = [name for name in symbols(program) if name != symbol]
    sizes = {symbol: BATCH_SIZE} | dict(zip(others, OTHER_SIZES, strict=False))
    if len(sizes) <= len(others):
        raise UsageError(f"{program.name} has more than {len(OTHER_SIZES) + 1} symbolic dimensions")
    jaxpr = specialize(program, sizes).jaxpr.jaxpr
    if jaxpr.effects:
        raise _refusal(program.name, "it has effects, such as printing, which would happen for padding, too")
    where = _Walk(program.name)
    inputs = [
        _interface(var.aval, f"input {name!r}", program.name) for var, name in _named(jaxpr.invars, program, True)
    ]
    found = where.body(jaxpr, inputs)
    outputs = []
    for (var, name), rows in zip(_named(jaxpr.outvars, program, False), found, strict=True):
        expected = _interface(var.aval, f"output {name!r}", program.name)
        if rows == COUNT:
            raise _refusal(program.name, f"output {name!r} depends on the number of rows")
        if expected is not None and (rows is None or not fits(rows, expected)):
            raise _refusal(program.name, f"output {name!r} holds the rows in another order than the inputs")
        outputs.append(expected)
    return BatchAxes(tuple(_axis(rows) for rows in inputs), tuple(_axis(rows) for rows in outputs))


def _named(variables: Sequence[Any], program: Program, inputs: bool) -> list[tuple[Any, str]]:
    return list(zip(variables, program.input_names if inputs else program.output_names, strict=True))


def _axis(rows: Where) -> int | None:
    return None if rows is None else rows.axis


def _interface(aval: Any, what: str, name: str) -> Where:
    """The rows of an input or output, which must have an axis of their own."""
    axes = axes_with_rows(aval)
    if not axes:
        return None
    if len(axes) > 1 or aval.shape[axes[0]] != BATCH_SIZE:
        raise _refusal(name, f"{what} has no axis that is just the batch")
    return Rows(axes[0])


def _refusal(name: str, reason: str, eqn: Any = None) -> UsageError:
    where = None if eqn is None else _compat.user_location(eqn.source_info)
    return UsageError(
        f"the rows of a batch of {name} cannot be computed apart: {reason}",
        where=where,
        hint="leave out buckets=; each size of batch is then compiled by itself",
    )


def _require_plain_sizes(jaxpr: jex_core.Jaxpr, symbol: str, name: str) -> None:
    """Every size that depends on the batch is a multiple of it."""
    for eqn in jaxpr.eqns:
        sizes = [size for var in (*eqn.invars, *eqn.outvars) for size in getattr(var.aval, "shape", ())]
        if eqn.primitive.name == "dim_as_value":
            sizes.append(eqn.params["dim"])
        for size in sizes:
            if symbol in _compat.dimension_symbols(size) and not _is_multiple(size, symbol):
                raise _refusal(name, f"a size is {size}, which is no multiple of {symbol!r}", eqn)
        for body in jex_core.jaxprs_in_params(eqn.params):
            _require_plain_sizes(body, symbol, name)


def _is_multiple(size: Any, symbol: str) -> bool:
    others = dict.fromkeys(_compat.dimension_symbols(size), 7)
    values = [_compat.evaluate_dimension(size, others | {symbol: count}) for count in (1, 2, 5, 8)]
    return values == [values[0] * count for count in (1, 2, 5, 8)]


# -- the walk over the equations ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Walk:
    """Follows the rows through equations.

    Attributes:
      name: of the program, for messages.
    """

    name: str

    def body(self, jaxpr: jex_core.Jaxpr, inputs: Sequence[Where]) -> list[Where]:
        """Where the rows are in the results of a jaxpr, given where they are in its inputs."""
        known: dict[Any, Where] = dict(zip(jaxpr.invars, inputs, strict=True))
        for eqn in jaxpr.eqns:
            results = self._equation(eqn, [_known(atom, known) for atom in eqn.invars])
            known.update(zip(eqn.outvars, results, strict=True))
        return [_known(atom, known) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, operands: list[Where]) -> list[Where]:
        name = eqn.primitive.name
        expected = [axes_with_rows(var.aval) for var in eqn.outvars]
        if all(rows is None for rows in operands) and not any(expected) and name not in _LOOPS:
            return [None] * len(eqn.outvars)
        if all(rows in (None, COUNT) for rows in operands) and not any(expected) and name not in (*_LOOPS, *CALLS):
            return [COUNT] * len(eqn.outvars)
        try:
            if COUNT in operands and name not in CALLS:
                operands = _clamped(eqn, operands)
            if name in _LOOPS:
                results = _LOOPS[name](self, eqn, operands)
            elif name in RULES:
                results = RULES[name](eqn, operands)
            elif name in ELEMENTWISE:
                results = elementwise(eqn, operands)
            elif name in CALLS:
                results = self.body(_call_body(eqn), operands)
            else:
                raise Dependent("what it does to rows is not known")
            for axes, rows in zip(expected, results, strict=True):
                if axes != ([] if rows in (None, COUNT) else [rows.axis]):
                    raise Dependent("it relates rows to each other")
        except Dependent as reason:
            raise _refusal(self.name, f"{name}: {reason}", eqn) from None
        return results


def _known(atom: Any, known: Mapping[Any, Where]) -> Where:
    """What is known of a variable, or of a number: `specialize` puts the number of rows into the program as it is."""
    if not isinstance(atom, jex_core.Literal):
        return known.get(atom)
    value = np.asarray(atom.val)
    if value.dtype.kind not in "iu":
        return None
    numbers = value.astype(np.int64)
    return COUNT if np.any((numbers != 0) & (numbers % BATCH_SIZE == 0)) else None


def _clamped(eqn: Any, operands: list[Where]) -> list[Where]:
    """The operands without the indices of whole axes of rows: these are clamped to 0, whatever they are."""
    first = {"dynamic_slice": 1, "dynamic_update_slice": 2}.get(eqn.primitive.name)
    rows = operands[0]
    if first is not None and rows is not None and operands[first + rows.axis] == COUNT:
        operands = list(operands)
        operands[first + rows.axis] = None
    if COUNT in operands:
        raise Dependent("it computes with the number of rows")
    return operands


def _call_body(eqn: Any) -> jex_core.Jaxpr:
    for body in jex_core.jaxprs_in_params(eqn.params):
        if len(body.invars) == len(eqn.invars):
            return body
    raise Dependent("what it calls is not known")


# -- loops and branches ------------------------------------------------------------------------------------------------


def _settled(
    walk: _Walk, body: jex_core.Jaxpr, consts: Sequence[Where], carry: list[Where], extra: Sequence[Where]
) -> Any:
    """The carry of a loop once going round changes nothing, and the body's other results."""
    for _ in range(len(carry) + 2):
        results = walk.body(body, [*consts, *carry, *extra])
        after = [
            common([a, b]) if a is not None and b is not None else a or b for a, b in zip(carry, results, strict=False)
        ]
        if after == carry:
            return carry, results[len(carry) :]
        carry = after
    raise Dependent("its rows change their order from round to round")


def _scan(walk: _Walk, eqn: Any, operands: list[Where]) -> list[Where]:
    count, carried = _compat.scan_sizes(eqn.params)
    sliced: list[Where] = []
    for rows in operands[count + carried :]:
        if rows is not None and rows.axis == 0:
            raise Dependent("it goes through the rows one after the other")
        sliced.append(None if rows is None else dataclasses.replace(rows, axis=rows.axis - 1))
    (body,) = jex_core.jaxprs_in_params(eqn.params)
    carry, stacked = _settled(walk, body, operands[:count], operands[count : count + carried], sliced)
    return [*carry, *(None if rows is None else dataclasses.replace(rows, axis=rows.axis + 1) for rows in stacked)]


def _while(walk: _Walk, eqn: Any, operands: list[Where]) -> list[Where]:
    conditions, consts = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    body, condition = eqn.params["body_jaxpr"].jaxpr, eqn.params["cond_jaxpr"].jaxpr
    first = conditions + consts
    carry, _ = _settled(walk, body, operands[conditions:first], operands[first:], [])
    walk.body(condition, [*operands[:conditions], *carry])
    return list(carry)


def _cond(walk: _Walk, eqn: Any, operands: list[Where]) -> list[Where]:
    if operands[0] is not None:
        raise Dependent("it branches by what is in the rows")
    results = [walk.body(branch.jaxpr, operands[1:]) for branch in eqn.params["branches"]]
    return [common(one) for one in zip(*results, strict=True)]


_LOOPS: Mapping[str, Callable[[_Walk, Any, list[Where]], list[Where]]] = {"scan": _scan, "while": _while, "cond": _cond}
