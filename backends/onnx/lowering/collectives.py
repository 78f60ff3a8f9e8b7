"""Sums and extrema over named axes: those of `jax.vmap` are axes of the array; those of devices have no ONNX form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from ..registry import Refusal, decomposes, refuses

_REASON = "it communicates between devices, and ONNX has one"


def _over(reduce: Callable[..., Any], arrays: Sequence[Any], axes: Sequence[Any], groups: Any) -> list[Any]:
    """The reduction of every array over axes that `jax.vmap` has made positions."""
    if groups is not None or not all(isinstance(axis, int) for axis in axes):
        raise Refusal(_REASON)
    return [reduce(a, axis=tuple(axes)).astype(a.dtype) for a in arrays]


@decomposes("psum", note="over axes of vmap")
def psum(*arrays: Any, axes: Sequence[Any], axis_index_groups: Any = None, **_: Any) -> list[Any]:
    return _over(jnp.sum, arrays, axes, axis_index_groups)


@decomposes("pmax", note="over axes of vmap")
def pmax(*arrays: Any, axes: Sequence[Any], axis_index_groups: Any = None, **_: Any) -> list[Any]:
    return _over(jnp.max, arrays, axes, axis_index_groups)


@decomposes("pmin", note="over axes of vmap")
def pmin(*arrays: Any, axes: Sequence[Any], axis_index_groups: Any = None, **_: Any) -> list[Any]:
    return _over(jnp.min, arrays, axes, axis_index_groups)


refuses(
    "ppermute",
    "all_gather",
    "all_to_all",
    "axis_index",
    "psum_scatter",
    "reduce_scatter",
    "ragged_all_to_all",
    "pbroadcast",
    "shard_map",
    reason=_REASON,
)
