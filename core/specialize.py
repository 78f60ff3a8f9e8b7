"""Programs with symbolic dimensions at sizes of one's choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex_core

from . import _compat
from .program import Program


def symbols(program: Program) -> tuple[str, ...]:
    """The names of the symbolic dimensions of a program's inputs, sorted."""
    dims = [dim for aval in program.in_avals for dim in getattr(aval, "shape", ())]
    return tuple(sorted(frozenset().union(*map(_compat.dimension_symbols, dims))))


def sizes_of(program: Program, flat: Sequence[Any]) -> dict[str, int]:
    """The sizes that the symbols have on flat inputs, for those that are the whole of a dimension somewhere."""
    sizes = {}
    for aval, value in zip(program.in_avals, flat, strict=True):
        for dim, size in zip(aval.shape, np.shape(value), strict=True):
            for name in _compat.dimension_symbols(dim):
                if str(dim) == name:
                    sizes[name] = int(size)
    return sizes


def specialize(program: Program, sizes: Mapping[str, int]) -> Program:
    """The program with a size in the place of every symbol.

    Args:
      program: at the jaxpr level.
      sizes: one for each of its `symbols`.

    Returns:
      The same operations at the sizes' shapes, without example inputs; ``program`` itself when nothing is symbolic.

    Raises:
      ValueError: the sizes break a constraint of the symbols, such as a dimension that would be no integer.
    """
    if not program.is_symbolic:
        return program
    closed = program.jaxpr
    specialized = _Specializer(sizes).jaxpr(closed.jaxpr)
    return program.replace(
        jaxpr=jex_core.ClosedJaxpr(specialized, closed.consts), provenance={}, examples=None, traced=None
    )


class _Specializer:
    """Copies jaxprs, and whatever parameters hold, with sizes for symbols; each shared body once."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self._done: dict[int, tuple[Any, jex_core.Jaxpr]] = {}

    def jaxpr(self, old: jex_core.Jaxpr) -> jex_core.Jaxpr:
        if id(old) not in self._done:
            self._done[id(old)] = (old, self._copy(old))  # holding `old` keeps its id from being reused
        return self._done[id(old)][1]

    def _copy(self, old: jex_core.Jaxpr) -> jex_core.Jaxpr:
        atoms: dict[Any, Any] = {}

        def new(var: Any) -> Any:
            kind = type(var)
            atoms[var] = kind(self._aval(var.aval)) if isinstance(var, jex_core.Var) else var
            return atoms[var]

        constvars, invars = [new(v) for v in old.constvars], [new(v) for v in old.invars]
        eqns = []
        for eqn in old.eqns:
            if eqn.primitive.name == "dim_as_value":
                value = _compat.evaluate_dimension(eqn.params["dim"], self.sizes)
                aval: Any = eqn.outvars[0].aval
                atoms[eqn.outvars[0]] = jex_core.Literal(np.asarray(value, aval.dtype), aval)
                continue
            read = [a if isinstance(a, jex_core.Literal) else atoms[a] for a in eqn.invars]
            params = {name: self._value(value) for name, value in eqn.params.items()}
            eqns.append(eqn.replace(invars=read, outvars=[new(v) for v in eqn.outvars], params=params))
        outvars = [a if isinstance(a, jex_core.Literal) else atoms[a] for a in old.outvars]
        return jex_core.Jaxpr(constvars, invars, outvars, eqns, old.effects, old.debug_info.with_unknown_names())

    def _aval(self, aval: Any) -> Any:
        shape = getattr(aval, "shape", ())
        return aval if all(isinstance(d, int) for d in shape) else aval.update(shape=self._value(shape))

    def _value(self, value: Any) -> Any:
        """A parameter, or a part of one."""
        if jax.export.is_symbolic_dim(value):
            return _compat.evaluate_dimension(value, self.sizes)
        if isinstance(value, jex_core.Jaxpr):
            return self.jaxpr(value)
        if isinstance(value, jex_core.ClosedJaxpr):
            return jex_core.ClosedJaxpr(self.jaxpr(value.jaxpr), value.consts)
        if type(value) in (tuple, list):
            return type(value)(map(self._value, value))
        return value
