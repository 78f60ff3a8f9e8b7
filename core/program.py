"""`Program`: an immutable traced function, and `trace`, which makes one."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from . import _compat
from .errors import UsageError
from .fingerprint import hash_jaxpr
from .hoisting import nested_constants


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
      input_permutations: per flat input, how it is transposed from what was traced, or None; empty when none is. Only a
        pass that the user asked to convert the interface sets it.
      output_permutations: the same for outputs.
      exported: at the StableHLO level, the lowered module; its leading inputs are the jaxpr's constants.
      compiler_options: XLA options that suit the program; those that the user asks for come before them.
      numerics: the loosest change of results that the passes in ``history`` declared.
      traced: the program before any pass, for backends that check what they make against it.
      calibration: typical inputs, for passes that measure ranges: an iterable of argument tuples, a function that
        returns one, or a path.
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
    input_permutations: tuple[tuple[int, ...] | None, ...] = ()
    output_permutations: tuple[tuple[int, ...] | None, ...] = ()
    exported: Any = None
    compiler_options: Mapping[str, str | bool] = dataclasses.field(default_factory=dict)
    numerics: str = "exact"
    traced: Program | None = None
    calibration: Any = None

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
        """Size of all constants in bytes, those inside loops and branches included; an array held twice counts once."""
        constants = [*self.jaxpr.consts, *nested_constants(self.jaxpr.jaxpr)]
        return sum({id(c): int(getattr(c, "nbytes", 0)) for c in constants}.values())

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
        """Flat inputs from positional arguments; raises `UsageError` where structure, shapes or dtypes differ.

        Python scalars take the dtype of their input, and 64-bit arrays are narrowed where JAX would.
        """
        flat, tree = jax.tree_util.tree_flatten(tuple(args))
        if tree != self.in_tree:
            raise UsageError(
                f"{self.name} was traced for arguments of structure {self.in_tree}, and got {tree}",
                hint="pass arguments of the structure that was given to xlapass.trace",
            )
        with jax.enable_x64(self.x64):
            inputs = zip(flat, self.in_avals, self.input_names, strict=True)
            return [_fitting(value, aval, f"input {name!r} of {self.name}") for value, aval, name in inputs]

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
    def _runnable(self) -> Program:
        """What is run: JAX cannot lower composites with symbolic dimensions."""
        if self.exported is not None or not self.is_symbolic:
            return self
        from .lowering import open_composites  # that module needs this one

        return open_composites(self)

    @functools.cached_property
    def _evaluate(self) -> Any:
        program = self._runnable
        if self.exported is not None or not self.is_symbolic:
            return jax.jit(program.function_of_constants)
        consts = [jax.ShapeDtypeStruct(np.shape(const), const.dtype) for const in program.consts]
        exported = jax.export.export(jax.jit(program.function_of_constants))(consts, *self.input_specs())
        return jax.jit(lambda consts, *flat: list(exported.call(consts, *flat)))

    def as_traced(self, values: Sequence[Any], *, outputs: bool = False) -> list[Any]:
        """Flat inputs (or outputs) of this program in the layout in which it was traced."""
        return _transposed(values, self.output_permutations if outputs else self.input_permutations, undo=True)

    def as_converted(self, values: Sequence[Any]) -> list[Any]:
        """Flat inputs given in the layout in which the program was traced, in the one that it takes now."""
        return _transposed(values, self.input_permutations, undo=False)

    def evaluate_flat(self, flat: Sequence[Any]) -> list[Any]:
        """Runs the program on flat inputs with `jax.jit` and returns its flat outputs."""
        with jax.enable_x64(self.x64):
            return list(self._evaluate(self._runnable.consts, *flat))

    def compile_flat(self, flat: Sequence[Any], compiler_options: Mapping[str, Any]) -> Callable[..., list[Any]]:
        """Compiles for flat inputs of the shapes of ``flat`` with XLA options; what it returns takes such inputs."""
        with jax.enable_x64(self.x64):
            lowered = self._evaluate.lower(self._runnable.consts, *flat)
            compiled = lowered.compile(compiler_options=dict(compiler_options))

        def run(*flat: Any) -> list[Any]:
            with jax.enable_x64(self.x64):
                return list(compiled(self._runnable.consts, *flat))

        return run

    def __call__(self, *args: Any) -> Any:
        """Runs the program on arguments of the structure it was traced with."""
        return jax.tree_util.tree_unflatten(self.out_tree, self.evaluate_flat(self.flatten_arguments(args)))

    def input_specs(self) -> list[jax.ShapeDtypeStruct]:
        """One `jax.ShapeDtypeStruct` per flat input; symbolic dimensions included."""
        return [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=getattr(a, "weak_type", False)) for a in self.in_avals]

    def __str__(self) -> str:
        return str(self.jaxpr) if self.exported is None else str(self.exported.mlir_module())


def _transposed(values: Sequence[Any], permutations: Sequence[Any], *, undo: bool) -> list[Any]:
    if not permutations:
        return list(values)
    pairs = zip(values, permutations, strict=True)
    return [v if p is None else jnp.transpose(v, tuple(np.argsort(p).tolist()) if undo else p) for v, p in pairs]


def _fitting(value: Any, aval: Any, what: str) -> Any:
    """``value`` as an input of type ``aval``; raises `UsageError` when it cannot be one."""
    shape = np.shape(value) if not hasattr(value, "shape") else value.shape
    expected = getattr(aval, "shape", shape)
    fits = len(shape) == len(expected) and all(
        not isinstance(want, int) or want == have for have, want in zip(shape, expected, strict=False)
    )
    if not fits:
        raise UsageError(
            f"{what} has shape {tuple(shape)}; the program was traced for {aval.str_short()}",
            hint="trace again for the new shape, or give it a symbolic dimension with dynamic=",
        )
    dtype = getattr(aval, "dtype", None)
    if dtype is None or getattr(value, "dtype", None) == dtype:
        return value
    have = jax.dtypes.canonicalize_dtype(getattr(value, "dtype", type(value)), allow_extended_dtype=True)
    if have == dtype:
        return value
    if isinstance(value, bool | int | float) and jnp.promote_types(type(value), dtype) == dtype:
        array = np.asarray(value, dtype)
        return array.item() if aval.weak_type else array  # Python scalars are what is weakly typed
    raise UsageError(
        f"{what} has dtype {have}; the program was traced for {aval.str_short()}",
        hint="convert it, or trace again for the new dtype",
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
