"""The one place where JAX's private modules are imported.

Each name below is probed by ``tests/core/test_compat.py``, so that a JAX release which moves one fails there first.
Everything else in xlapass uses JAX's public API.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax._src import core as _core
from jax._src import effects as _effects
from jax._src import source_info_util as _source_info_util
from jax._src.interpreters import partial_eval as _partial_eval
from jax.extend import core as jex_core

_ROOT = os.path.dirname(os.path.dirname(__file__))
_OWN_FILES = (
    *(os.path.join(_ROOT, folder, "") for folder in ("core", "passes", "backends", "plugins", "cli")),
    os.path.join(_ROOT, "testing.py"),
)
"""Not the whole of the root: in a checkout, tests and examples lie below it too."""

_LIBRARIES = f"{os.sep}site-packages{os.sep}"
"""In the path of every module that was installed, and not written by the user."""


def eval_jaxpr(jaxpr: jex_core.Jaxpr, consts: Sequence[Any], *args: Any) -> list[Any]:
    """Evaluates ``jaxpr``, keeping the source locations and name stacks of its equations."""
    return list(_core.eval_jaxpr(jaxpr, consts, *args))


def eliminate_dead_code(
    closed: jex_core.ClosedJaxpr, used_outputs: Sequence[bool], *, instantiate: bool | Sequence[bool] = False
) -> tuple[jex_core.ClosedJaxpr, list[bool]]:
    """Removes equations, unused results of control flow, and inputs; keeps effects.

    JAX's own elimination: most primitives with a body register a rule for it.

    Args:
      closed: the body.
      used_outputs: per output, whether to keep it.
      instantiate: the inputs to keep in any case.

    Returns:
      The smaller body, and per input of ``closed`` whether it was kept.
    """
    jaxpr, used_inputs = _partial_eval.dce_jaxpr(closed.jaxpr, used_outputs, instantiate=instantiate)
    return jex_core.ClosedJaxpr(jaxpr, closed.consts), list(used_inputs)


def jaxpr_effects(constvars: Sequence[Any], invars: Sequence[Any], outvars: Sequence[Any], eqns: Sequence[Any]) -> Any:
    """The effects of a jaxpr made of ``eqns``: theirs, without those on references that it creates itself."""
    return _partial_eval.make_jaxpr_effects(constvars, invars, outvars, eqns)


def has_reference_effects(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether an equation reads or writes a reference; such an effect names a variable of ``jaxpr``."""
    return any(isinstance(e, _effects.JaxprInputEffect) for eqn in jaxpr.eqns for e in eqn.effects)


def is_ordered(effect: Any) -> bool:
    """Whether operations with this effect must run in the order in which they stand."""
    return bool(_effects.ordered_effects.contains(effect))


def same_placement(inner: Any, outer: Any) -> bool:
    """Whether an equation in the tracing context ``inner`` runs where, and with the metadata, that ``outer`` says."""
    return inner is outer or (inner.compute_type == outer.compute_type and inner.xla_metadata == outer.xla_metadata)


def same_mesh(mesh: Any, context: Any) -> bool:
    """Whether ``mesh``, concrete or abstract, is the one of the tracing context, or none."""
    return bool(mesh.empty) or getattr(mesh, "abstract_mesh", mesh) == context.cur_abstract_mesh


def with_name_stack_prefix(source_info: Any, outer: Any, *, at_outer: bool = False) -> Any:
    """``source_info`` with the name stack of the equation ``outer`` in front, as inlining needs.

    With ``at_outer`` it also gets the source lines of ``outer``.
    """
    traceback = outer.traceback if at_outer else None
    return source_info.replace(traceback=traceback, name_stack=outer.name_stack + source_info.name_stack)


def name_stack(source_info: Any) -> str:
    """The ``jax.named_scope`` path of an equation, such as ``ResNet/Block_0/Conv_0``."""
    return str(source_info.name_stack)


def new_source_info() -> Any:
    """A source location that says nothing, for equations that no user's line asked for."""
    return _source_info_util.new_source_info()


def current_eqn_context() -> Any:
    """The tracing context (compute type, mesh, metadata) that an equation made now would get."""
    return _core.current_jaxpr_eqn_context()


def in_eqn_context(ctx: Any) -> AbstractContextManager[None]:
    """Enters the tracing context of an equation, so that what is traced inside gets the same; None enters nothing."""
    manager: AbstractContextManager[None] = contextlib.nullcontext() if ctx is None else ctx.manager
    return manager


def user_location(source_info: Any) -> str | None:
    """``file.py:12 (function)`` for the innermost frame of the user's own code, or None.

    Where a library, such as Flax, stands between the user and JAX, the frame that called the library.
    """
    innermost = None
    for file, line, function in user_frames(source_info):
        place = f"{file}:{line} ({function})"
        if _LIBRARIES not in file:
            return place
        innermost = innermost or place
    return innermost


def user_frames(source_info: Any) -> Iterator[tuple[str, int, str]]:
    """``(file, line, function)`` of the user's frames, innermost first: neither JAX's own nor ours."""
    for frame in _source_info_util.user_frames(source_info.traceback):
        if not frame.file_name.startswith(_OWN_FILES):
            yield frame.file_name, frame.start_line, frame.function_name


def scan_sizes(params: Mapping[str, Any]) -> tuple[int, int]:
    """How many of a ``scan`` equation's operands are constants, and how many the carry; JAX 0.12 says it otherwise."""
    if "num_carry" in params:
        return int(params["num_consts"]), int(params["num_carry"])
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def with_scan_constants(params: Mapping[str, Any], count: int) -> dict[str, Any]:
    """A ``scan`` equation's parameters when ``count`` more constants come first."""
    if "num_consts" in params:
        more = {"num_consts": params["num_consts"] + count}
        return {**params, **more} | (
            {"linear": (False,) * count + tuple(params["linear"])} if "linear" in params else {}
        )
    tree = params["ft_in"]
    consts, carry, slices = tree.unpack()
    node = type(tree)
    leaf = _first_leaf(tree)
    return {**params, "ft_in": node(node(*[leaf] * count, *consts.elts), carry, slices)}


def _first_leaf(tree: Any) -> Any:
    while hasattr(tree, "elts"):
        tree = next(part for part in tree.elts if len(part))
    return tree


def composite_body(params: Mapping[str, Any]) -> jex_core.ClosedJaxpr:
    """The decomposition in a ``composite`` equation's parameters; JAX 0.12 names it otherwise."""
    body: jex_core.ClosedJaxpr = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
    return body


def is_unspecified_sharding(sharding: Any) -> bool:
    """Whether a ``jit`` equation's sharding parameter says nothing."""
    return type(sharding).__name__ == "UnspecifiedValue"


def is_tracer(value: Any) -> bool:
    """Whether ``value`` is being traced by an enclosing JAX transformation."""
    return isinstance(value, jax.core.Tracer)


def x64_enabled() -> bool:
    """Whether 64-bit types are on in the current context."""
    return bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]


def evaluate_dimension(dimension: Any, sizes: int | Mapping[str, int]) -> int:
    """The value of a shape's dimension when its symbols stand for ``sizes``, or all of them for the same size."""
    if isinstance(dimension, int):
        return dimension
    return int(dimension._evaluate({n: sizes if isinstance(sizes, int) else sizes[n] for n in dimension._get_vars()}))


def dimension_symbols(dimension: Any) -> frozenset[str]:
    """The names of the symbols in a shape's dimension."""
    return frozenset() if isinstance(dimension, int) else frozenset(dimension._get_vars())
