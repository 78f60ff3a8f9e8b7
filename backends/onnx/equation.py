"""Equations of a jaxpr as lowerings see them."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex_core

from .operand import is_key, stored_dtype


@dataclasses.dataclass(frozen=True)
class Equation:
    """An equation as a lowering sees it.

    Attributes:
      primitive: name of the primitive.
      params: its parameters.
      invars: its inputs, variables or literals.
      outvars: its outputs.
      avals: abstract values of the outputs.
      wanted: which outputs are used.
    """

    primitive: str
    params: Mapping[str, Any]
    invars: Sequence[Any]
    outvars: Sequence[Any]
    avals: Sequence[Any]
    wanted: Sequence[bool]

    @property
    def aval(self) -> Any:
        """Abstract value of the first output."""
        return self.avals[0]


def equation_view(eqn: Any, wanted: Sequence[bool]) -> Equation:
    """The view of a jaxpr equation that lowerings get."""
    return Equation(eqn.primitive.name, eqn.params, eqn.invars, eqn.outvars, [v.aval for v in eqn.outvars], wanted)


def is_literal(atom: Any) -> bool:
    """Whether an atom of a jaxpr is a literal."""
    return isinstance(atom, jex_core.Literal)


def as_array(value: Any) -> Any:
    """A constant of a jaxpr as a numpy array (keys stay JAX arrays)."""
    return value if hasattr(value, "dtype") and is_key(value.dtype) else np.asarray(value)


def x64_for(dtypes: Sequence[Any]) -> Any:
    """The context in which JAX keeps 64-bit types when any of the dtypes has 64 bits."""
    if any(not is_key(d) and stored_dtype(d).itemsize == 8 for d in dtypes):
        return jax.enable_x64(True)
    return contextlib.nullcontext()


def scope_path(stack: str) -> str:
    """A name stack without the marks that transformations leave: ``jit(f)/jvp(Dense_0)`` is ``Dense_0``."""
    parts = []
    for part in stack.split("/"):
        while (match := re.fullmatch(r"(\w+)\((.*)\)", part)) is not None:
            part = "" if match[1] in ("jit", "pjit") else match[2]
        if part:
            parts.append(re.sub(r"[^\w.\-]", "_", part))
    return "/".join(parts)
