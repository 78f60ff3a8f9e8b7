"""``--explain RULE``: where a rule applied, where it almost did, and what stopped it."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from ..core.errors import UsageError
from ..core.instruments.dump import short_place
from ..core.manager import Instrument, PassEvent
from ..core.options import suggestion
from ..core.pass_ import Pass, PassContext, RewritePass, within
from ..core.pipeline import Pipeline
from ..core.plugins import Registry
from ..core.rewrite import NearMiss, Numerics, Rule

SHOWN = 20
"""Places listed of each kind; the others are counted."""


class Explanation(Instrument):
    """Collects what a rule did in every run of every pass that has it."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.tried = False
        self.hits: collections.Counter[str] = collections.Counter()
        self.near_misses: list[NearMiss] = []

    def after(self, event: PassEvent) -> None:
        """Adds one run."""
        statistics = event.context.log.rules.get(self.rule)
        if statistics is not None:
            self.tried |= statistics.attempts > 0
            self.hits[event.step.pass_.name] += statistics.hits
        self.near_misses += [miss for miss in event.context.log.near_misses if miss.rule == self.rule]


def rules_of(one: Pass, registry: Registry) -> dict[str, Rule]:
    """The rules that a pass has, own and contributed, by name; whether it uses them is up to its options."""
    if not isinstance(one, RewritePass):
        return {}
    return {rule.name: rule for rule in one.known_rules(registry)}


def require_rule(name: str, pipeline: Pipeline, registry: Registry, numerics: Numerics) -> Rule:
    """The rule of that name in a pipeline.

    Raises:
      UsageError: no pass has it, or none uses it, with the reason.
    """
    holders = [(step.pass_, rules_of(step.pass_, registry)) for step in pipeline.steps()]
    known = {name for _, rules in holders for name in rules}
    if name not in known:
        hint = suggestion(name, known, "it has no rules")
        raise UsageError(f"no pass of this pipeline has a rule {name!r}", hint=hint)
    having = [(one, rules[name]) for one, rules in holders if name in rules]
    context = PassContext(registry, numerics=numerics)
    if not any(_uses(one, name, context) for one, _ in having):
        one, rule = having[0]
        too_loose = not within(rule.numerics, numerics)
        reason = f"it is {rule.numerics}, and --numerics={numerics}" if too_loose else "the pass's options leave it out"
        raise UsageError(f"the rule {name!r} of {one.name} is not used: {reason}")
    return having[0][1]


def _uses(one: Pass, rule: str, context: PassContext) -> bool:
    return isinstance(one, RewritePass) and any(used.name == rule for used in one.rules(context))


def explain(found: Explanation, rule: Rule) -> Iterator[str]:
    """The explanation, line by line."""
    yield f"rule {rule.name!r} ({rule.where}), {rule.numerics}"
    total = sum(found.hits.values())
    if total:
        passes = ", ".join(f"{count} in {name}" for name, count in found.hits.items() if count)
        yield f"  applied {_times(total)}: {passes}"
    elif found.tried:
        yield "  never applied"
    else:
        yield f"  never tried: the program has no {' or '.join(sorted(rule.pattern.names))}"
    declined = [miss for miss in found.near_misses if miss.matched]
    places = {(miss.operation, miss.where) for miss in declined}
    partial = [m for m in found.near_misses if not m.matched and (m.operation, m.where) not in places]
    yield from _section("  matched, and declined by its check:", declined)
    yield from _section("  matched in part:", partial)


def _section(heading: str, misses: list[NearMiss]) -> Iterator[str]:
    if not misses:
        return
    places = sorted(dict.fromkeys(misses), key=lambda miss: -miss.depth)  # an operation is visited more than once
    yield heading
    for miss in places[:SHOWN]:
        yield f"    {miss.operation} at {short_place(miss.where or 'an unknown place')}: {miss.reason}"
    if len(places) > SHOWN:
        yield f"    and {len(places) - SHOWN} more places, which matched no better"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
