"""Permutations of axes: ``transpose(x, p)`` puts axis ``p[j]`` of ``x`` at place ``j``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Permutation = tuple[int, ...]


def inverse(p: Sequence[int]) -> Permutation:
    """The permutation that undoes ``p``."""
    result = [0] * len(p)
    for place, axis in enumerate(p):
        result[axis] = place
    return tuple(result)


def compose(outer: Sequence[int], inner: Sequence[int]) -> Permutation:
    """``transpose(transpose(x, inner), outer)`` as one permutation."""
    return tuple(inner[axis] for axis in outer)


def is_identity(p: Sequence[int]) -> bool:
    """Whether ``p`` leaves every axis where it is."""
    return all(place == axis for place, axis in enumerate(p))


def permuted(items: Sequence[Any], p: Sequence[int]) -> tuple[Any, ...]:
    """``items``, one per axis of ``x``, in the order of the axes of ``transpose(x, p)``."""
    return tuple(items[axis] for axis in p)


def without(p: Sequence[int], removed: Iterable[int]) -> Permutation:
    """What is left of ``p`` when the places ``removed`` of its result go away, with axes numbered anew."""
    gone = set(removed)
    kept = [axis for place, axis in enumerate(p) if place not in gone]
    order = sorted(kept)
    return tuple(order.index(axis) for axis in kept)


def moves_only_unit_axes(shape: Sequence[Any], p: Sequence[int]) -> bool:
    """Whether transposing an array of ``shape`` by ``p`` keeps the order of its elements in memory."""
    kept = [axis for axis in p if shape[axis] != 1]
    return kept == sorted(kept)


def channels_last(rank: int) -> Permutation:
    """From (N, C, spatial...) to (N, spatial..., C)."""
    return (0, *range(2, rank), 1)


def channels_first(rank: int) -> Permutation:
    """From (N, spatial..., C) to (N, C, spatial...)."""
    return (0, rank - 1, *range(1, rank - 1))
