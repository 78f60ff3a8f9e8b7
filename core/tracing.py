"""`trace`: from anything callable to a `Program`."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from . import _compat
from .errors import UsageError
from .program import Program


def trace(
    fn: Any,
    *example_args: Any,
    params: Any = None,
    dynamic: Any = None,
    donate_argnums: int | Sequence[int] = (),
    name: str | None = None,
) -> Program:
    """Traces ``fn`` at the shapes and dtypes of ``example_args``.

    Args:
      fn: a function, `functools.partial`, Flax linen ``(module, variables)``, Flax nnx module, Equinox module, or any
        other callable. Arrays that it closes over become constants of the program.
      *example_args: pytrees of arrays, Python scalars or `jax.ShapeDtypeStruct`, whose shapes may hold symbolic
        dimensions. Given arrays, the program keeps them as its example inputs.
      params: when given, ``fn(params, *example_args)`` is traced with ``params`` frozen into constants.
      dynamic: symbolic shapes, as `jax.export.symbolic_args_specs` takes them: one text such as ``"batch, ..."`` for
        every array, or a tuple with one entry (text, None, or a pytree of them) for each argument.
      donate_argnums: arguments whose buffers the compiled program may reuse.
      name: name of the program; by default that of the function or the module's class.

    Returns:
      A `Program` at the jaxpr level.

    Raises:
      UsageError: ``fn`` is not callable, or ``dynamic`` does not fit the arguments. What ``fn`` raises passes through.
    """
    name = name or _name_of(fn)
    function, argument_names = _as_function(fn, params)
    specs = example_args if dynamic is None else _symbolic_arguments(example_args, dynamic)
    flat, in_tree = jax.tree_util.tree_flatten(tuple(specs))
    closed, out_shape = jax.make_jaxpr(function, return_shape=True)(*specs)
    out_tree = jax.tree_util.tree_structure(out_shape)
    return Program(
        jaxpr=closed,
        in_tree=in_tree,
        out_tree=out_tree,
        input_names=_leaf_names(tuple(specs), argument_names),
        output_names=_output_names(out_shape),
        donated=_donated_leaves(specs, donate_argnums),
        name=name,
        examples=_examples(example_args, flat),
        x64=_compat.x64_enabled(),
    )


def _as_function(fn: Any, params: Any) -> tuple[Callable[..., Any], list[str]]:
    """A plain function of the example arguments, and the names of its parameters."""
    if _is_linen_pair(fn):
        module, variables = fn
        return functools.partial(module.apply, variables), _parameter_names(module.__call__)
    if _is_nnx_module(fn):
        return _nnx_function(fn), _parameter_names(fn.__call__)
    if not callable(fn):
        raise UsageError(
            f"cannot trace something of type {type(fn).__name__}: it is not callable",
            hint="give a function, a Flax nnx or Equinox module, or a Flax linen (module, variables) pair",
        )
    names = _parameter_names(fn)
    if params is not None:
        return functools.partial(fn, params), names[1:]
    return _called(fn), names


def _called(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A fresh wrapper: JAX keeps traces by function identity, and a model's state may have changed since."""

    def call(*args: Any) -> Any:
        return fn(*args)

    # What JAX raises names the function and its arguments: the user's.
    return functools.update_wrapper(call, fn, updated=()) if inspect.isfunction(fn) or inspect.ismethod(fn) else call


def _is_linen_pair(fn: Any) -> bool:
    linen = sys.modules.get("flax.linen")
    if linen is None or not isinstance(fn, tuple) or len(fn) != 2:
        return False
    return isinstance(fn[0], linen.Module)


def _is_nnx_module(fn: Any) -> bool:
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(fn, nnx.Module)


def _nnx_function(module: Any) -> Callable[..., Any]:
    """Calls a copy of the module, so that state it updates while being traced stays out of the original."""
    nnx = sys.modules["flax.nnx"]
    graph, state = nnx.split(module)

    def call(*args: Any) -> Any:
        return nnx.merge(graph, state, copy=True)(*args)

    return call


def _parameter_names(fn: Any) -> list[str]:
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # builtins and some C callables have no signature
        return []
    bound = set(fn.keywords) if isinstance(fn, functools.partial) else set()
    return [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in bound
    ]


def _name_of(fn: Any) -> str:
    if _is_linen_pair(fn):
        return type(fn[0]).__name__
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__name__", None) or type(fn).__name__


def _symbolic_arguments(args: Sequence[Any], dynamic: Any) -> tuple[Any, ...]:
    try:
        shapes = dynamic if isinstance(dynamic, str) else tuple(dynamic)
        specs = tuple(jax.export.symbolic_args_specs(tuple(args), shapes))
        for leaf, spec in zip(jax.tree_util.tree_leaves(tuple(args)), jax.tree_util.tree_leaves(specs), strict=True):
            _require_same_sizes(np.shape(leaf), spec.shape)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"dynamic={dynamic!r} does not fit the example arguments: {error}",
            hint='write one text per argument, for example dynamic=("batch, ...", None)',
        ) from error
    return specs


def _require_same_sizes(shape: tuple[Any, ...], spec: tuple[Any, ...]) -> None:
    """Known sizes must be those of the example; `jax.export.symbolic_args_specs` does not look."""
    fits = len(shape) == len(spec) and all(not isinstance(b, int) or a == b for a, b in zip(shape, spec, strict=True))
    if not fits:
        raise ValueError(f"it says {spec} where the example has the shape {shape}")


def _leaf_names(args: tuple[Any, ...], argument_names: list[str]) -> tuple[str, ...]:
    paths, _ = jax.tree_util.tree_flatten_with_path(args)
    names = []
    for (head, *rest), _leaf in paths:
        index = head.idx
        first = argument_names[index] if index < len(argument_names) else f"arg{index}"
        names.append(".".join([first, *(jax.tree_util.keystr((key,), simple=True) for key in rest)]))
    return _unique(names)


def _output_names(out_shape: Any) -> tuple[str, ...]:
    paths, _ = jax.tree_util.tree_flatten_with_path(out_shape)
    if len(paths) == 1 and not paths[0][0]:
        return ("output",)
    return _unique(["output." + jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths])


def _unique(names: list[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        unique.append(name if count == 0 else f"{name}#{count}")
    return tuple(unique)


def _donated_leaves(args: Sequence[Any], donate_argnums: int | Sequence[int]) -> tuple[bool, ...]:
    numbers = {donate_argnums} if isinstance(donate_argnums, int) else set(donate_argnums)
    if any(not -len(args) <= n < len(args) for n in numbers):
        raise UsageError(f"donate_argnums={donate_argnums!r} names an argument that is not there")
    numbers = {n % len(args) for n in numbers}
    return tuple(i in numbers for i, arg in enumerate(args) for _ in jax.tree_util.tree_leaves(arg))


def _examples(example_args: Sequence[Any], flat_specs: Sequence[Any]) -> tuple[Any, ...] | None:
    leaves = jax.tree_util.tree_leaves(tuple(example_args))
    if len(leaves) != len(flat_specs) or any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        return None
    if any(_compat.is_tracer(leaf) for leaf in leaves):
        return None
    return tuple(leaf if hasattr(leaf, "dtype") else np.asarray(leaf).item() for leaf in leaves)
