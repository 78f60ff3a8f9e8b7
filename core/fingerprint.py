"""A stable hash of a jaxpr: equal programs hash alike in every process."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def hash_jaxpr(closed: jex_core.ClosedJaxpr, digest: Any) -> None:
    """Feeds equations, parameters and constants of ``closed`` to ``digest`` (a `hashlib` object)."""
    _hash_open(closed.jaxpr, digest)
    for const in closed.consts:
        _hash_value(const, digest)


def _hash_open(jaxpr: jex_core.Jaxpr, digest: Any) -> None:
    numbers: dict[Any, int] = {}

    def number(var: Any) -> str:
        return f"v{numbers.setdefault(var, len(numbers))}:{var.aval.str_short()}"

    def operand(atom: Any) -> None:
        if isinstance(atom, jex_core.Literal):
            digest.update(atom.aval.str_short().encode())
            _hash_value(atom.val, digest)
        else:
            digest.update(number(atom).encode())

    digest.update(" ".join(map(number, [*jaxpr.constvars, *jaxpr.invars])).encode())
    for eqn in jaxpr.eqns:
        digest.update(f"\n{eqn.primitive.name} ".encode())
        for atom in eqn.invars:
            operand(atom)
        digest.update(" ".join(map(number, eqn.outvars)).encode())
        for key in sorted(eqn.params):
            digest.update(f" {key}=".encode())
            _hash_value(eqn.params[key], digest)
    digest.update(b"\nreturn ")
    for atom in jaxpr.outvars:
        operand(atom)


def _hash_value(value: Any, digest: Any) -> None:
    if isinstance(value, jex_core.ClosedJaxpr):
        hash_jaxpr(value, digest)
    elif isinstance(value, jex_core.Jaxpr):
        _hash_open(value, digest)
    elif isinstance(value, tuple | list):
        digest.update(f"{type(value).__name__}{len(value)}(".encode())
        for item in value:
            _hash_value(item, digest)
    elif hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, np.dtype):
        _hash_array(value, digest)
    elif callable(value) and hasattr(value, "__qualname__"):
        digest.update(f"{value.__module__}.{value.__qualname__}".encode())
    else:
        digest.update(_ADDRESS.sub("", repr(value)).encode())


def _hash_array(value: Any, digest: Any) -> None:
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):
        digest.update(str(value.dtype).encode())
        value = jax.random.key_data(value)
    array = np.asarray(value)
    digest.update(f"{array.dtype}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
