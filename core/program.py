"""`Program`: an immutable traced function, and `trace`, which makes one."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex_core

from . import _compat
from .errors import UsageError
from .fingerprint import hash_jaxpr


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A traced function: a closed jaxpr with the structure of its inputs and outputs.

    Immutable, so snapshots are free. Calling it evaluates it with `jax.jit`.

    Attributes:
      jaxpr: the body; arrays closed over by the function are its ``consts``, held by reference.
      in_tree: structure of the positional arguments, a tuple.
      out_tree: structure of the result.
      input_names: one name per flat input, from the parameter names and the pytree paths.
      output_names: one name per flat output.
      donated: per flat input, whether its buffer may be reused for an output.
      name: the name of the function or module.
      examples: flat example inputs, when tracing was given arrays; used to verify and to measure.
      provenance: for variables made by a rewrite, the name of the rule that made them.
      history: the passes that changed the program, as pipeline text, oldest first.
      x64: whether 64-bit types were on when it was traced; it is evaluated likewise.
      exported: at the StableHLO level, the lowered module; its leading inputs are the jaxpr's constants.
    """

    jaxpr: jex_core.ClosedJaxpr
    in_tree: Any
    out_tree: Any
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    donated: tuple[bool, ...]
    name: str = "main"
    examples: tuple[Any, ...] | None = None
    provenance: Mapping[Any, str] = dataclasses.field(default_factory=dict)
    history: tuple[str, ...] = ()
    x64: bool = False
    exported: Any = None

    @property
    def level(self) -> str:
        """``"jaxpr"``, or ``"stablehlo"`` once lowered."""
        return "jaxpr" if self.exported is None else "stablehlo"

    @property
    def in_avals(self) -> list[Any]:
        """Abstract values (shape, dtype, weak type) of the flat inputs."""
        return [v.aval for v in self.jaxpr.jaxpr.invars]

    @property
    def out_avals(self) -> list[Any]:
        """Abstract values of the flat outputs."""
        return [v.aval for v in self.jaxpr.jaxpr.outvars]

    @property
    def consts(self) -> list[Any]:
        """The arrays closed over: weights, tables."""
        return list(self.jaxpr.consts)

    @property
    def constant_bytes(self) -> int:
        """Size of all constants in bytes; an array held twice counts once."""
        return sum({id(c): int(getattr(c, "nbytes", 0)) for c in self.jaxpr.consts}.values())

    @property
    def is_symbolic(self) -> bool:
        """Whether an input has a dimension whose size is not yet known."""
        return any(not isinstance(d, int) for aval in self.in_avals for d in getattr(aval, "shape", ()))

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash (hex) of equations, parameters, constants and structure; equal for equal programs."""
        digest = hashlib.sha256()
        hash_jaxpr(self.jaxpr, digest)
        digest.update(repr((self.in_tree, self.out_tree, self.donated, self.x64)).encode())
        if self.exported is not None:
            digest.update(self.exported.mlir_module_serialized)
        return digest.hexdigest()

    def replace(self, **changes: Any) -> Program:
        """A copy with some attributes changed."""
        return dataclasses.replace(self, **changes)

    def flatten_arguments(self, args: Sequence[Any]) -> list[Any]:
        """Flat inputs from positional arguments; raises `UsageError` where structure or shapes differ."""
        flat, tree = jax.tree_util.tree_flatten(tuple(args))
        if tree != self.in_tree:
            raise UsageError(
                f"{self.name} was traced for arguments of structure {self.in_tree}, and got {tree}",
                hint="pass arguments of the structure that was given to xlapass.trace",
            )
        for value, aval, name in zip(flat, self.in_avals, self.input_names, strict=True):
            _check_shape(self.name, name, value, aval)
        return flat

    @functools.cached_property
    def flat_function(self) -> Callable[..., list[Any]]:
        """``f(*flat_inputs) -> [flat outputs]`` in plain JAX; the constants are closed over."""
        if self.exported is not None:
            return lambda *flat: list(self.exported.call(*self.jaxpr.consts, *flat))
        return lambda *flat: _compat.eval_jaxpr(self.jaxpr.jaxpr, self.jaxpr.consts, *flat)

    @functools.cached_property
    def function_of_constants(self) -> Callable[..., list[Any]]:
        """``f(consts, *flat_inputs)``: the same with the constants as an argument, so that they are not embedded."""
        if self.exported is not None:
            return lambda consts, *flat: list(self.exported.call(*consts, *flat))
        return lambda consts, *flat: _compat.eval_jaxpr(self.jaxpr.jaxpr, consts, *flat)

    @functools.cached_property
    def _evaluate(self) -> Callable[..., Any]:
        if self.exported is None and self.is_symbolic:
            from .lowering import open_composites  # that module needs this one

            flat_function = open_composites(self).flat_function
            exported = jax.export.export(jax.jit(flat_function))(*self.input_specs())
            return jax.jit(lambda _, *flat: list(exported.call(*flat)))
        return jax.jit(self.function_of_constants)

    def evaluate_flat(self, flat: Sequence[Any]) -> list[Any]:
        """Runs the program on flat inputs with `jax.jit` and returns its flat outputs."""
        with jax.enable_x64(self.x64):
            return list(self._evaluate(self.jaxpr.consts, *flat))

    def __call__(self, *args: Any) -> Any:
        """Runs the program on arguments of the structure it was traced with."""
        return jax.tree_util.tree_unflatten(self.out_tree, self.evaluate_flat(self.flatten_arguments(args)))

    def input_specs(self) -> list[jax.ShapeDtypeStruct]:
        """One `jax.ShapeDtypeStruct` per flat input; symbolic dimensions included."""
        return [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=getattr(a, "weak_type", False)) for a in self.in_avals]

    def __str__(self) -> str:
        return str(self.jaxpr) if self.exported is None else str(self.exported.mlir_module())


def _check_shape(program: str, name: str, value: Any, aval: Any) -> None:
    shape = np.shape(value) if not hasattr(value, "shape") else value.shape
    expected = getattr(aval, "shape", shape)
    fits = len(shape) == len(expected) and all(
        not isinstance(want, int) or want == have for have, want in zip(shape, expected, strict=False)
    )
    if not fits:
        raise UsageError(
            f"input {name!r} of {program} has shape {tuple(shape)}; the program was traced for {aval.str_short()}",
            hint="trace again for the new shape, or give it a symbolic dimension with dynamic=",
        )


def operation_count(closed: jex_core.ClosedJaxpr) -> int:
    """Number of equations, those inside control flow and calls included."""
    total, pending = 0, [closed.jaxpr]
    while pending:
        jaxpr = pending.pop()
        total += len(jaxpr.eqns)
        for eqn in jaxpr.eqns:
            pending.extend(jex_core.jaxprs_in_params(eqn.params))
    return total
