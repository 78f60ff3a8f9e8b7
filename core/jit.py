"""`jit`: a drop-in for `jax.jit` that runs a pipeline first."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from . import _compat
from .call import as_tuple, flat_function, signature_key, static_leaves, type_of, types_by_name
from .driver import Plan, optimize, plan
from .forms import loosest
from .instruments.progress import ProgressLine
from .pipeline import PipelineLike
from .plugins import Registry
from .program import Program
from .recompilation import SignatureWatch
from .resident import ResidentProgram, Weights
from .rewrite import Numerics
from .tracing import trace
from .tuning import Tuning, tuning_of

RESIDENT_LIMIT = 64 * 1024
"""A function that closes over more bytes than this keeps them on the device as arguments, instead of as literals."""

_WATCH_HINT = (
    "give it fewer different ones, or pad them to a few sizes (see xlapass.compile(...).executable(buckets=...))"
)


def jit(
    fn: Callable[..., Any] | None = None,
    *,
    pipeline: PipelineLike = "cpu",
    numerics: Numerics | None = None,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    donate_argnums: int | Sequence[int] | None = None,
    donate_argnames: str | Iterable[str] | None = None,
    tune: bool = False,
    tune_budget: str | float | None = None,
    tune_file: str | os.PathLike[str] | None = None,
    registry: Registry | None = None,
) -> Any:
    """Compiles ``fn`` with a pipeline when it is called; otherwise as `jax.jit`.

    For each signature (structure, shapes, dtypes, static values) the function is traced, optimized and compiled once.
    Under `jax.grad`, `jax.vmap` and an enclosing `jax.jit` it gives what the original gives: derivatives are those of
    ``fn`` itself, custom ones included.

    Args:
      fn: a function; when left out, `jit` returns a decorator. Flax and Equinox modules are called like functions.
      pipeline: the passes; a backend that the pipeline names is not used.
      numerics: the loosest change to results that is permitted; by default what the pipeline's own passes declare,
        and at least ``"reassociating"``. What other packages put into its phases must keep to that.
      static_argnums, static_argnames, donate_argnums, donate_argnames: as for `jax.jit`.
      tune: let measurements on this device decide where passes have a choice, when a signature is compiled. What was
        measured is kept in a file; a second run costs nothing. A budget or a file asks for tuning, too.
      tune_budget: how long to measure for one signature: seconds, or text such as ``"90s"`` or ``"5m"``; by default 60
        seconds. With 0, only what the file knows is used.
      tune_file: keeps the measurements; by default what the environment variable ``XLAPASS_TUNE_FILE`` says, or a file
        in the user's cache folder.
      registry: the plugins; by default those that are installed.

    Returns:
      A callable with `jax.jit`'s ``lower``, ``trace``, ``eval_shape`` and ``clear_cache``.

    Raises:
      TypeError: ``fn`` is not callable, as from `jax.jit`.
    """
    if fn is not None and not callable(fn):
        raise TypeError(f"xlapass.jit takes a function, not {fn!r}")
    jax_options = {
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
        "donate_argnums": donate_argnums,
        "donate_argnames": donate_argnames,
    }
    given = {name: value for name, value in jax_options.items() if value is not None}
    tuning = tuning_of(tune, tune_budget, tune_file)
    make = functools.partial(
        Jitted, pipeline=pipeline, numerics=numerics, registry=registry, tuning=tuning, jax_options=given
    )
    return make if fn is None else make(fn)


class _HoldsWeights(Exception):
    """Raised while tracing, when the program cannot be a part of the function that is being traced."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program


class _OtherSignature(Exception):
    """Raised while tracing a compiled signature, when it is called with arguments of another."""


class Jitted:
    """What `jit` returns.

    Most functions run through one `jax.jit` of an optimized function, whose tracing is where the pipeline runs: calls,
    caching, static and donated arguments are then JAX's own. A function that closes over weights, or one that wants
    compile options of its own, has a `jax.jit` for each signature, which takes the weights as its first argument, so
    that they stay on the device.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        pipeline: PipelineLike,
        numerics: Numerics | None,
        registry: Registry | None,
        tuning: Tuning | None,
        jax_options: dict[str, Any],
    ) -> None:
        self._fn = fn
        self._name = getattr(fn, "__name__", type(fn).__name__)
        self._numerics = numerics
        self._pipeline = pipeline
        self._registry = registry
        self._tuning = tuning
        self._jax_options = jax_options
        self._optimized: Any = jax.jit(_named_like(self._traced, fn), **jax_options)
        self._original: Any = jax.jit(_named_like(lambda *args, **kwargs: fn(*args, **kwargs), fn), **jax_options)
        self._compiled: dict[Any, _Compiled] = {}
        self._only: _Compiled | None = None
        self._weights = Weights()
        self._watch = SignatureWatch(f"xlapass.jit({self._name})", _WATCH_HINT)
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs ``fn``, compiled."""
        if self._only is not None:
            try:
                return self._only.run(self._only.resident, *args, **kwargs)
            except _OtherSignature:
                return self._call_compiled(args, kwargs, None)
        if not self._compiled:
            try:
                return self._optimized(*args, **kwargs)
            except _HoldsWeights as held:
                return self._call_compiled(args, kwargs, held.program)
        return self._call_compiled(args, kwargs, None)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Methods bind as functions do."""
        return self if instance is None else functools.partial(self, instance)

    @functools.cached_property
    def _plan(self) -> Plan:
        return plan(self._pipeline, registry=self._registry, tune=self._tuning)

    @functools.cached_property
    def _literal(self) -> Any:
        """The optimized function with its constants closed over: for use inside other transformations."""
        return jax.jit(_named_like(functools.partial(self._traced, whole=False), self._fn), **self._jax_options)

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """As ``jax.jit(fn).lower``, of the optimized function."""
        lowered: jax.stages.Lowered = self._literal.lower(*args, **kwargs)
        return lowered

    def trace(self, *args: Any, **kwargs: Any) -> Any:
        """As ``jax.jit(fn).trace``, of the optimized function."""
        return self._literal.trace(*args, **kwargs)

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """As ``jax.jit(fn).eval_shape``."""
        return self._original.eval_shape(*args, **kwargs)

    def clear_cache(self) -> None:
        """Forgets every compiled version."""
        for one in (self._optimized, self._original, self._literal):
            one.clear_cache()
        self._compiled, self._only, self._weights = {}, None, Weights()

    # -- the optimized function, as JAX traces it --------------------------------------------------------------------

    def _traced(self, *args: Any, whole: bool = True, **kwargs: Any) -> Any:
        """The optimized function; with ``whole``, one that is more than a part of what is being traced is refused."""
        leaves, tree = jax.tree_util.tree_flatten((args, kwargs))
        dynamic = [i for i, leaf in enumerate(leaves) if _compat.is_tracer(leaf)]
        flat_fn = flat_function(self._fn, leaves, tree, dynamic)
        program = self._optimize(flat_fn, leaves, tree, dynamic)
        if program is None:
            return self._fn(*args, **kwargs)
        if whole and (program.constant_bytes > RESIDENT_LIMIT or program.compiler_options):
            raise _HoldsWeights(program)
        optimized = _with_derivatives_of(flat_fn, lambda _, *flat: program.flat_function(*flat), program)
        flat = optimized([], *(leaves[i] for i in dynamic))
        return jax.tree_util.tree_unflatten(program.out_tree, flat)

    def _optimize(
        self, flat_fn: Callable[..., Any], leaves: Sequence[Any], tree: Any, dynamic: Sequence[int]
    ) -> Program | None:
        """The optimized program, or None where ``fn`` closes over values of an enclosing transformation."""
        self._watch.saw(types_by_name(self._fn, leaves, tree, dynamic))
        program = trace(flat_fn, *(type_of(leaves[i]) for i in dynamic), name=self._name)
        if any(map(_compat.is_tracer, program.jaxpr.consts)):
            return None
        instruments = [] if self._tuning is None else [ProgressLine()]
        permitted = self._numerics or loosest((self._plan.pipeline.numerics, "reassociating"))
        return optimize(self._plan, program, numerics=permitted, instruments=instruments)

    # -- a function of its own for each signature ---------------------------------------------------------------------

    def _call_compiled(self, args: Any, kwargs: Any, optimized: Program | None) -> Any:
        leaves, tree = jax.tree_util.tree_flatten((args, kwargs))
        static = static_leaves(self._fn, args, kwargs, self._jax_options)
        key = signature_key(leaves, tree, static)
        compiled = self._compiled.get(key)
        if compiled is None:
            if any(map(_compat.is_tracer, leaves)):
                return self._literal(*args, **kwargs)
            dynamic = [i for i in range(len(leaves)) if i not in static]
            flat_fn = flat_function(self._fn, leaves, tree, dynamic)
            program = optimized or self._optimize(flat_fn, leaves, tree, dynamic)
            assert program is not None  # no tracer among the arguments, and constants were arrays
            compiled = _Compiled(self._fn, program, key, flat_fn, self._weights, self._jax_options)
            self._compiled[key] = compiled
            # With one signature, JAX tells in its fast path whether the arguments fit; with several, the key must.
            is_only = len(self._compiled) == 1 and not program.compiler_options
            self._only = compiled if is_only else None
        if compiled.has_options and any(map(_compat.is_tracer, leaves)):
            return self._literal(*args, **kwargs)  # compile options are for a whole computation, not for a part of one
        return compiled.run(compiled.resident, *args, **kwargs)


class _Compiled:
    """One signature, compiled; its constants are arguments that stay on the device.

    Attributes:
      run: takes ``resident`` and the arguments of the original function; raises `_OtherSignature` for other ones.
      resident: the constants.
      has_options: whether it is compiled with options of its own.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        program: Program,
        key: Any,
        flat_fn: Callable[..., Any],
        weights: Weights,
        jax_options: dict[str, Any],
    ) -> None:
        body = ResidentProgram(program, weights=weights)
        self.resident = body.resident
        self.has_options = bool(program.compiler_options)
        optimized = _with_derivatives_of(flat_fn, body, program)

        def run(resident: Any, *args: Any, **kwargs: Any) -> Any:
            leaves, tree = jax.tree_util.tree_flatten((args, kwargs))
            static = static_leaves(fn, args, kwargs, jax_options)
            if signature_key(leaves, tree, static) != key:
                raise _OtherSignature
            flat = optimized(resident, *(leaf for i, leaf in enumerate(leaves) if i not in static))
            return jax.tree_util.tree_unflatten(program.out_tree, flat)

        options = {name: _after_one_more(name, value) for name, value in jax_options.items()}
        self.run: Any = jax.jit(
            _named_like(run, fn, first="resident"), compiler_options=dict(program.compiler_options) or None, **options
        )


def _after_one_more(name: str, value: Any) -> Any:
    """Positions of arguments when another one comes first; those counted from the end stay."""
    if not name.endswith("nums"):
        return value
    return tuple(n + 1 if n >= 0 else n for n in as_tuple(value))


def _with_derivatives_of(
    fn: Callable[..., Any], body: Callable[..., list[Any]], program: Program
) -> Callable[..., list[Any]]:
    """``body``, the optimized program, of resident constants and flat inputs; its derivative is that of ``fn``.

    Passes do not keep custom derivative rules.
    """
    if program.jaxpr.effects:
        return body  # JAX's custom derivatives take no effects; what the passes left is differentiated

    @jax.custom_jvp
    def optimized(resident: Any, *flat: Any) -> list[Any]:
        return body(resident, *flat)

    @optimized.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        return jax.jvp(lambda *flat: jax.tree_util.tree_leaves(fn(*flat)), primals[1:], tangents[1:])

    return optimized


def _named_like(function: Callable[..., Any], fn: Any, first: str = "") -> Callable[..., Any]:
    """JAX reads parameter names, for static and donated ones, from the signature; ``first`` is one more before them."""

    @functools.wraps(fn, updated=())
    def named(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    if first:
        del named.__wrapped__
        with contextlib.suppress(TypeError, ValueError):  # a callable without a signature has no argument names
            signature = inspect.signature(fn)
            one_more = inspect.Parameter(first, inspect.Parameter.POSITIONAL_ONLY)
            parameters = [p for p in signature.parameters.values() if p.name != first]
            if len(parameters) == len(signature.parameters):
                named.__signature__ = signature.replace(parameters=[one_more, *parameters])  # type: ignore[attr-defined]
    return named
