"""`lower-composites`: give every composite what the target has for it."""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import Any, ClassVar

from ..core import _compat
from ..core.composites import Kernel, decode_attributes, find_kernel, has_composites
from ..core.errors import PassError, XlapassError
from ..core.forms import loosest
from ..core.graph import Graph
from ..core.node import Node
from ..core.pass_ import GraphPass, PassContext, within
from ..core.plugins import Registered
from ..core.program import Program
from ..core.rewrite import Numerics


@dataclasses.dataclass(frozen=True)
class LowerComposites(GraphPass):
    """Replaces composites by a plugin's kernel for the target, or by their decomposition.

    Attributes:
      keep: names of composites that are left whole, because the backend has them; ``tflite.*`` means all whose names
        begin so.
    """

    name: ClassVar[str] = "lower-composites"

    keep: tuple[str, ...] = ()

    def has_work(self, program: Program, context: PassContext) -> bool:
        """Whether there is a composite."""
        return has_composites(program.jaxpr.jaxpr)

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Goes from the outside in: what a kernel replaces is not looked into."""
        lowering = _Lowering(self.keep, context)
        pending, seen, changed = [graph], {id(graph)}, False
        while pending:
            region = pending.pop()
            changed |= lowering.lower(region)
            for node in region.nodes():
                inner = [r for r in node.regions.values() if id(r) not in seen]
                seen.update(map(id, inner))
                pending.extend(inner)
        return changed

    def effective_numerics(self, context: PassContext) -> Numerics:
        """The loosest of the kernels that were used; opening is exact."""
        return loosest(context.details.get("numerics", ()))


class _Lowering:
    """One run of the pass; fills ``context.details``."""

    def __init__(self, keep: tuple[str, ...], context: PassContext) -> None:
        self.keep = keep
        self.context = context
        self.found: dict[str, tuple[Kernel, Registered] | None] = {}

    def lower(self, region: Graph) -> bool:
        """Lowers every composite of one region; returns whether there was one to lower."""
        changed = False
        pending = [(node, True) for node in region.nodes() if node.name == "composite"]
        while pending:
            node, may_use_kernel = pending.pop()
            if any(fnmatch.fnmatchcase(node.params["name"], name) for name in self.keep):
                self._count("kept", node)
            elif _compat.composite_body(node.params).effects:
                self._count("kept for its effects", node)  # JAX hides them; opened, the program's type would change
            else:
                kernel = self._kernel(node) if may_use_kernel else None
                new = self._open(region, node) if kernel is None else self._replace(region, node, *kernel)
                # A kernel that is made of composites again is not replaced once more: it could be by itself.
                pending.extend((n, may_use_kernel and kernel is None) for n in new if n.name == "composite")
                changed = True
        return changed

    def _kernel(self, node: Node) -> tuple[Kernel, Registered] | None:
        target, name = self.context.target, node.params["name"]
        if target is None:
            return None
        if name not in self.found:
            self.found[name] = find_kernel(self.context.registry, name, target.platform)
        found = self.found[name]
        if found is None:
            return None
        kernel, _ = found
        if not within(kernel.numerics, self.context.numerics):
            reason: str | None = f"it is {kernel.numerics}, and only {self.context.numerics} changes are permitted"
        else:
            reason = kernel.check(node, target) if kernel.check is not None else None
        if reason is not None:
            declined = self.context.details.setdefault("declined", {}).setdefault(name, {})
            declined[reason] = declined.get(reason, 0) + 1
            return None
        return found

    def _open(self, region: Graph, node: Node) -> list[Node]:
        self._count("opened", node)
        return region.inline(node, node.body)

    def _replace(self, region: Graph, node: Node, kernel: Kernel, registered: Registered) -> list[Node]:
        self._count(f"kernel of {registered.plugin}", node)
        numerics = self.context.details.setdefault("numerics", [])
        if kernel.numerics not in numerics:
            numerics.append(kernel.numerics)
        before = node._prev
        static = (kernel.function, node.params["attributes"])
        try:
            results = region.splice(_call, *node.inputs, before=node, rule=registered.name, static=static)
            if len(results) != len(node.outputs):
                raise PassError(f"it returned {len(results)} results, and the composite has {len(node.outputs)}")
            new = region.nodes_between(before, node)
            for old, result in zip(node.outputs, results, strict=True):
                region.replace(old, result)
        except Exception as error:  # a stranger's kernel may raise anything; say whose it is
            detail = error.message if isinstance(error, XlapassError) else f"{type(error).__name__}: {error}"
            raise PassError(
                f"the kernel {registered.name!r} (plugin {registered.plugin!r}) failed: {detail}", where=node.where
            ) from error
        region.erase(node)
        return new

    def _count(self, what: str, node: Node) -> None:
        counts: dict[str, int] = self.context.details.setdefault(what, {})
        counts[node.params["name"]] = counts.get(node.params["name"], 0) + 1


def _call(*operands_and_static: Any) -> Any:
    """A kernel applied to operands; its function and the encoded attributes come last."""
    *operands, function, attributes = operands_and_static
    return function(*operands, **decode_attributes(attributes))
