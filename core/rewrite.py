"""Rules and the greedy driver that applies them."""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from .errors import PassError, XlapassError
from .graph import Graph
from .node import Node, Value
from .patterns import LOOKED_THROUGH, Attempt, Bindings, Either, Op, Pattern, Var

Numerics = Literal["exact", "reassociating", "lossy"]
"""What a change may do to results: nothing (bit for bit), float rounding only, or more (precision, quantization)."""

REWRITES_PER_NODE = 64
"""A graph may be rewritten this many times per node before the driver concludes that rules undo each other."""


class Match:
    """What a pattern found: ``match["x"]`` is the `Value` (or `Node`) bound to ``x``."""

    def __init__(self, root: Node, bindings: Bindings, rule: str | None = None) -> None:
        self.root = root
        self.bindings = bindings
        self.rule = rule

    def __getitem__(self, name: str) -> Any:
        try:
            return self.bindings[name]
        except KeyError:
            bound = ", ".join(map(repr, self.bindings)) or "nothing"
            raise KeyError(f"the pattern binds {bound}, and no {name!r}") from None

    def numpy(self, name: str) -> np.ndarray[Any, Any]:
        """The constant bound to ``name``, as a NumPy array."""
        value: Value = self.bindings[name]
        return value.numpy()

    @property
    def graph(self) -> Graph:
        """The graph that holds the match."""
        assert self.root.graph is not None
        return self.root.graph

    def like(self, node: Node, *inputs: Value, **changes: Any) -> Value:
        """The first result of a new equation like ``node``, with other operands and some parameters changed."""
        params = {**node.params, **changes}
        return self.graph.emit(node.primitive, inputs, params, before=self.root, rule=self.rule)[0]

    def trace(self, fn: Callable[..., Any], *values: Value, static: tuple[Any, ...] = ()) -> Value:
        """The first result of ``fn(*arrays, *static)``, a plain JAX function that depends on nothing else."""
        return self.graph.splice(fn, *values, before=self.root, rule=self.rule, static=static)[0]


@dataclasses.dataclass(frozen=True)
class Build:
    """A replacement that is not traced: it puts new equations in place itself, with `Match.like` and `Match.trace`.

    It takes a tenth of the time, and suits rules that apply at every other equation.

    Attributes:
      fn: takes the `Match`; returns the value in place of the root's result, or a list of one for each result.
    """

    fn: Callable[[Match], Value | list[Value]]


Check = Callable[[Match], str | None]
"""Declines a match with a sentence that says why, or returns None to accept it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rule:
    """A rewrite: a pattern, a check that may decline, and a replacement in plain JAX.

    Attributes:
      name: unique in its pass, in kebab-case.
      pattern: what to look for; its root is an operation, or a choice of operations.
      replacement: a plain JAX function whose parameters are named after pattern variables (a parameter named ``match``
        gets the `Match`, for static facts), a pattern variable whose value takes the root's place, or a `Build`.
      check: see `Check`; None accepts every match.
      numerics: what the rewrite may do to results.
      where: file and line of the rule's definition.
    """

    name: str
    pattern: Op | Either
    replacement: Callable[..., Any] | Var | Build
    check: Check | None = None
    numerics: Numerics = "exact"
    where: str = dataclasses.field(default_factory=lambda: _definition_place())

    def apply(self, match: Match) -> list[Value]:
        """Builds the replacement in front of the root and returns one value per output of the root."""
        if isinstance(self.replacement, Var):
            return [match[self.replacement.name]]
        if isinstance(self.replacement, Build):
            built = self.replacement.fn(match)
            return built if isinstance(built, list) else [built]
        names, wants_match = _parameters(self.replacement)
        values = [match[name] for name in names]
        replacement = self.replacement

        def build(*arrays: Any) -> Any:
            keywords = {"match": match} if wants_match else {}
            return replacement(**dict(zip(names, arrays, strict=True)), **keywords)

        return match.graph.splice(build, *values, before=match.root, rule=self.name)


def _parameters(fn: Callable[..., Any]) -> tuple[list[str], bool]:
    names = list(inspect.signature(fn).parameters)
    return [n for n in names if n != "match"], "match" in names


def _definition_place() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in (__name__, "dataclasses"):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


@dataclasses.dataclass
class RuleStatistics:
    """What a rule did in one run.

    Attributes:
      attempts: nodes on which the pattern was tried.
      hits: rewrites made.
      seconds: time spent in pattern, check and replacement.
      declined: reasons of the check, with how often each was given.
    """

    attempts: int = 0
    hits: int = 0
    seconds: float = 0.0
    declined: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


@dataclasses.dataclass(frozen=True)
class NearMiss:
    """Where a rule almost applied: for ``--explain``.

    Attributes:
      rule: the rule's name.
      operation: primitive at the root.
      where: the user's source line, or None.
      depth: how many operations of the pattern had matched.
      reason: what did not fit, or why the check declined.
      matched: whether the whole pattern matched and only the check declined.
    """

    rule: str
    operation: str
    where: str | None
    depth: int
    reason: str
    matched: bool


@dataclasses.dataclass
class RewriteLog:
    """Statistics of one run of the driver over any number of graphs."""

    rules: dict[str, RuleStatistics] = dataclasses.field(default_factory=dict)
    near_misses: list[NearMiss] = dataclasses.field(default_factory=list)
    explain: frozenset[str] = frozenset()

    @property
    def hits(self) -> int:
        """Rewrites made by all rules together."""
        return sum(s.hits for s in self.rules.values())

    def of(self, rule: Rule) -> RuleStatistics:
        """The statistics of ``rule``, made on first use."""
        known = self.rules.get(rule.name)
        if known is None:
            known = self.rules[rule.name] = RuleStatistics()
        return known


class RuleIndex:
    """Rules by the primitive at the root of their pattern.

    Attributes:
      rules: all of them.
      depth: how many operations the deepest of their patterns has above each other.
      by_root: the rules whose root can be a primitive, by its name, each with a quick look that rules out most nodes.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self.depth = max((_depth(rule.pattern) for rule in self.rules), default=0)
        self.by_root: dict[str, list[tuple[Rule, Callable[[Node], bool]]]] = collections.defaultdict(list)
        for rule in self.rules:
            for name in rule.pattern.names:
                self.by_root[name].append((rule, rule.pattern.may_match))

    def at(self, node: Node) -> Sequence[Rule]:
        """The rules whose root can be ``node``."""
        return [rule for rule, _ in self.by_root.get(node.name, ())]


@functools.lru_cache(maxsize=32)
def index_of(rules: tuple[Rule, ...]) -> RuleIndex:
    """The index of some rules, made once: passes run several times with the same ones."""
    return RuleIndex(rules)


def _depth(pattern: Pattern) -> int:
    if isinstance(pattern, Op):
        return 1 + max(map(_depth, pattern.operands or ()), default=0)
    return max(map(_depth, pattern.choices), default=0) if isinstance(pattern, Either) else 0


def find(graph: Graph, pattern: Op | Either) -> list[Match]:
    """Every match of ``pattern`` in one graph, without rewriting; at most one per node."""
    found = []
    for node in graph.nodes():
        bindings = next(pattern.matches_node(node, {}, Attempt(), 0), None)
        if bindings is not None:
            found.append(Match(node, bindings))
    return found


def rewrite(graph: Graph, rules: RuleIndex, log: RewriteLog) -> bool:
    """Applies rules to one graph (not its regions) until none applies; returns whether anything changed.

    Nodes are visited in order; after a rewrite, the new nodes are visited again, and those after them whose patterns
    reach as far as the change.

    Raises:
      PassError: rules undo each other without end, or a rule raised or answered nonsense.
    """
    pending = collections.deque(node for node in graph.nodes() if node.name in rules.by_root)
    queued = set(map(id, pending))
    budget = REWRITES_PER_NODE * (len(pending) + 1)
    changed = False
    while pending:
        node = pending.popleft()
        queued.discard(id(node))
        if not node.alive:
            continue
        touched = _rewrite_node(graph, node, rules, log)
        if touched is None:
            continue
        changed = True
        budget -= 1
        if budget < 0:
            busiest = max(log.rules, key=lambda name: log.rules[name].hits)
            raise PassError(f"rules rewrite each other's results without end; the busiest is {busiest!r}")
        for other in touched:
            if other.alive and id(other) not in queued and other.name in rules.by_root:
                queued.add(id(other))
                pending.append(other)
    return changed


def _rewrite_node(graph: Graph, node: Node, rules: RuleIndex, log: RewriteLog) -> list[Node] | None:
    """Applies the first rule that fits; returns the nodes to visit again, or None."""
    for rule, may_match in rules.by_root.get(node.name, ()):
        statistics = log.rules.get(rule.name) or log.of(rule)
        statistics.attempts += 1
        try:
            if not may_match(node) and rule.name not in log.explain:
                continue
            start = time.perf_counter()
            match = _match(rule, node, statistics, log)
            touched = None if match is None else _replace(graph, rule, match, rules.depth)
        except Exception as error:  # whatever a stranger's rule raised is reported with the rule and its place
            detail = error.message if isinstance(error, XlapassError) else f"{type(error).__name__}: {error}"
            where = node.where
            raise PassError(
                f"rule {rule.name!r} ({rule.where}) failed on {node.name}: {detail}", where=where
            ) from error
        statistics.seconds += time.perf_counter() - start
        if touched is not None:
            statistics.hits += 1
            return touched
    return None


def _match(rule: Rule, node: Node, statistics: RuleStatistics, log: RewriteLog) -> Match | None:
    """The first way to match that the check accepts."""
    attempt = Attempt()
    for bindings in rule.pattern.matches_node(node, {}, attempt, 0):
        match = Match(node, bindings, rule.name)
        reason = rule.check(match) if rule.check is not None else None
        if reason is None:
            return match
        if not isinstance(reason, str):
            raise TypeError(f"the check answered {reason!r}, neither a reason to decline nor None")
        statistics.declined[reason] += 1
        if rule.name in log.explain:
            log.near_misses.append(NearMiss(rule.name, node.name, node.where, attempt.depth, reason, True))
    if rule.name in log.explain and attempt.reason:
        log.near_misses.append(NearMiss(rule.name, node.name, node.where, attempt.depth, attempt.reason, False))
    return None


def _replace(graph: Graph, rule: Rule, match: Match, depth: int) -> list[Node]:
    """Puts the replacement in place; returns the nodes to visit again."""
    root = match.root
    predecessor = root._prev
    values = rule.apply(match)
    if len(values) != len(root.outputs):
        raise PassError(f"the replacement returned {len(values)} values for {len(root.outputs)} results")
    touched = [*graph.nodes_between(predecessor, root), *_users(root.outputs, depth)]
    for old, new in zip(root.outputs, values, strict=True):
        graph.replace(old, new)
    graph.erase_dead(root)
    return touched


def _users(values: Sequence[Value], depth: int) -> list[Node]:
    """The nodes from which a pattern of so many operations can see ``values``, near ones first."""
    found: dict[Node, None] = {}
    level = list(values)
    for _ in range(depth):
        above: list[Value] = []
        for value in level:  # grows by what is looked through
            for user in value.users:
                if user not in found:
                    found[user] = None
                    (level if user.name in LOOKED_THROUGH else above).extend(user.outputs)
        level = above
    return list(found)
