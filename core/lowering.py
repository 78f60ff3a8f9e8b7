"""From the jaxpr level to the StableHLO level, by `jax.export`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core as jex_core

from . import _compat
from .errors import CompileError
from .graph import Graph
from .program import Program
from .target import Target

CALLBACKS = frozenset({"debug_callback", "debug_print", "io_callback", "pure_callback"})
"""Primitives that call a function of the process that traced them."""


def lower_to_stablehlo(program: Program, target: Target | None = None) -> Program:
    """The program at the StableHLO level; its constants become leading inputs, so that they stay out of the module."""
    return program.replace(exported=export(program, platform_of(target)))


def platform_of(target: Target | None) -> str:
    """The platform name that `jax.export` wants: that of the target when it is one of XLA's, else ``cpu``."""
    return target.platform if target is not None and target.platform in ("cpu", "cuda", "rocm", "tpu") else "cpu"


def export(program: Program, platform: str, *, constants: str = "inputs") -> Any:
    """Lowers with `jax.export`.

    Args:
      program: at the jaxpr level.
      platform: ``cpu``, ``cuda``, ``rocm`` or ``tpu``.
      constants: ``"inputs"`` makes them leading inputs, ``"embedded"`` puts them into the module.

    Returns:
      A `jax.export.Exported` of the flat function.
    """
    program = open_composites(program) if program.is_symbolic else program
    specs = program.input_specs()
    with jax.enable_x64(program.x64):
        if constants == "embedded":
            function, arguments = program.flat_function, specs
        else:
            count = len(program.jaxpr.consts)
            evaluate = program.function_of_constants
            arguments = [*map(_spec_of, program.jaxpr.consts), *specs]

            def function(*flat: Any) -> list[Any]:
                return evaluate(flat[:count], *flat[count:])

        return _exported(program, _named(function, program.name), platform, arguments)


def export_with_trees(program: Program, platform: str) -> Any:
    """As `export`, on the program's own argument and result structures, with the constants embedded.

    Where the structures hold a user's own pytree classes, which `jax.export` cannot write, the flat function is
    exported.
    """
    program = open_composites(program) if program.is_symbolic else program
    flat_function = program.flat_function
    arguments = jax.tree_util.tree_unflatten(program.in_tree, program.input_specs())

    def call(*args: Any) -> Any:
        return jax.tree_util.tree_unflatten(program.out_tree, flat_function(*jax.tree_util.tree_leaves(args)))

    call.__name__ = _module_name(program.name)
    with jax.enable_x64(program.x64):
        exported = _exported(program, call, platform, arguments)
    try:
        exported.serialize()
    except ValueError:
        return export(program, platform, constants="embedded")
    return exported


def _exported(program: Program, function: Any, platform: str, arguments: Sequence[Any]) -> Any:
    """What `jax.export` makes of a function; its refusals become a `CompileError`."""
    try:
        return jax.export.export(jax.jit(function), platforms=[platform])(*arguments)
    except (ValueError, NotImplementedError, TypeError) as error:
        callback = _callback(program.jaxpr.jaxpr)
        if callback is not None:
            raise CompileError(
                f"{program.name} calls back into Python ({callback.primitive.name}), which a portable program cannot",
                where=_compat.user_location(callback.source_info),
                hint="leave out the callback, or what wants StableHLO: -o, --emit=stablehlo, the pass mlir",
            ) from error
        raise CompileError(f"{program.name} cannot be lowered to StableHLO for {platform}: {error}") from error


def _callback(jaxpr: jex_core.Jaxpr) -> Any:
    """The first equation that calls a Python function when it runs, such as that of `jax.debug.print`; or None."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in CALLBACKS:
            return eqn
        inner = (_callback(body) for body in jex_core.jaxprs_in_params(eqn.params))
        if (found := next((one for one in inner if one is not None), None)) is not None:
            return found
    return None


def open_composites(program: Program) -> Program:
    """Replaces every composite by its decomposition: JAX cannot lower composites with symbolic dimensions."""
    graph = Graph(program.jaxpr, provenance=program.provenance)
    for region in graph.walk():
        for node in region.nodes():
            if node.name == "composite":
                region.inline(node, node.body)
    return dataclasses.replace(program, jaxpr=graph.to_closed())


def _spec_of(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _named(function: Any, name: str) -> Any:
    """XLA names modules after functions."""

    def named(*flat: Any) -> list[Any]:
        return list(function(*flat))

    named.__name__ = _module_name(name)
    return named


def _module_name(name: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name) or "main"
