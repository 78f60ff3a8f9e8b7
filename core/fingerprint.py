"""A stable hash of a jaxpr: equal programs hash alike in every process."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
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


def hash_structure(closed: jex_core.ClosedJaxpr, digest: Any) -> None:
    """Feeds equations, parameters and types of ``closed`` to ``digest``, but not the arrays that it closes over."""
    _hash_open(closed.jaxpr, digest)


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
    elif isinstance(value, jax.Array | np.ndarray | np.generic) or hasattr(value, "__array__"):
        _hash_array(value, digest)
    elif isinstance(value, types.FunctionType):
        _hash_function(value, digest)
    elif isinstance(value, functools.partial):
        _hash_value(("partial", value.func, value.args, sorted(value.keywords.items())), digest)
    elif callable(value) and hasattr(value, "__qualname__"):
        digest.update(f"{value.__module__}.{value.__qualname__}".encode())
    elif dataclasses.is_dataclass(value):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        _hash_value((type(value).__qualname__, *fields), digest)
    else:
        digest.update(_ADDRESS.sub("", repr(value)).encode())


def _hash_function(function: types.FunctionType, digest: Any) -> None:
    """Name, code and what it closes over: callbacks of JAX differ in nothing else."""
    digest.update(f"{function.__module__}.{function.__qualname__}".encode())
    _hash_code(function.__code__, digest)
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not yet assigned
            continue
        if content is not function:
            _hash_value(content, digest)


def _hash_code(code: types.CodeType, digest: Any) -> None:
    digest.update(code.co_code)
    digest.update(repr(code.co_names).encode())
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            _hash_code(const, digest)
        else:
            digest.update(repr(sorted(const, key=repr) if isinstance(const, frozenset) else const).encode())


def _hash_array(value: Any, digest: Any) -> None:
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):
        digest.update(str(value.dtype).encode())
        value = jax.random.key_data(value)
    array = np.asarray(value)
    digest.update(f"{array.dtype}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
