"""Lowering forms: equivalent spellings, in plain JAX, of operations on which a backend is slow.

A `Form` belongs to one primitive. It says for which `Signature`s it applies and what it costs; a `FormTable` picks the
cheapest, by those static costs or by measured times. The primitive itself is the form named ``"direct"``.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend import core as jex_core

from .node import Node
from .pass_ import NUMERICS_ORDER, within
from .rewrite import Numerics

DIRECT = "direct"
"""Name of the form that is the primitive itself."""


class FormWarning(UserWarning):
    """A form misbehaved, or a file of measured times cannot be used; the default forms are used instead."""


@dataclasses.dataclass(frozen=True)
class Operand:
    """One operand of a signature.

    Attributes:
      shape: sizes; symbolic ones are `jax.export` dimension expressions.
      dtype: name of the element type.
      constant: whether its value is known when the program is compiled.
      weak_type: whether JAX may still promote it.
    """

    shape: tuple[Any, ...]
    dtype: str
    constant: bool = False
    weak_type: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.size * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        marks = (" const" if self.constant else "") + (" weak" if self.weak_type else "")
        return f"{self.dtype}[{','.join(map(str, self.shape))}]{marks}"


@dataclasses.dataclass(frozen=True)
class Signature:
    """What the choice of a form may depend on: a primitive, its operands' types and its parameters.

    Attributes:
      primitive: name of the primitive.
      operands: types of the operands.
      results: types of the results.
      parameters: the parameters as text, sorted by name; equality and `key` rest on them.
      params: the parameters themselves, as a form receives them.
    """

    primitive: str
    operands: tuple[Operand, ...]
    results: tuple[Operand, ...]
    parameters: tuple[tuple[str, str], ...]
    params: Mapping[str, Any] = dataclasses.field(compare=False, repr=False)

    @classmethod
    def of(
        cls,
        primitive: str,
        operands: Sequence[Any],
        results: Sequence[Any],
        params: Mapping[str, Any],
        constant: Any = (),
    ) -> Signature:
        """The signature of ``primitive`` applied to arrays or abstract values.

        Args:
          operands, results: things with ``shape`` and ``dtype``.
          params: parameters of the equation.
          constant: indices of the operands that are known at compile time.
        """
        return cls(
            primitive,
            tuple(_operand(aval, index in constant) for index, aval in enumerate(operands)),
            tuple(_operand(aval, False) for aval in results),
            tuple(sorted((name, _text(value)) for name, value in params.items())),
            params,
        )

    @classmethod
    def of_node(cls, node: Node) -> Signature:
        """The signature of a node of a graph."""
        constant = {index for index, value in enumerate(node.inputs) if value.is_const}
        avals = [value.aval for value in node.inputs]
        return cls.of(node.name, avals, [value.aval for value in node.outputs], node.params, constant)

    @functools.cached_property
    def key(self) -> str:
        """The signature as one line of text, the same in every process: the key of measured times."""
        parameters = ", ".join(f"{name}={value}" for name, value in self.parameters)
        return f"{self.primitive}({', '.join(map(str, self.operands))}) {{{parameters}}}"

    @property
    def constant_operands(self) -> tuple[int, ...]:
        """Indices of the operands whose values are known."""
        return tuple(index for index, operand in enumerate(self.operands) if operand.constant)

    @property
    def is_static(self) -> bool:
        """Whether every size is known."""
        return all(isinstance(d, int) for o in (*self.operands, *self.results) for d in o.shape)

    @property
    def is_empty(self) -> bool:
        """Whether an operand or a result has no elements."""
        return any(0 in o.shape for o in (*self.operands, *self.results))

    @property
    def bytes(self) -> int:
        """Bytes read and written when each operand and each result is touched once."""
        return sum(o.bytes for o in (*self.operands, *self.results))


def _operand(aval: Any, constant: bool) -> Operand:
    return Operand(tuple(aval.shape), str(aval.dtype), constant, bool(getattr(aval, "weak_type", False)))


def _text(value: Any) -> str:
    """A parameter as text that does not depend on the process."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, jex_core.Primitive):
        return str(value.name)
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    if isinstance(value, np.integer):
        return str(int(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return f"{type(value).__name__}({', '.join(f'{name}={_text(v)}' for name, v in fields)})"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_text, value))})"
    return " ".join(str(value).split())


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """An equivalent spelling of a primitive.

    Attributes:
      name: unique among the forms of its primitive, in kebab-case.
      primitive: name of the primitive.
      fn: ``fn(*operands, **params)`` in plain JAX; takes the parameters of the equation and returns what the primitive
        returns: an array, or a sequence of arrays.
      applies: None where the form may take the primitive's place, else a sentence that says why not. It is asked only
        about static signatures without empty operands.
      cost: estimated seconds on the reference machine of `passes.forms.costs`; comparable between forms only.
      numerics: ``"exact"`` where results agree bit for bit, ``"reassociating"`` where only float rounding differs.
    """

    name: str
    primitive: str
    fn: Callable[..., Any]
    applies: Callable[[Signature], str | None]
    cost: Callable[[Signature], float]
    numerics: Numerics = "reassociating"

    @property
    def where(self) -> str:
        """File and line of ``fn``."""
        code = getattr(inspect.unwrap(self.fn), "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "unknown"

    def __str__(self) -> str:
        return f"{self.primitive}/{self.name}"


def direct_form(primitive: jex_core.Primitive, cost: Callable[[Signature], float]) -> Form:
    """The form that is the primitive itself, with what it costs."""
    return Form(DIRECT, primitive.name, primitive.bind, lambda signature: None, cost, "exact")


@dataclasses.dataclass(frozen=True)
class Measured:
    """What measuring a candidate showed.

    Attributes:
      seconds: median time.
      gain: how many times faster than the plain operation it surely is, at least, as alternating runs showed.
      at_most: and at most.
      problem: why it must not be used, in a sentence; empty where nothing is wrong.
    """

    seconds: float = math.inf
    gain: float = 1.0
    at_most: float = 1.0
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The form picked for a signature.

    Attributes:
      form: its name; `DIRECT` means that the primitive stays.
      cost: its seconds, estimated or measured.
      direct_cost: seconds of the primitive itself.
      measured: whether the seconds were measured.
      declined: for every form that was not considered, the reason.
    """

    form: str
    cost: float
    direct_cost: float
    measured: bool = False
    declined: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def gain(self) -> float:
        """How many times faster than the primitive itself."""
        return 1.0 if self.form == DIRECT else self.direct_cost / self.cost if self.cost > 0 else math.inf


class FormTable:
    """Forms by primitive.

    Args:
      forms: any number of forms. Those named `DIRECT` hold the primitive itself and its cost; a primitive without one
        costs what reading its operands and writing its results takes.
    """

    MEMORY_BYTES_PER_SECOND = 10e9
    """Speed assumed for primitives that have no cost of their own."""

    def __init__(self, forms: Iterable[Form]) -> None:
        self._forms: dict[str, dict[str, Form]] = collections.defaultdict(dict)
        for form in forms:
            if form.name in self._forms[form.primitive]:
                raise ValueError(f"two forms are named {form}")
            self._forms[form.primitive][form.name] = form

    @property
    def primitives(self) -> list[str]:
        """The primitives that have forms, sorted."""
        return sorted(self._forms)

    def forms_of(self, primitive: str) -> list[Form]:
        """The forms of a primitive other than the direct one."""
        return [form for name, form in self._forms.get(primitive, {}).items() if name != DIRECT]

    def find(self, primitive: str, name: str) -> Form | None:
        """The form of that name, or None."""
        return self._forms.get(primitive, {}).get(name)

    def candidates(self, signature: Signature, numerics: Numerics = "lossy") -> tuple[list[Form], dict[str, str]]:
        """The forms that may take the primitive's place, and for each other one the reason why not."""
        found: list[Form] = []
        declined: dict[str, str] = {}
        for form in self.forms_of(signature.primitive):
            reason = _reason(form, signature, numerics)
            if reason is None:
                found.append(form)
            else:
                declined[form.name] = reason
        return found, declined

    def direct_cost(self, signature: Signature) -> float:
        """Estimated seconds of the primitive itself."""
        direct = self.find(signature.primitive, DIRECT)
        cost = _cost(direct, signature) if direct is not None else None
        return signature.bytes / self.MEMORY_BYTES_PER_SECOND if cost is None else cost

    def choose(
        self, signature: Signature, *, numerics: Numerics = "lossy", measured: Mapping[str, Measured] | None = None
    ) -> Choice:
        """Picks the cheapest form; the primitive itself on a tie.

        Args:
          numerics: the loosest change to results that is permitted.
          measured: what was measured, by form name. A form that is faster, beyond doubt, than what the costs pick takes
            its place.
        """
        if not signature.is_static:
            return Choice(DIRECT, 0.0, 0.0, declined=_all(self, signature, "its sizes are not known yet"))
        if signature.is_empty:
            return Choice(DIRECT, 0.0, 0.0, declined=_all(self, signature, "it has no elements"))
        found, declined = self.candidates(signature, numerics)
        if measured is not None:
            found = [form for form in found if not _has_problem(form, measured, declined)]
        costs = {DIRECT: self.direct_cost(signature)}
        for form in found:
            cost = _cost(form, signature)
            if cost is None:
                declined[form.name] = "its cost model failed"
            else:
                costs[form.name] = cost
        best = min(costs, key=costs.__getitem__)
        if measured is not None and DIRECT in measured:
            return _measured_choice(costs, best, measured, declined)
        return Choice(best, costs[best], costs[DIRECT], declined=declined)


def _has_problem(form: Form, measured: Mapping[str, Measured], declined: dict[str, str]) -> bool:
    problem = measured[form.name].problem if form.name in measured else ""
    if problem:
        declined[form.name] = problem
    return bool(problem)


def _measured_choice(
    costs: Mapping[str, float], default: str, measured: Mapping[str, Measured], declined: dict[str, str]
) -> Choice:
    """What is surely faster than the default, the pick of the costs; else the default."""
    known = {name: measured[name] for name in costs if name in measured}
    known[DIRECT] = Measured(measured[DIRECT].seconds, 1.0, 1.0)
    direct = known[DIRECT].seconds
    if default not in known:
        return Choice(default, costs[default], costs[DIRECT], declined=declined)
    faster = {name: one.seconds for name, one in known.items() if one.gain > known[default].at_most}
    for name in known.keys() - faster.keys() - {default, DIRECT}:
        declined[name] = f"it is not surely faster: {direct / known[name].seconds:.2f}x when measured"
    best = min(faster, key=faster.__getitem__, default=default)
    if best == default and best != DIRECT and known[best].gain <= 1.0:
        return Choice(best, costs[best], costs[DIRECT], declined=declined)
    return Choice(best, known[best].seconds, direct, measured=True, declined=declined)


def _reason(form: Form, signature: Signature, numerics: Numerics) -> str | None:
    if not within(form.numerics, numerics):
        return f"it is {form.numerics}, and only {numerics} changes are permitted"
    try:
        return form.applies(signature)
    except Exception as error:  # a stranger's predicate may raise anything; the primitive itself always works
        warnings.warn(f"form {form} ({form.where}) raised {type(error).__name__}: {error}", FormWarning, stacklevel=3)
        return "its predicate failed"


def _cost(form: Form, signature: Signature) -> float | None:
    try:
        return float(form.cost(signature))
    except Exception as error:  # as above, for a stranger's cost model
        warnings.warn(f"the cost of form {form} raised {type(error).__name__}: {error}", FormWarning, stacklevel=3)
        return None


def _all(table: FormTable, signature: Signature, reason: str) -> dict[str, str]:
    return {form.name: reason for form in table.forms_of(signature.primitive)}


def loosest(kinds: Iterable[Numerics]) -> Numerics:
    """The loosest of several kinds of change; ``"exact"`` for none."""
    return max(kinds, key=NUMERICS_ORDER.index, default="exact")
