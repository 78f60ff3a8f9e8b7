"""Tracing of replacements: without the calls that `jax.numpy` makes around its functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core as jex_core

_OPENED = {"jit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr", "remat2": "jaxpr"}


def flat(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with every call in it opened: checks of rules look at what made a value, not into calls."""

    def run(*arrays: Any) -> list[Any]:
        closed = jax.make_jaxpr(function)(*arrays)
        return _evaluate(closed.jaxpr, closed.consts, arrays)

    return run


def _evaluate(jaxpr: jex_core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, jex_core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        body = eqn.params.get(_OPENED.get(eqn.primitive.name, ""))
        if body is not None:
            closed = body if isinstance(body, jex_core.ClosedJaxpr) else jex_core.ClosedJaxpr(body, ())
            results = _evaluate(closed.jaxpr, closed.consts, operands)
        else:
            bound = eqn.primitive.bind(*operands, **eqn.params)
            results = list(bound) if eqn.primitive.multiple_results else [bound]
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
