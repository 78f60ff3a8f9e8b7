"""Composites: operations with a meaning of their own, such as GELU, that carry their decomposition with them.

In a program a composite is one equation of `jax.lax.composite`. A backend that has the operation takes it whole, a
`Kernel` replaces it on the platform that it was written for, and everything else opens it and runs what is inside.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex_core

from . import _compat
from .errors import UsageError
from .node import REGION_PARAMS, Node, Value
from .patterns import element_of, through_no_ops
from .plugins import Registered, Registry
from .rewrite import Match, Numerics, Rule
from .target import Target

_NAME = re.compile(r"[a-zA-Z]\w*(\.[\w$]+)+", re.ASCII)
"""What StableHLO demands of the name of a composite."""


@dataclasses.dataclass(frozen=True, eq=False)
class Composite:
    """An operation made of others. Calling it applies it: ``gelu(x, approximate=True)``.

    Attributes:
      name: ``namespace.operation``, in letters, digits and underscores; the same in the registry, in the program
        (``composite``'s parameter ``name``) and in StableHLO.
      decomposition: what it computes, in plain JAX: ``f(*operands, **attributes)``. Attributes are static: numbers,
        strings, booleans, tuples of these, NumPy arrays. It closes over no arrays.
      rules: what recognises it in programs; their replacements end in `outline`, or in a call of the composite.
      version: for backends that tell versions of an operation apart.
      by_default: whether it is looked for without being named, and without a kernel for it on the target.
    """

    name: str
    decomposition: Callable[..., Any]
    rules: tuple[Rule, ...] = ()
    version: int = 0
    by_default: bool = True

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a composite is named namespace.operation, and not {self.name!r}")

    def __call__(self, *operands: Any, **attributes: Any) -> Any:
        """Applies the composite to arrays; works eagerly and under tracing."""
        return jax.lax.composite(self.decomposition, self.name, self.version)(*operands, **attributes)

    def outline(self, match: Match, operands: Mapping[str, Any], **attributes: Any) -> Any:
        """Moves the equations that a rule matched into the body of a composite, as they are.

        So nothing is lost by recognising: opening the composite gives back the very operations that were there (and
        broadcasts in place of arrays of one number). A composite among them stays one, unless it is of the same name:
        then it grows.

        Args:
          match: the rule's match.
          operands: the arrays that the replacement was given, by pattern variable, in the order of the composite's
            operands. Together they must be all that the matched equations read besides constants.
          **attributes: what the match means in terms of the composite's attributes.

        Returns:
          The results of the matched root.
        """
        body = _outlined(match, [match[name] for name in operands], self.name)
        return jax.lax.composite(body, self.name, self.version)(*operands.values(), **attributes)


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A replacement for a composite on one platform.

    Attributes:
      function: ``f(*operands, **attributes)`` in plain JAX or Pallas, with the composite's results.
      check: given the composite's node and the target, returns why the kernel cannot take it, or None.
      numerics: how its results differ from the decomposition's.
    """

    function: Callable[..., Any]
    check: Callable[[Node, Target], str | None] | None = None
    numerics: Numerics = "reassociating"


# -- composites in programs ------------------------------------------------------------------------------------------


def attributes_of(node: Node) -> dict[str, Any]:
    """The attributes of a ``composite`` node."""
    return decode_attributes(node.params["attributes"])


def decode_attributes(encoded: tuple[Any, ...]) -> dict[str, Any]:
    """Attributes from the hashable form in which JAX keeps them among an equation's parameters."""
    return {name: tree.unflatten(map(_unwrapped, leaves)) for name, leaves, tree in encoded}


def _unwrapped(leaf: Any) -> Any:
    """JAX wraps arrays among the attributes, so that they can be hashed."""
    return leaf.val if type(leaf).__name__ == "HashableArray" else leaf


def has_composites(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a composite stands in ``jaxpr`` or in a body below it."""
    pending, seen = [jaxpr], {id(jaxpr)}
    while pending:
        for eqn in pending.pop().eqns:
            if eqn.primitive.name == "composite":
                return True
            inner = [body for body in jex_core.jaxprs_in_params(eqn.params) if id(body) not in seen]
            seen.update(map(id, inner))
            pending.extend(inner)
    return False


def used_elsewhere(match: Match) -> str | None:
    """A check: declines where something outside the match reads a value inside it, which would be computed twice."""
    inside = inner_nodes(match.root, _leaves(match))
    within = set(map(id, inside))
    for node in inside:
        if node is match.root or all(value.is_const for value in node.inputs):
            continue
        for output in node.outputs:
            if any(id(user) not in within for user in output.users):
                return f"its {node.name} is used elsewhere too"
    return None


def inner_nodes(root: Node, leaves: Iterable[Value]) -> list[Node]:
    """The nodes between ``leaves`` and ``root``, the root included, each after what it reads."""
    known = {id(through_no_ops(leaf)) for leaf in leaves}
    order: list[Node] = []
    done: set[int] = set()
    stack = [(root, False)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif id(node) not in done:
            done.add(id(node))
            stack.append((node, True))
            for value in reversed(node.inputs):
                if value.producer is not None and id(through_no_ops(value)) not in known:
                    stack.append((value.producer, False))
    return order


def _leaves(match: Match) -> list[Value]:
    return [bound for bound in match.bindings.values() if isinstance(bound, Value)]


def _outlined(match: Match, operands: Sequence[Value], grows: str) -> Callable[..., list[Any]]:
    """The matched equations as a function of ``operands`` that ignores attributes; composites ``grows`` are opened."""
    invars = [jex_core.Var(operand.aval) for operand in operands]
    atoms: dict[int, Any] = {id(through_no_ops(o)): var for o, var in zip(operands, invars, strict=True)}
    eqns: list[jex_core.JaxprEqn] = []
    for node in inner_nodes(match.root, operands):
        inputs = [_atom(value, atoms, eqns) for value in node.inputs]
        if node.name == "composite" and node.params["name"] == grows:
            results = _copied(_compat.composite_body(node.params), inputs, eqns)
        elif node.name in REGION_PARAMS and node.name != "composite":
            raise ValueError(f"a composite cannot hold the {node.name} that was matched: it has a body of its own")
        else:
            results = [jex_core.Var(output.aval) for output in node.outputs]
            eqns.append(_equation(node, inputs, results))
        atoms.update((id(output), atom) for output, atom in zip(node.outputs, results, strict=True))
    results = [atoms[id(output)] for output in match.root.outputs]
    debug_info = match.graph._jaxpr.debug_info.with_unknown_names()
    jaxpr = jex_core.Jaxpr([], invars, results, eqns, jex_core.no_effects, debug_info)
    return lambda *arrays, **_: _compat.eval_jaxpr(jaxpr, (), *arrays)


def _equation(node: Node, inputs: list[Any], outvars: list[Any]) -> jex_core.JaxprEqn:
    source_info = _compat.new_source_info()  # the composite's own name stack stands above its body
    if node.source_info is not None:
        source_info = source_info.replace(traceback=node.source_info.traceback)
    ctx = node.ctx or _compat.current_eqn_context()
    return jex_core.JaxprEqn(inputs, outvars, node.primitive, node.params, node.effects, source_info, ctx)


def _copied(closed: jex_core.ClosedJaxpr, inputs: list[Any], eqns: list[jex_core.JaxprEqn]) -> list[Any]:
    """Appends the equations of a body applied to ``inputs``; returns its results."""
    atoms: dict[Any, Any] = dict(zip(closed.jaxpr.invars, inputs, strict=True))
    for var, const in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        atoms[var] = jex_core.Literal(np.asarray(const), var.aval)

    def atom(old: Any) -> Any:
        return old if isinstance(old, jex_core.Literal) else atoms[old]

    for eqn in closed.jaxpr.eqns:
        outvars = [jex_core.Var(var.aval) for var in eqn.outvars]
        eqns.append(eqn.replace(invars=[atom(old) for old in eqn.invars], outvars=outvars))
        atoms.update(zip(eqn.outvars, outvars, strict=True))
    return [atom(old) for old in closed.jaxpr.outvars]


def _atom(value: Value, atoms: Mapping[int, Any], eqns: list[jex_core.JaxprEqn]) -> Any:
    known = atoms.get(id(value)) or atoms.get(id(through_no_ops(value)))
    if known is not None:
        return known
    if value.is_const and not value.shape:
        # As NumPy's: JAX would make an operand of its own arrays, even of one number.
        return jex_core.Literal(np.asarray(value.const), value.aval)
    number = element_of(value)
    if number is None:
        raise ValueError(f"the matched operations read {value!r}, which is not among the operands")
    # JAX would make an operand of an array that a composite closes over.
    full = jax.make_jaxpr(lambda scalar: jax.lax.broadcast(scalar, value.shape))(number)
    return _copied(full, [jex_core.Literal(number, full.jaxpr.invars[0].aval)], eqns)[0]


# -- composites in the registry --------------------------------------------------------------------------------------


def composites(registry: Registry) -> dict[str, Composite]:
    """Every composite that plugins bring, by name; raises `UsageError` for an entry that holds something else."""
    return {name: _load(registry, name, Composite) for name in registry.names("composite") if "/" not in name}


def kernel_names(registry: Registry, platform: str) -> set[str]:
    """Names of the composites for which a plugin brings a kernel on ``platform``."""
    keys = (name.partition("/") for name in registry.names("composite"))
    return {name for name, slash, where in keys if slash and where == platform}


def find_kernel(registry: Registry, name: str, platform: str) -> tuple[Kernel, Registered] | None:
    """The kernel of the composite ``name`` on ``platform``, with the plugin that brought it; None without one."""
    if name not in kernel_names(registry, platform):
        return None
    key = f"{name}/{platform}"
    kernel: Kernel = _load(registry, key, Kernel)
    return kernel, registry.find("composite", key)


def _load(registry: Registry, key: str, kind: type) -> Any:
    value = registry.load("composite", key)
    plugin = registry.find("composite", key).plugin
    if not isinstance(value, kind):
        raise UsageError(f"composite {key!r} of plugin {plugin!r} is {value!r}, which is not a {kind.__name__}")
    if isinstance(value, Composite) and value.name != key:
        raise UsageError(f"plugin {plugin!r} registers the composite {value.name!r} under the name {key!r}")
    return value
