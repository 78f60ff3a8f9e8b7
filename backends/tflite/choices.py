"""Inputs that choose branches: a file is run through all branches, also those that the examples do not take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from ...core.program import Program

MOST_CHOICES = 8
"""Of so many values each is tried; the first of more."""

_COMPARISONS = frozenset({"le", "lt", "ge", "gt", "eq", "ne"})
_STEPS = _COMPARISONS | {"convert_element_type", "clamp", "max", "min", "not", "reshape", "squeeze", "copy"}
"""Operations through which a number reaches the choice that is made by it."""


def other_choices(program: Program, examples: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """The examples with other values in the place of inputs that do nothing but choose branches.

    Args:
      program: after the passes.
      examples: its flat inputs.

    Returns:
      A name and flat inputs for each value; nothing where no input chooses.
    """
    body = program.jaxpr.jaxpr
    readers: dict[Any, list[tuple[Any, int]]] = {}
    for eqn in body.eqns:
        for position, atom in enumerate(eqn.invars):
            if not isinstance(atom, jex_core.Literal):
                readers.setdefault(atom, []).append((eqn, position))
    found: dict[int, set[int]] = {}
    for number, var in enumerate(body.invars):
        is_word = jnp.issubdtype(var.aval.dtype, jnp.integer) or var.aval.dtype == np.bool_
        values = _chosen_by(var, readers, set(body.outvars)) if is_word and var.aval.shape == () else None
        if values is not None:
            found[number] = {0, 1} if var.aval.dtype == np.bool_ else values
    every = sorted(set().union(*found.values()))[:MOST_CHOICES]
    return [(f"choice {value}", _with(program, examples, found, value)) for value in every]


def _chosen_by(var: Any, readers: dict[Any, list[tuple[Any, int]]], outputs: set[Any]) -> set[int] | None:
    """Numbers about which choices are made by a variable; None where anything else is done with it."""
    if var in outputs or var not in readers:
        return None
    values: set[int] = set()
    for eqn, position in readers[var]:
        if eqn.primitive.name == "cond" and position == 0:
            values |= set(range(len(eqn.params["branches"])))
            continue
        if eqn.primitive.name not in _STEPS:
            return None
        inner = _chosen_by(eqn.outvars[0], readers, outputs)
        if inner is None:
            return None
        bounds = [int(atom.val) for atom in eqn.invars if isinstance(atom, jex_core.Literal)]
        is_comparison = eqn.primitive.name in _COMPARISONS
        values |= {value for bound in bounds for value in (bound, bound + 1)} if is_comparison else inner
    return values


def _with(program: Program, examples: Sequence[Any], found: dict[int, set[int]], value: int) -> list[Any]:
    return [
        np.asarray(value, program.in_avals[number].dtype) if number in found else example
        for number, example in enumerate(examples)
    ]
