"""The kit for people who write passes and rules: tests of a few lines that say what must hold.

    from xlapass.testing import assert_equal_results, assert_rewrites

    def test_double_negation():
        assert_rewrites("simplify", lambda x: -(-x), jnp.ones(3), expect='''
            program(a:f32[3]):
              return a
        ''')
        assert_equal_results("simplify", lambda x: -(-x), jnp.ones(3))

What is tested is called ``subject`` below: a pipeline as text, a pass, several passes, a `Rule`, or several rules. The
function is anything that `xlapass.trace` takes, followed by its example arguments; ``params``, ``dynamic`` and the like
are passed on to it. Every assertion checks the structure of what comes out, as the pass manager does in earnest, raises
`AssertionError` with what there is to see, and returns the program after the subject.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from .core.driver import as_program
from .core.errors import VerificationError
from .core.forms import loosest
from .core.instruments.numerics import Difference as Difference
from .core.instruments.numerics import NumericalVerifier
from .core.instruments.numerics import compare_programs as compare_programs
from .core.instruments.structure import StructuralVerifier
from .core.manager import Instrument, PassEvent, PassManager
from .core.pass_ import PassContext, RewritePass
from .core.pipeline import Pipeline, PipelineLike, resolve
from .core.plugins import Registry, load_registry
from .core.program import Program
from .core.rewrite import NearMiss, Rule, RuleStatistics
from .core.text import canonical_text, program_text

__all__ = [
    "Difference",
    "assert_equal_results",
    "assert_idempotent",
    "assert_rewrites",
    "assert_rule_does_not_fire",
    "assert_unchanged",
    "compare_programs",
    "program_text",
    "registry_with",
]

Subject = PipelineLike | Rule | Sequence[Rule]
"""What can be tested."""

MOST_REASONS = 10
"""So many near misses are listed when a subject did nothing."""


def assert_rewrites(
    subject: Subject, fn: Any, *args: Any, expect: str, registry: Registry | None = None, **options: Any
) -> Program:
    """Asserts that the program after the subject reads as expected, whatever its variables are called.

    Args:
      subject: what to run.
      fn, *args, **options: see `xlapass.trace`; ``fn`` may be a `Program`.
      expect: the text after, as `program_text` writes it; indentation and names of variables do not matter. Leave it
        empty at first, and copy what the failure shows once you have read it.
      registry: the plugins; see `registry_with`.

    Raises:
      AssertionError: the subject changed nothing (the message says how close its rules came), or the program after it
        reads differently (the message has the difference).
    """
    run = _Run(subject, fn, args, registry, options)
    if not run.changed:
        raise AssertionError(f"{run} did not change the program:\n{program_text(run.before)}{run.explanation()}")
    wanted, found = canonical_text(expect), canonical_text(program_text(run.after))
    if wanted != found:
        raise AssertionError(
            f"the program after {run} is not the expected one (- expected, + found):\n{_difference(wanted, found)}\n"
            f"It reads:\n{found}"
        )
    return run.after


def assert_unchanged(
    subject: Subject, fn: Any, *args: Any, registry: Registry | None = None, **options: Any
) -> Program:
    """Asserts that the subject leaves the program as it is, to the very object."""
    run = _Run(subject, fn, args, registry, options)
    if run.changed:
        raise AssertionError(f"{run} changed the program (- before, + after):\n{run.difference()}")
    return run.after


def assert_equal_results(
    subject: Subject, fn: Any, *args: Any, registry: Registry | None = None, **options: Any
) -> Program:
    """Asserts that every pass keeps the results within the numerics that it, or the rules that applied, declare.

    The programs before and after each pass run on the example arguments, on zeros, on numbers of many magnitudes and,
    for exact passes, on infinities, NaN and the extremes of integers.
    """
    return _Run(subject, fn, args, registry, options, [NumericalVerifier()]).after


def assert_idempotent(
    subject: Subject, fn: Any, *args: Any, registry: Registry | None = None, **options: Any
) -> Program:
    """Asserts that a second run of the subject changes nothing more."""
    first = _Run(subject, fn, args, registry, options)
    second = _Run(subject, first.after, (), registry, {})
    if second.changed:
        raise AssertionError(f"a second run of {first} changed the program again:\n{second.difference()}")
    return first.after


def assert_rule_does_not_fire(
    subject: Subject,
    fn: Any,
    *args: Any,
    rule: str | None = None,
    because: str | None = None,
    registry: Registry | None = None,
    **options: Any,
) -> Program:
    """Asserts that a rule does not apply, and, when wanted, for which reason.

    Args:
      subject: what to run.
      fn, *args, **options: see `xlapass.trace`.
      rule: name of the rule; by default every rule of the subject.
      because: a part of the reason that the rule's check, or its pattern, gives for declining.
      registry: the plugins.
    """
    run = _Run(subject, fn, args, registry, options)
    if rule is not None and rule not in run.rule_names:
        raise AssertionError(f"{run} has no rule {rule!r}; it has: {', '.join(run.rule_names) or 'none'}")
    fired = [name for name, statistics in run.statistics() if statistics.hits and rule in (None, name)]
    if fired:
        raise AssertionError(f"the rule {fired[0]!r} applied (- before, + after):\n{run.difference()}")
    if because is not None and not any(because in miss.reason for miss in run.near_misses(rule)):
        raise AssertionError(f"no rule declined because {because!r}{run.explanation(rule)}")
    return run.after


def registry_with(*plugins: Any) -> Registry:
    """What the installed packages bring, and ``plugins`` (modules, objects, importable names) besides.

    One of ``plugins`` that fails is an error, and so are two that bring the same name. An installed one that fails is
    left out with a warning, as it is in earnest: it may be anyone's.
    """
    load_registry(plugins, strict=True, discover=False)
    return load_registry(plugins)


class _Run:
    """One run of a subject over a program, with what its rules did."""

    def __init__(
        self,
        subject: Subject,
        fn: Any,
        args: Sequence[Any],
        registry: Registry | None,
        options: dict[str, Any],
        instruments: Sequence[Instrument] = (),
    ) -> None:
        self.registry = registry if registry is not None else registry_with()
        self.before = as_program(fn, args, **options)
        self.pipeline = _pipeline_of(subject, self.registry)
        self.rule_names = list(_rule_names(self.pipeline, self.registry))
        self._events = _Events()
        watching = [self._events, StructuralVerifier(), *instruments]
        try:
            self.after = PassManager(self.pipeline, registry=self.registry, instruments=watching).run(self.before)
        except VerificationError as error:
            raise AssertionError(f"{error}\n{self.difference()}") from error

    @property
    def changed(self) -> bool:
        return self.after.jaxpr is not self.before.jaxpr or self.after.exported is not self.before.exported

    def statistics(self) -> Iterator[tuple[str, RuleStatistics]]:
        """What each rule did in each pass."""
        for event in self._events.seen:
            yield from event.context.log.rules.items()

    def near_misses(self, rule: str | None = None) -> list[NearMiss]:
        """Where rules almost applied, those that came furthest first: from another run, which takes notes."""
        events = _Events()
        PassManager(self.pipeline, registry=self.registry, instruments=[events], explain=self.rule_names).run(
            self.before
        )
        found = [miss for event in events.seen for miss in event.context.log.near_misses]
        return sorted((m for m in found if rule in (None, m.rule)), key=lambda m: (not m.matched, -m.depth))

    def explanation(self, rule: str | None = None) -> str:
        """The nearest misses as text, or nothing."""
        reasons = dict.fromkeys(f"  {m.rule} at {m.operation}: {m.reason}" for m in self.near_misses(rule))
        return "\n".join(["\nIts rules declined:", *list(reasons)[:MOST_REASONS]]) if reasons else ""

    def difference(self) -> str:
        """Before and after every pass that ran, as a difference."""
        after = self._events.seen[-1].result.program if self._events.seen else self.before
        return _difference(canonical_text(program_text(self.before)), canonical_text(program_text(after)))

    def __str__(self) -> str:
        return repr(str(self.pipeline))


class _Events(Instrument):
    """Keeps every event."""

    def __init__(self) -> None:
        self.seen: list[PassEvent] = []

    def after(self, event: PassEvent) -> None:
        """Keeps it."""
        self.seen.append(event)


def _pipeline_of(subject: Subject, registry: Registry) -> Pipeline:
    if isinstance(subject, Rule):
        return resolve(_pass_of([subject]), registry)
    if not isinstance(subject, str | Pipeline) and isinstance(subject, Sequence):
        rules = [item for item in subject if isinstance(item, Rule)]
        if rules and len(rules) == len(subject):
            return resolve(_pass_of(rules), registry)
    return resolve(subject, registry)  # type: ignore[arg-type]  # rules are dealt with; resolve() rejects a mixture


def _pass_of(rules: Sequence[Rule]) -> RewritePass:
    """A pass made of just these rules."""

    class Rules(RewritePass):
        """Rules under test."""

        name = "rules"
        numerics = loosest(rule.numerics for rule in rules)

        @classmethod
        def own_rules(cls) -> Sequence[Rule]:
            """The rules given."""
            return rules

    return Rules()


def _rule_names(pipeline: Pipeline, registry: Registry) -> Iterator[str]:
    for step in pipeline.steps():
        if isinstance(step.pass_, RewritePass):
            yield from (rule.name for rule in step.pass_.rules(PassContext(registry)))


def _difference(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3)
    return "\n".join(list(lines)[2:])
