"""One call of a function as flat leaves: which are static, and what a compilation depends on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

import jax

from . import _compat

_NOT_POSITIONAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def flat_function(fn: Callable[..., Any], leaves: list[Any], tree: Any, dynamic: list[int]) -> Callable[..., Any]:
    """``fn`` as a function of the dynamic leaves alone."""
    fixed = [None if i in set(dynamic) else leaf for i, leaf in enumerate(leaves)]

    def flat_fn(*arrays: Any) -> Any:
        every = list(fixed)
        for i, array in zip(dynamic, arrays, strict=True):
            every[i] = array
        args, kwargs = jax.tree_util.tree_unflatten(tree, every)
        return fn(*args, **kwargs)

    return flat_fn


def type_of(array: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array, or of what JAX makes of a number."""
    aval = jax.typeof(array)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=getattr(aval, "weak_type", False))


def signature_key(leaves: Sequence[Any], tree: Any, static: Collection[int]) -> tuple[Any, ...]:
    """What a compilation depends on: types of the dynamic leaves, values of the static ones, the width of types."""
    types = tuple(leaf if i in static else _type(leaf) for i, leaf in enumerate(leaves))
    return tree, types, _compat.x64_enabled()


def _type(leaf: Any) -> tuple[Any, ...]:
    aval = leaf.aval if isinstance(leaf, jax.Array) else jax.typeof(leaf)
    return aval.shape, aval.dtype, getattr(aval, "weak_type", False)


def types_by_name(
    fn: Callable[..., Any], leaves: Sequence[Any], tree: Any, dynamic: Sequence[int]
) -> dict[str, Hashable]:
    """By the name of each argument, its type, or its static value as text."""
    args, kwargs = jax.tree_util.tree_unflatten(tree, list(range(len(leaves))))
    try:
        names = [name for name, p in inspect.signature(fn).parameters.items() if p.kind not in _NOT_POSITIONAL]
    except (TypeError, ValueError):  # a callable without a signature has no argument names
        names = []
    described: dict[str, Hashable] = {}
    named = {names[i] if i < len(names) else f"argument {i}": arg for i, arg in enumerate(args)} | kwargs
    for name, argument in named.items():
        for path, index in jax.tree_util.tree_flatten_with_path(argument)[0]:
            leaf = leaves[index]
            text = jax.typeof(leaf).str_short() if index in dynamic else repr(leaf)
            described[name + jax.tree_util.keystr(path)] = text
    return described


def static_leaves(fn: Callable[..., Any], args: Any, kwargs: Any, jax_options: dict[str, Any]) -> set[int]:
    """Positions, among the flat leaves of ``(args, kwargs)``, of those that ``jax.jit``'s options make static."""
    numbers_key, names_key = "static_argnums", "static_argnames"
    if numbers_key not in jax_options and names_key not in jax_options:
        return set()
    numbers = as_tuple(jax_options.get(numbers_key, ()))
    names = set(as_tuple(jax_options.get(names_key, ())))
    numbers = tuple(n % len(args) for n in numbers if -len(args) <= n < len(args))
    try:
        order = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):  # a callable without a signature has no argument names
        order = []
    names |= {order[n] for n in numbers if n < len(order)}
    chosen = {i for i in range(len(args)) if i in numbers or (i < len(order) and order[i] in names)}
    picked: set[int] = set()
    position = 0
    for i, arg in enumerate(args):
        count = len(jax.tree_util.tree_leaves(arg))
        picked |= set(range(position, position + count)) if i in chosen else set()
        position += count
    for name in sorted(kwargs):
        count = len(jax.tree_util.tree_leaves(kwargs[name]))
        picked |= set(range(position, position + count)) if name in names else set()
        position += count
    return picked


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Of an option that may be one number or name, or several."""
    return (value,) if isinstance(value, int | str) else tuple(value)
