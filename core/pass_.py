"""`Pass` and its kinds. A pass is a frozen dataclass whose fields are its options."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jax.extend import core as jex_core

from . import options
from .conversion import settle
from .errors import UsageError
from .graph import Graph
from .program import Program
from .rewrite import Numerics, RewriteLog, Rule, index_of, rewrite

if TYPE_CHECKING:
    from .plugins import Registry
    from .target import Target
    from .tuning import Tuning

Level = Literal["jaxpr", "stablehlo"]

NUMERICS_ORDER: tuple[Numerics, ...] = ("exact", "reassociating", "lossy")
"""From the strictest to the loosest."""


Progress = Callable[[int, int, str], None]
"""Hears of a long run of a pass: how many parts are done, of how many, and which one comes next."""


def within(numerics: Numerics, allowed: Numerics) -> bool:
    """Whether a change of kind ``numerics`` is permitted where ``allowed`` is the loosest permitted."""
    return NUMERICS_ORDER.index(numerics) <= NUMERICS_ORDER.index(allowed)


class GraphKeeper:
    """The graph that a pass left, for the next pass over the same program: it need not be built again."""

    def __init__(self) -> None:
        self._kept: tuple[jex_core.ClosedJaxpr, Graph] | None = None

    def take(self, program: Program) -> Graph:
        """A graph of ``program``. It is the caller's: whoever raises while editing it leaves nothing behind."""
        kept, self._kept = self._kept, None
        if kept is None or kept[0] is not program.jaxpr:
            return Graph(program.jaxpr, provenance=program.provenance)
        kept[1].made_by.update(program.provenance)
        return kept[1]

    def settle(self, graph: Graph, program: Program) -> Program:
        """``program`` as edited in the graph that was taken of it, which is kept; itself where nothing was edited."""
        closed = settle(graph)
        self._kept = (closed, graph)
        if closed is program.jaxpr:
            return program
        return program.replace(jaxpr=closed, provenance=dict(graph.made_by))


@dataclasses.dataclass(frozen=True)
class PassContext:
    """What a pass may know of its surroundings.

    Attributes:
      registry: the plugins; gives contributed rules, forms and composites.
      target: what the program is compiled for, or None.
      numerics: the loosest change that the user permits.
      log: rewrite statistics of this run of this pass.
      details: facts about this run that the pass adds to the report, JSON-able. Under ``tables`` stand tables that the
        report shows: lists of rows by title, a row being a mapping from headings.
      report_progress: to be called now and then by a pass that takes long.
      graphs: the graph of the program, handed on from pass to pass.
    """

    registry: Registry
    target: Target | None = None
    numerics: Numerics = "lossy"
    log: RewriteLog = dataclasses.field(default_factory=RewriteLog)
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    report_progress: Progress = lambda done, total, what: None
    graphs: GraphKeeper = dataclasses.field(default_factory=GraphKeeper)


@dataclasses.dataclass(frozen=True)
class PassResult:
    """What a pass returns.

    Attributes:
      program: the new program; the old one when nothing changed.
      changed: whether anything changed; the manager checks the claim.
      numerics: what this run may have done to results, when that differs from the pass's declaration.
      details: further facts for the report, JSON-able.
      rounding: the float dtype to whose digits a lossy run rounded values, where it did nothing worse: verification
        then allows no more than that explains.
    """

    program: Program
    changed: bool
    numerics: Numerics | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rounding: str | None = None


@dataclasses.dataclass(frozen=True)
class Pass(abc.ABC):
    """A transformation of a program. Subclasses are frozen dataclasses; the class docstring's first line is the help.

    Class attributes:
      name: how pipelines call it, kebab-case.
      level: what it works on.
      requires: names of passes that must come earlier in the pipeline.
      numerics: what it may do to results; see `Numerics`.
      idempotent: whether running it on its own result changes nothing; then the manager need not try.
      promises: what pipelines with this pass are chosen for, as a noun such as ``"quantization"``. Where the permitted
        numerics exclude such a pass, running the pipeline is an error; any other pass is left out.
    """

    name: ClassVar[str]
    level: ClassVar[Level] = "jaxpr"
    requires: ClassVar[tuple[str, ...]] = ()
    numerics: ClassVar[Numerics] = "exact"
    idempotent: ClassVar[bool] = False
    promises: ClassVar[str] = ""

    @abc.abstractmethod
    def run(self, program: Program, context: PassContext) -> PassResult:
        """Returns the transformed program; never mutates its argument."""

    def tuned(self, tuning: Tuning) -> Pass:
        """What stands in the place of this pass when measurements shall decide; by default the pass itself."""
        return self

    def __str__(self) -> str:
        return options.to_text(self.name, self)


@dataclasses.dataclass(frozen=True)
class GraphPass(Pass):
    """A pass that edits the `Graph` of a program in place."""

    @abc.abstractmethod
    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Edits ``graph`` (and, through `Graph.walk`, its regions); returns whether anything changed."""

    def has_work(self, program: Program, context: PassContext) -> bool:
        """A quick look, before the graph is built: False only where the pass surely changes and reports nothing."""
        return True

    def run(self, program: Program, context: PassContext) -> PassResult:
        """Builds the graph, applies, and converts back."""
        if not self.has_work(program, context):
            return PassResult(program, changed=False)
        graph = context.graphs.take(program)
        changed = self.apply(graph, context)
        program = context.graphs.settle(graph, program)
        return PassResult(program, changed, self.effective_numerics(context), context.details)

    def effective_numerics(self, context: PassContext) -> Numerics:
        """What this run may have done to results."""
        return self.numerics


@dataclasses.dataclass(frozen=True)
class RewritePass(GraphPass):
    """A pass made of rules; plugins add rules to it by its name.

    Attributes:
      only: names of the rules to use; empty means all.
      skip: names of rules not to use.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    @classmethod
    @abc.abstractmethod
    def own_rules(cls) -> Sequence[Rule]:
        """The rules that come with the pass."""

    @classmethod
    def known_rules(cls, registry: Registry) -> list[Rule]:
        """Every rule there is, whatever the options: those of the pass, then those that plugins add."""
        return [*cls.own_rules(), *registry.rules_for(cls.name)]

    def regions(self, graph: Graph) -> Iterator[Graph]:
        """Where the rules are applied: everywhere, inner regions first."""
        return graph.walk()

    def rules(self, context: PassContext) -> list[Rule]:
        """The rules of this run: the known ones, minus those that options or the permitted numerics exclude."""
        known = {rule.name: rule for rule in self.known_rules(context.registry)}
        for name in (*self.only, *self.skip):
            if name not in known:
                raise UsageError(f"pass {self.name!r} has no rule {name!r}", hint=options.suggestion(name, known))
        return [
            rule
            for rule in known.values()
            if (not self.only or rule.name in self.only)
            and rule.name not in self.skip
            and within(rule.numerics, context.numerics)
        ]

    def has_work(self, program: Program, context: PassContext) -> bool:
        """Whether there are any rules."""
        return bool(self.rules(context))

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Applies the rules to every region."""
        index = index_of(tuple(self.rules(context)))
        changed = False
        for region in self.regions(graph):
            changed |= rewrite(region, index, context.log)
        return changed

    def effective_numerics(self, context: PassContext) -> Numerics:
        """The loosest of the rules that applied."""
        hit = [
            r.numerics for r in self.rules(context) if r.name in context.log.rules and context.log.rules[r.name].hits
        ]
        return max(hit, key=NUMERICS_ORDER.index, default="exact")


@dataclasses.dataclass(frozen=True)
class StableHLOPass(Pass):
    """A pass that works on the lowered program."""

    level: ClassVar[Level] = "stablehlo"

    @abc.abstractmethod
    def apply(self, exported: Any, context: PassContext) -> Any:
        """Takes and returns a `jax.export.Exported`; returns the very same object when nothing changed."""

    def run(self, program: Program, context: PassContext) -> PassResult:
        """Applies to the program's lowered form."""
        exported = self.apply(program.exported, context)
        changed = exported is not program.exported
        return PassResult(program.replace(exported=exported) if changed else program, changed)
