"""Inputs to verify programs on: the user's examples, and adversarial ones drawn from the types."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from .. import _compat
from ..program import Program

SYMBOLIC_SIZE = 3
"""Size given to symbolic dimensions when a program has no example inputs."""

SPECIAL_FLOATS = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan)
"""Where identities that hold for ordinary numbers break."""

SPECIAL_ROUNDS = len(SPECIAL_FLOATS) + 1
"""With so many sets of inputs, every element of every input takes every special value, and an ordinary one, once."""

FEW_ELEMENTS = 4096
"""Programs with more elements in their inputs get one set of special values: each then stands somewhere anyway."""


def verification_inputs(program: Program, *, special: bool, seed: int = 0) -> list[tuple[str, list[Any]]]:
    """Named sets of flat inputs.

    Args:
      program: whose inputs are wanted.
      special: include infinities, NaN and integer extremes; for changes that must be exact.
      seed: of the random numbers.

    Returns:
      ``(name, flat inputs)``: the examples if there are any, else random numbers; zeros; and, for programs whose loops
      are sure to end on any input, numbers of many magnitudes and, with ``special``, special values.
    """
    rng = np.random.default_rng(seed)
    sets = []
    if program.examples is not None:
        sets.append(("example inputs", list(program.examples)))
    else:
        sets.append(("random inputs", [_draw(a, s, rng, "normal") for a, s in _shapes(program)]))
    if has_unbounded_loop(program.jaxpr.jaxpr):
        return sets
    for kind in ("zeros", "magnitudes"):
        sets.append((f"{kind} inputs", [_draw(a, s, rng, kind) for a, s in _shapes(program)]))
    if special:
        few = sum(math.prod(s) for _, s in _shapes(program)) <= FEW_ELEMENTS
        columns = [_special_rounds(a, s, rng, SPECIAL_ROUNDS if few else 1) for a, s in _shapes(program)]
        for index, flat in enumerate(zip(*columns, strict=True)):
            sets.append((f"special inputs {index}", list(flat)))
    return sets


def random_inputs(program: Program, seed: int = 0) -> list[Any]:
    """The example inputs, or normal random numbers of the right types."""
    return verification_inputs(program, special=False, seed=seed)[0][1]


def has_unbounded_loop(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a loop's length depends on data: on strange inputs it might not end."""
    return any(
        eqn.primitive.name == "while" or any(map(has_unbounded_loop, jex_core.jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


def _shapes(program: Program) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """Each input's type with a concrete shape; symbolic dimensions take the examples' sizes or a fixed one."""
    examples = program.examples or [None] * len(program.in_avals)
    for aval, example in zip(program.in_avals, examples, strict=True):
        shape = aval.shape if example is None else np.shape(example)
        yield aval, tuple(_compat.evaluate_dimension(d, SYMBOLIC_SIZE) for d in shape)


def _draw(aval: Any, shape: tuple[int, ...], rng: np.random.Generator, kind: str) -> Any:
    dtype = aval.dtype
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        keys = jax.random.split(jax.random.key(int(rng.integers(2**31)), impl=_key_impl(dtype)), shape or 1)
        return keys.reshape(shape)
    if kind == "zeros":
        return np.zeros(shape, dtype)
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    if jnp.issubdtype(dtype, jnp.integer):
        return rng.integers(0, min(int(jnp.iinfo(dtype).max), 8), shape).astype(dtype)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return (_floats(shape, rng, kind) + 1j * _floats(shape, rng, kind)).astype(dtype)
    with np.errstate(over="ignore"):
        return _floats(shape, rng, kind).astype(dtype)


def _key_impl(dtype: Any) -> str:
    return str(dtype._impl.name)


def _floats(shape: tuple[int, ...], rng: np.random.Generator, kind: str) -> np.ndarray[Any, Any]:
    values = rng.standard_normal(shape)
    return np.asarray(values * 10.0 ** rng.integers(-3, 3, shape) if kind == "magnitudes" else values)


def _special_rounds(aval: Any, shape: tuple[int, ...], rng: np.random.Generator, count: int) -> list[Any]:
    """One array per round: each element goes through the special values of its type in an order of its own."""
    pool = _special_values(aval.dtype)
    if pool is None:
        return [_draw(aval, shape, rng, "normal") for _ in range(count)]
    if count == 1:
        orders = rng.integers(0, SPECIAL_ROUNDS, (*shape, 1), dtype=np.int8)
    else:
        orders = rng.permuted(np.tile(np.arange(SPECIAL_ROUNDS), (*shape, 1)), axis=-1)
    rounds = []
    for index in range(count):
        order = orders[..., index]
        ordinary = np.asarray(_draw(aval, shape, rng, "normal"))
        with np.errstate(over="ignore"):
            special = pool.astype(aval.dtype)[np.minimum(order, len(pool) - 1)]
        rounds.append(np.where(order < len(pool), special, ordinary))
    return rounds


def _special_values(dtype: Any) -> np.ndarray[Any, Any] | None:
    """At most one fewer than there are rounds; None for types that have none."""
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        values = [info.min, info.max, info.max // 2, 0, 1, 2, *([-1] if info.min else [])]
        return np.array([int(v) for v in values], dtype=np.int64 if info.min else np.uint64).astype(dtype)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.array(SPECIAL_FLOATS) * (1 + 1j)
    return np.array(SPECIAL_FLOATS) if jnp.issubdtype(dtype, jnp.floating) else None
