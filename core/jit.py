"""`jit`: a drop-in for `jax.jit` that runs a pipeline first."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from . import _compat
from .driver import Plan, optimize, plan
from .pipeline import PipelineLike
from .plugins import Registry
from .program import Program
from .resident import ResidentFunction
from .rewrite import Numerics
from .tracing import trace

RESIDENT_LIMIT = 64 * 1024
"""A function that closes over more bytes than this keeps them on the device as arguments, instead of as literals."""


def jit(
    fn: Callable[..., Any] | None = None,
    *,
    pipeline: PipelineLike = "cpu",
    numerics: Numerics = "reassociating",
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    donate_argnums: int | Sequence[int] | None = None,
    donate_argnames: str | Iterable[str] | None = None,
    registry: Registry | None = None,
) -> Any:
    """Compiles ``fn`` with a pipeline when it is called; otherwise as `jax.jit`.

    For each signature (structure, shapes, dtypes, static values) the function is traced, optimized and compiled once.
    Under `jax.grad`, `jax.vmap` and an enclosing `jax.jit` it gives what the original gives: derivatives are those of
    ``fn`` itself, custom ones included.

    Args:
      fn: a function; when left out, `jit` returns a decorator. Flax and Equinox modules are called like functions.
      pipeline: the passes; a backend that the pipeline names is not used.
      numerics: the loosest change to results that is permitted.
      static_argnums, static_argnames, donate_argnums, donate_argnames: as for `jax.jit`.
      registry: the plugins; by default those that are installed.

    Returns:
      A callable with `jax.jit`'s ``lower``, ``trace``, ``eval_shape`` and ``clear_cache``.
    """
    jax_options = {
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
        "donate_argnums": donate_argnums,
        "donate_argnames": donate_argnames,
    }
    given = {name: value for name, value in jax_options.items() if value is not None}
    make = functools.partial(Jitted, pipeline=pipeline, numerics=numerics, registry=registry, jax_options=given)
    return make if fn is None else make(fn)


class _HoldsWeights(Exception):
    """Raised while tracing, when the program's constants should be arguments and not literals."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program


class Jitted:
    """What `jit` returns.

    Most functions run through one `jax.jit` of an optimized function, whose tracing is where the pipeline runs: calls,
    caching, static and donated arguments are then JAX's own. A function that closes over weights is dispatched here
    instead, so that they stay on the device as arguments.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        pipeline: PipelineLike,
        numerics: Numerics,
        registry: Registry | None,
        jax_options: dict[str, Any],
    ) -> None:
        self._fn = fn
        self._numerics = numerics
        self._pipeline = pipeline
        self._registry = registry
        self._jax_options = jax_options
        self._optimized: Any = jax.jit(_named_like(self._traced, fn), **jax_options)
        self._original: Any = jax.jit(_named_like(lambda *args, **kwargs: fn(*args, **kwargs), fn), **jax_options)
        self._resident: dict[Any, _ResidentCall] | None = None
        self._allow_weights = False
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs ``fn``, compiled."""
        optimized = None
        if self._resident is None:
            try:
                return self._optimized(*args, **kwargs)
            except _HoldsWeights as held:
                self._resident, optimized = {}, held.program
        leaves, tree = jax.tree_util.tree_flatten((args, kwargs))
        if any(map(_compat.is_tracer, leaves)):
            return self._literal(*args, **kwargs)
        return self._call_resident(args, kwargs, leaves, tree, optimized)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Methods bind as functions do."""
        return self if instance is None else functools.partial(self, instance)

    @functools.cached_property
    def _plan(self) -> Plan:
        return plan(self._pipeline, registry=self._registry)

    @functools.cached_property
    def _literal(self) -> Any:
        """The optimized function with its constants closed over: for use inside other transformations."""
        return jax.jit(_named_like(functools.partial(self._traced, allow_weights=True), self._fn), **self._jax_options)

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
        self._optimized.clear_cache()
        self._original.clear_cache()
        self._resident = None if self._resident is None else {}

    # -- the optimized function, as JAX traces it --------------------------------------------------------------------

    def _traced(self, *args: Any, allow_weights: bool = False, **kwargs: Any) -> Any:
        leaves, tree = jax.tree_util.tree_flatten((args, kwargs))
        dynamic = [i for i, leaf in enumerate(leaves) if _compat.is_tracer(leaf)]
        flat_fn = _flat_function(self._fn, leaves, tree, dynamic)
        program = self._optimize(flat_fn, [leaves[i] for i in dynamic])
        if program is None:
            return self._fn(*args, **kwargs)
        if program.constant_bytes > RESIDENT_LIMIT and not allow_weights:
            raise _HoldsWeights(program)
        flat = _with_derivatives_of(flat_fn, program)(*(leaves[i] for i in dynamic))
        return jax.tree_util.tree_unflatten(program.out_tree, flat)

    def _optimize(self, flat_fn: Callable[..., Any], arrays: Sequence[Any]) -> Program | None:
        """The optimized program, or None where ``fn`` closes over values of an enclosing transformation."""
        specs = [_spec(array) for array in arrays]
        program = trace(flat_fn, *specs, name=getattr(self._fn, "__name__", type(self._fn).__name__))
        if any(map(_compat.is_tracer, program.jaxpr.consts)):
            return None
        return optimize(self._plan, program, numerics=self._numerics)

    # -- functions that close over weights ---------------------------------------------------------------------------

    def _call_resident(self, args: Any, kwargs: Any, leaves: list[Any], tree: Any, optimized: Program | None) -> Any:
        assert self._resident is not None
        static = _static_leaves(self._fn, args, kwargs, self._jax_options)
        key = (tree, tuple(_signature(leaf, i in static) for i, leaf in enumerate(leaves)), _compat.x64_enabled())
        call = self._resident.get(key)
        if call is None:
            dynamic = [i for i in range(len(leaves)) if i not in static]
            donated = _donated_leaves(self._fn, args, kwargs, self._jax_options)
            flat_fn = _flat_function(self._fn, leaves, tree, dynamic)
            program = optimized or self._optimize(flat_fn, [leaves[i] for i in dynamic])
            assert program is not None  # no tracer among the arguments, and constants were arrays
            call = _ResidentCall(program, dynamic, [i for i in dynamic if i in donated])
            self._resident[key] = call
        return call(leaves)


class _ResidentCall:
    """A compiled signature whose constants are arguments that stay on the device."""

    def __init__(self, program: Program, dynamic: list[int], donated: list[int]) -> None:
        self.program = program
        self.dynamic = dynamic
        self._run = ResidentFunction(program, donated=[dynamic.index(i) for i in donated])

    def __call__(self, leaves: list[Any]) -> Any:
        flat = self._run([leaves[i] for i in self.dynamic])
        return jax.tree_util.tree_unflatten(self.program.out_tree, flat)


def _with_derivatives_of(fn: Callable[..., Any], program: Program) -> Callable[..., list[Any]]:
    """The optimized program, whose derivative is that of ``fn``: passes do not keep custom derivative rules."""
    if program.jaxpr.effects:
        return program.flat_function  # JAX's custom derivatives take no effects; what the passes left is differentiated

    @jax.custom_jvp
    def optimized(*flat: Any) -> list[Any]:
        return program.flat_function(*flat)

    @optimized.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        return jax.jvp(lambda *flat: jax.tree_util.tree_leaves(fn(*flat)), primals, tangents)

    return optimized


def _flat_function(fn: Callable[..., Any], leaves: list[Any], tree: Any, dynamic: list[int]) -> Callable[..., Any]:
    """``fn`` as a function of the dynamic leaves alone."""
    fixed = [None if i in set(dynamic) else leaf for i, leaf in enumerate(leaves)]

    def flat_fn(*arrays: Any) -> Any:
        every = list(fixed)
        for i, array in zip(dynamic, arrays, strict=True):
            every[i] = array
        args, kwargs = jax.tree_util.tree_unflatten(tree, every)
        return fn(*args, **kwargs)

    return flat_fn


def _spec(array: Any) -> jax.ShapeDtypeStruct:
    aval = jax.typeof(array)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=getattr(aval, "weak_type", False))


def _signature(leaf: Any, static: bool) -> Any:
    if static:
        return leaf
    aval = jax.typeof(leaf)
    return aval.shape, aval.dtype, getattr(aval, "weak_type", False)


def _static_leaves(fn: Callable[..., Any], args: Any, kwargs: Any, jax_options: dict[str, Any]) -> set[int]:
    return _leaves_of(fn, args, kwargs, jax_options, "static_argnums", "static_argnames")


def _donated_leaves(fn: Callable[..., Any], args: Any, kwargs: Any, jax_options: dict[str, Any]) -> set[int]:
    return _leaves_of(fn, args, kwargs, jax_options, "donate_argnums", "donate_argnames")


def _leaves_of(
    fn: Callable[..., Any], args: Any, kwargs: Any, jax_options: dict[str, Any], numbers_key: str, names_key: str
) -> set[int]:
    """Positions, among the flat leaves of ``(args, kwargs)``, of the arguments that these options name."""
    if numbers_key not in jax_options and names_key not in jax_options:
        return set()
    numbers = _as_tuple(jax_options.get(numbers_key, ()))
    names = set(_as_tuple(jax_options.get(names_key, ())))
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


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, int | str) else tuple(value)


def _named_like(function: Callable[..., Any], fn: Any) -> Callable[..., Any]:
    """JAX reads parameter names, for static and donated ones, from the signature."""

    @functools.wraps(fn, updated=())
    def named(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return named
