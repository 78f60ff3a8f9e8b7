"""StableHLO modules: reading one out of a `jax.export.Exported`, running MLIR passes on it, and putting it back.

A rewritten artifact is an ordinary ``Exported``: its ``call`` runs the rewritten module and composes with ``jit``.

Trap: ``Exported.vjp()``, and so ``jax.grad`` through ``call``, still differentiates the *original* function, because
JAX derives gradients from the jaxpr it exported and not from the module. For passes that keep the function's meaning
this is right, only not optimized; the gradient of a pass that changes values (quantization, say) is not that of the
module.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
from jax import export
from jax.extend import mlir
from jax.extend.mlir import ir, passmanager
from jax.extend.mlir.dialects import stablehlo

from .errors import CompileError, UsageError

_ANCHOR = "builtin.module"

_DIAGNOSTIC_LIMIT = 2000  # characters

# Operations that carry structure and compute nothing.
_STRUCTURE = frozenset({"builtin.module", "func.func", "func.return", "stablehlo.return"})


def parse(exported: export.Exported) -> Any:
    """Returns the module of ``exported`` as a new, mutable ``jax.extend.mlir.ir.Module`` in a context of its own."""
    with _new_context():
        return mlir.deserialize_portable_artifact(exported.mlir_module_serialized)


def with_module(exported: export.Exported, module: Any) -> export.Exported:
    """Returns ``exported`` with ``module`` in the place of its own.

    Args:
      exported: says everything that the module does not: trees, platforms, effects, shardings.
      module: must keep the types of the public function ``main``.

    Returns:
      A new ``Exported``, or ``exported`` itself when the module is the one it holds already.

    Raises:
      CompileError: the module is invalid, changes ``main``'s types, or holds what StableHLO artifacts cannot.
    """
    _check_module(parse(exported), module)
    try:
        data = mlir.serialize_portable_artifact(module, _portable_version(), True)
    except Exception as error:  # the binding raises plain ValueError and RuntimeError
        raise CompileError(
            f"the rewritten {exported.fun_name!r} is no longer a portable StableHLO program: {_excerpt(error)}",
            hint="the passes must leave StableHLO, CHLO and Shardy operations only",
        ) from error
    if data == exported.mlir_module_serialized:
        return exported
    return dataclasses.replace(exported, mlir_module_serialized=data)


def run_mlir_pipeline(exported: export.Exported, pipeline: str) -> export.Exported:
    """Runs MLIR passes on the module of ``exported``.

    Args:
      exported: the artifact; it is not changed.
      pipeline: MLIR's textual pipeline, such as ``"canonicalize,cse"`` or ``"builtin.module(func.func(cse))"``; the
        passes of MLIR's core, of StableHLO (``stablehlo-refine-shapes``) and of Shardy are known.

    Returns:
      A new ``Exported``; ``exported`` itself when the passes changed nothing. For gradients see the module's docstring.

    Raises:
      UsageError: the pipeline does not parse; the message holds MLIR's own.
      CompileError: a pass failed, or left a module that cannot be called in the original's place.
    """
    module = parse(exported)
    passes = _parse_pipeline(pipeline, module.context)
    try:
        passes.run(module.operation)
    except ir.MLIRError as error:
        raise CompileError(
            f"the MLIR pipeline {pipeline!r} failed on {exported.fun_name!r}: {_excerpt(error)}"
        ) from error
    return with_module(exported, module)


def check_pipeline(pipeline: str) -> None:
    """Raises `UsageError` when ``pipeline`` is not a pipeline that `run_mlir_pipeline` could run."""
    _parse_pipeline(pipeline, _new_context())


def operation_count(program: Any) -> int:
    """Number of operations in a module or ``Exported``, nested ones included; functions and returns do not count."""
    module = parse(program) if isinstance(program, export.Exported) else program
    count = 0

    def visit(operation: Any) -> Any:
        nonlocal count
        count += operation.name not in _STRUCTURE
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return count


def _new_context() -> Any:
    """A context with every dialect that JAX lowers to: JAX's function for it is private, but each lowering has one."""
    module: Any = jax.jit(lambda: None).lower().compiler_ir(dialect="stablehlo")
    return module.context


@functools.cache
def _register_passes() -> None:
    stablehlo.register_stablehlo_passes()


def _parse_pipeline(pipeline: str, context: Any) -> Any:
    _register_passes()
    text = pipeline.strip()
    if not text.startswith(f"{_ANCHOR}("):
        text = f"{_ANCHOR}({text})"
    try:
        with context:
            return passmanager.PassManager.parse(text)
    except ValueError as error:
        raise UsageError(f"{pipeline!r} is not an MLIR pipeline: {str(error).strip()}") from error


def _excerpt(error: Exception) -> str:
    """MLIR's message without the rest of the operation it prints, which can be the whole program."""
    text = str(error).strip()
    return text if len(text) <= _DIAGNOSTIC_LIMIT else text[:_DIAGNOSTIC_LIMIT] + " ..."


def _portable_version() -> str:
    """The StableHLO version that JAX itself exports: read by any consumer updated within four weeks."""
    window = stablehlo.StablehloCompatibilityRequirement.WEEK_4
    return str(stablehlo.get_version_from_compatibility_requirement(window))


def _check_module(original: Any, module: Any) -> None:
    try:
        module.operation.verify()
    except ir.MLIRError as error:
        raise CompileError(f"the rewritten module is invalid: {_excerpt(error)}") from error
    before, after = _main_type(original), _main_type(module)
    if after != before:
        raise CompileError(
            f"the rewritten module's function 'main' has the type {after}; callers expect {before}",
            hint="passes must keep the types of inputs and outputs",
        )


def _main_type(module: Any) -> str:
    symbols = ir.SymbolTable(module.operation)
    return str(symbols["main"].attributes["function_type"]) if "main" in symbols else "(no such function)"
