"""Constants that passes put into the bodies of loops and branches, brought to the top of the program.

JAX writes what a body closes over into the executable as it is. At the top, a large array is an argument instead, that
stays on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex_core

from . import _compat

LEAST_BYTES = 4096
"""Smaller arrays stay where they are: as literals they cost nothing."""


def nested_constants(jaxpr: jex_core.Jaxpr) -> Iterator[Any]:
    """The arrays that bodies inside ``jaxpr`` close over."""
    for eqn in jaxpr.eqns:
        for body in _bodies(eqn.params):
            if isinstance(body, jex_core.ClosedJaxpr):
                yield from body.consts
            yield from nested_constants(body.jaxpr if isinstance(body, jex_core.ClosedJaxpr) else body)


def hoist_constants(closed: jex_core.ClosedJaxpr) -> jex_core.ClosedJaxpr:
    """The same program with large constants of scans, whiles and conds at the top; itself where there are none."""
    if not any(_nbytes(const) >= LEAST_BYTES for const in nested_constants(closed.jaxpr)):
        return closed
    variables, arrays, eqns = _equations(closed.jaxpr)
    old = closed.jaxpr
    jaxpr = jex_core.Jaxpr(
        [*old.constvars, *variables], old.invars, old.outvars, eqns, old.effects, old.debug_info.with_unknown_names()
    )
    return jex_core.ClosedJaxpr(jaxpr, [*closed.consts, *arrays])


def _nbytes(const: Any) -> int:
    return int(getattr(const, "nbytes", 0))


def _bodies(params: Any) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, jex_core.ClosedJaxpr | jex_core.Jaxpr):
                yield item


def _equations(jaxpr: jex_core.Jaxpr) -> tuple[list[Any], list[Any], list[Any]]:
    """New variables and the arrays that they stand for, and the equations that read them."""
    variables: list[Any] = []
    arrays: list[Any] = []
    eqns: list[Any] = []

    def variable(array: Any) -> Any:
        for known, same in zip(variables, arrays, strict=True):
            if same is array:
                return known
        aval = _aval_of(array)
        variables.append(jex_core.Var(aval))
        arrays.append(array)
        return variables[-1]

    for eqn in jaxpr.eqns:
        hoist = _HOISTS.get(eqn.primitive.name)
        eqns.append(eqn if hoist is None else hoist(eqn, variable))
    return variables, arrays, eqns


def _aval_of(array: Any) -> Any:
    return jax.core.ShapedArray(np.shape(array), array.dtype, weak_type=bool(getattr(array, "weak_type", False)))


def _opened(closed: jex_core.ClosedJaxpr) -> tuple[jex_core.ClosedJaxpr, list[Any]]:
    """A body whose large constants are its first inputs, and these constants."""
    old = closed.jaxpr
    if _compat.has_reference_effects(old):  # such an effect counts inputs
        return closed, []
    variables, arrays, eqns = _equations(old)
    pairs = list(zip(old.constvars, closed.consts, strict=True))
    large = [(var, const) for var, const in pairs if _nbytes(const) >= LEAST_BYTES]
    small = [(var, const) for var, const in pairs if _nbytes(const) < LEAST_BYTES]
    inputs = [*(var for var, _ in large), *variables, *old.invars]
    jaxpr = jex_core.Jaxpr(
        [var for var, _ in small], inputs, old.outvars, eqns, old.effects, old.debug_info.with_unknown_names()
    )
    return jex_core.ClosedJaxpr(jaxpr, [const for _, const in small]), [*(const for _, const in large), *arrays]


def _scan(eqn: Any, variable: Any) -> Any:
    body, arrays = _opened(eqn.params["jaxpr"])
    if not arrays or not eqn.invars:  # JAX 0.12 describes operands by trees, and an empty one has no leaf to copy
        return eqn
    params = _compat.with_scan_constants(eqn.params, len(arrays)) | {"jaxpr": body}
    return eqn.replace(invars=[*map(variable, arrays), *eqn.invars], params=params)


def _while(eqn: Any, variable: Any) -> Any:
    params = eqn.params
    condition, of_condition = _opened(params["cond_jaxpr"])
    body, of_body = _opened(params["body_jaxpr"])
    first = params["cond_nconsts"]
    inputs = [*map(variable, of_condition), *eqn.invars[:first], *map(variable, of_body), *eqn.invars[first:]]
    changed = {
        "cond_jaxpr": condition,
        "body_jaxpr": body,
        "cond_nconsts": first + len(of_condition),
        "body_nconsts": params["body_nconsts"] + len(of_body),
    }
    return eqn.replace(invars=inputs, params=params | changed)


def _cond(eqn: Any, variable: Any) -> Any:
    opened = [_opened(branch) for branch in eqn.params["branches"]]
    branches = []
    for index, (branch, _) in enumerate(opened):
        before = _unused(array for _, arrays in opened[:index] for array in arrays)
        after = _unused(array for _, arrays in opened[index + 1 :] for array in arrays)
        count = len(opened[index][1])
        old = branch.jaxpr
        inputs = [*before, *old.invars[:count], *after, *old.invars[count:]]
        jaxpr = old.replace(invars=inputs, debug_info=old.debug_info.with_unknown_names())
        branches.append(jex_core.ClosedJaxpr(jaxpr, branch.consts))
    extra = [variable(array) for _, arrays in opened for array in arrays]
    index, *operands = eqn.invars
    return eqn.replace(invars=[index, *extra, *operands], params=eqn.params | {"branches": tuple(branches)})


def _unused(arrays: Iterator[Any] | Sequence[Any]) -> list[Any]:
    """Inputs of the other branches, which this one does not read."""
    return [jex_core.Var(_aval_of(array)) for array in arrays]


_HOISTS = {"scan": _scan, "while": _while, "cond": _cond}
