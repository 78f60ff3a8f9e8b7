"""Random keys as their words, and counter-based random numbers as integer arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import random as jex_random

from .carriers import key_shape, kind_of
from .real import bind
from .retype import Retyping, Site

Array = jax.Array

# fmt: off
_MOVES = frozenset({
    "transpose", "reshape", "slice", "concatenate", "select_n", "dynamic_slice", "dynamic_update_slice", "rev",
    "broadcast_in_dim", "squeeze", "expand_dims", "copy", "copy_p", "gather", "optimization_barrier", "stack",
})
# fmt: on


def choose_key(site: Site) -> Retyping | str:
    """The form of an operation on random keys: those of threefry."""
    name = site.node.name
    keys = [a.dtype for a in (*site.operands, *site.results) if kind_of(a.dtype) == "key"]
    if key_shape(keys[0]) != (2,):
        return f"random numbers of {keys[0]} keys are not supported; use those of threefry"
    if name in _FORMS:
        return _FORMS[name]
    if name in _MOVES:
        return Retyping(_move)
    return f"{name} of random keys is not supported"


def _move(site: Site, *arrays: Array) -> Any:
    """Both words are moved alike."""
    halves = [
        bind(site, [x[..., k] if kind_of(a.dtype) == "key" else x for x, a in zip(arrays, site.operands, strict=True)])
        for k in range(2)
    ]
    return jnp.stack(halves, axis=-1)


def _passed(site: Site, words: Array) -> Array:
    return words


def _unstacked(site: Site, words: Array) -> list[Array]:
    axis = site.params["axis"]
    return [lax.index_in_dim(words, k, axis, keepdims=False) for k in range(words.shape[axis])]


# -- in terms of the words, which are carried in turn --------------------------------------------------------------


def _mapped(function: Callable[..., Array], keys: Array, *rest: Array) -> Array:
    """Applies a function of the words of one key to every key."""
    words = jax.random.key_data(keys)
    if not keys.shape:
        return function(words, *rest)
    many = math.prod(keys.shape)
    flat = [jnp.broadcast_to(r, keys.shape).reshape(many) for r in rest]
    results = jax.vmap(function)(words.reshape(many, words.shape[-1]), *flat)
    return results.reshape(*keys.shape, *results.shape[1:])


def _random_bits(site: Site, keys: Array) -> Array:
    shape, width = tuple(site.params["shape"]), site.params["bit_width"]
    return _mapped(lambda words: jex_random.threefry_prng_impl.random_bits(words, width, shape), keys)


def _random_split(site: Site, keys: Array) -> Array:
    shape = tuple(site.params["shape"])
    return _keys(site, _mapped(lambda words: jex_random.threefry_prng_impl.split(words, shape), keys))


def _random_fold_in(site: Site, keys: Array, data: Array) -> Array:
    return _keys(site, _mapped(jex_random.threefry_prng_impl.fold_in, keys, data))


def _random_seed(site: Site, seeds: Array) -> Array:
    seed = jex_random.threefry_prng_impl.seed
    words = seed(seeds) if not seeds.shape else jax.vmap(seed)(seeds.reshape(-1)).reshape(*seeds.shape, 2)
    return _keys(site, words)


def _keys(site: Site, words: Array) -> Array:
    keys: Array = jax.random.wrap_key_data(words, impl="threefry2x32")
    return keys


_FORMS: dict[str, Retyping] = {
    "random_wrap": Retyping(_passed),
    "random_unwrap": Retyping(_passed),
    "random_clone": Retyping(_passed),
    "unstack": Retyping(_unstacked),
    "random_bits": Retyping(_random_bits, opens=True),
    "random_split": Retyping(_random_split, opens=True),
    "random_fold_in": Retyping(_random_fold_in, opens=True),
    "random_seed": Retyping(_random_seed, opens=True),
}


# -- threefry ------------------------------------------------------------------------------------------------------

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
"""Rotation distances and key schedule of Threefry-2x32 (Salmon et al., SC 2011)."""


def threefry(site: Site, k0: Array, k1: Array, x0: Array, x1: Array) -> list[Array]:
    """Two words of key and two arrays of counters to two arrays of random words, in twenty rounds."""
    parity = np.int32(_PARITY)
    schedule = [k0, k1, lax.bitwise_xor(lax.bitwise_xor(k0, k1), lax.full_like(k0, parity))]
    x0, x1 = x0 + k0, x1 + k1
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = lax.bitwise_xor(_rotated(x1, distance), x0)
        x0 = x0 + schedule[(group + 1) % 3]
        x1 = x1 + schedule[(group + 2) % 3] + np.int32(group + 1)
    return [x0, x1]


def _rotated(x: Array, distance: int) -> Array:
    """The bits that leave on the left come back on the right; no bit is set twice, so that a sum joins them."""
    up = np.int64(1 << distance).astype(np.int32)
    return x * up + lax.shift_right_logical(x, lax.full_like(x, 32 - distance))


def counters(site: Site) -> list[Array]:
    """The high and low words of 0, 1, 2, ... in the shape asked for."""
    shape = tuple(site.params["shape"])
    many = math.prod(shape)
    if many >= 2**31:
        raise ValueError("more than 2**31 random numbers at once")
    return [jnp.zeros(shape, np.int32), lax.iota(np.int32, many).reshape(shape)]
