"""Pipelines: the textual form, and its resolution into passes.

    inline,fold-constants{max-bytes=64k},fixpoint(simplify,dead-code),phase(optimize),cpu

An item is a pass with options, a named pipeline, ``fixpoint(...)`` (repeat until nothing changes), ``group(...)``, or
``phase(name)``, the place where plugins insert passes of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from . import options
from .errors import MissingDependencyError, UsageError
from .pass_ import NUMERICS_ORDER, Level, Pass
from .plugins import Registry
from .rewrite import Numerics
from .tuning import Tuning

FIXPOINT_LIMIT = 10
"""``fixpoint`` gives up after this many rounds; the passes here settle in two or three."""

_NAME = re.compile(r"[A-Za-z_][\w.-]*")


@dataclasses.dataclass(frozen=True)
class Step:
    """One pass of a resolved pipeline, with the plugin that brought it and the phase that it stands in."""

    pass_: Pass
    plugin: str = "given"
    phase: str = ""


@dataclasses.dataclass(frozen=True)
class Fixpoint:
    """Steps that repeat until a whole round changes nothing."""

    body: tuple[Any, ...]
    limit: int = FIXPOINT_LIMIT


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A resolved pipeline: steps and fixpoints, in order. ``str()`` gives text that resolves to the same."""

    items: tuple[Step | Fixpoint, ...]

    def steps(self) -> Iterator[Step]:
        """Every step, once, in order."""
        yield from _steps(self.items)

    @property
    def numerics(self) -> Numerics:
        """The loosest change to results that its own passes declare; what plugins put into phases is not counted."""
        own = (step.pass_.numerics for step in self.steps() if not step.phase)
        return max(own, key=NUMERICS_ORDER.index, default="exact")

    def __str__(self) -> str:
        return _format(self.items)

    def without(self, names: Iterable[str]) -> Pipeline:
        """The pipeline minus the passes of these names; raises `UsageError` for one that is not in it."""
        dropped = set(names)
        _require_known(dropped, self)
        return Pipeline(_filter(self.items, lambda step: step.pass_.name not in dropped))

    def until(self, name: str) -> Pipeline:
        """The pipeline up to and including the first pass of that name."""
        _require_known({name}, self)
        kept: list[Step | Fixpoint] = []
        for item in self.items:
            kept.append(item)
            if any(step.pass_.name == name for step in _steps((item,))):
                break
        return Pipeline(tuple(kept))

    def tuned(self, tuning: Tuning) -> Pipeline:
        """The pipeline in which measurements decide, wherever a pass can measure."""
        return Pipeline(_map_steps(self.items, lambda one: one.tuned(tuning)))

    def with_option(self, field: str, value: Any) -> Pipeline:
        """The pipeline with an option set in every pass that has it; raises `UsageError` where none has."""
        if not any(hasattr(step.pass_, field) for step in self.steps()):
            raise UsageError(f"no pass of the pipeline has the option {options.option_name(field)!r}")

        def change(one: Pass) -> Pass:
            return dataclasses.replace(one, **{field: value}) if hasattr(one, field) else one

        return Pipeline(_map_steps(self.items, change))

    def validate(self) -> None:
        """Raises `UsageError` when the passes cannot run in this order."""
        seen: set[str] = set()
        lowered_by = ""
        for step in _steps(self.items, rounds=2):
            one = step.pass_
            for needed in one.requires:
                if needed not in seen:
                    raise UsageError(f"pass {one.name!r} needs {needed!r} before it", hint=f"write {needed},{one.name}")
            if one.level == "stablehlo":
                lowered_by = one.name
            elif lowered_by:
                raise UsageError(
                    f"pass {one.name!r} works on jaxprs and cannot come after {lowered_by!r}, which works on StableHLO",
                    hint=f"move {one.name} in front of {lowered_by}",
                )
            seen.add(one.name)


PipelineLike = str | Pipeline | Pass | Sequence[Pass]
"""What is accepted wherever a pipeline is wanted."""


def resolve(pipeline: PipelineLike, registry: Registry, *, name: str | None = None) -> Pipeline:
    """Turns text, passes or a pipeline into a `Pipeline` whose order has been checked.

    Args:
      pipeline: text, a `Pipeline`, one pass, or a sequence of passes.
      registry: where names are looked up.
      name: the name of the pipeline that plugins' phases refer to, when ``pipeline`` is not such a name itself.

    Raises:
      UsageError: unknown names (with a suggestion), options that do not parse, an impossible order, a pipeline that
        contains itself.
    """
    if isinstance(pipeline, Pipeline):
        resolved = pipeline
    elif isinstance(pipeline, Pass):
        resolved = Pipeline((Step(pipeline),))
    elif isinstance(pipeline, str):
        resolved = Pipeline(tuple(_Resolver(registry).resolve(pipeline, name, "")))
    else:
        for item in pipeline if isinstance(pipeline, Sequence) else [pipeline]:
            if not isinstance(item, Pass):
                raise UsageError(f"a pipeline is made of passes, and {item!r} is none")
        resolved = Pipeline(tuple(Step(p) for p in pipeline))
    resolved.validate()
    return resolved


def _class_problem(cls: type[Pass], name: str) -> str | None:
    """What is wrong with the declarations of a pass class."""
    if getattr(cls, "name", None) != name:
        return f"calls itself {getattr(cls, 'name', None)!r}; the two must agree"
    if cls.level not in typing.get_args(Level):
        return f"declares the level {cls.level!r}, which is none of {', '.join(typing.get_args(Level))}"
    if cls.numerics not in NUMERICS_ORDER:
        return f"declares the numerics {cls.numerics!r}, which is none of {', '.join(NUMERICS_ORDER)}"
    if not isinstance(cls.requires, tuple):
        return f"declares the requirements {cls.requires!r}, which is no tuple of names of passes"
    return None


@dataclasses.dataclass(frozen=True)
class _FixpointOptions:
    limit: int = FIXPOINT_LIMIT

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"the limit must be at least 1, and is {self.limit}")


class _Resolver:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.open: list[str] = []

    def resolve(self, text: str, pipeline: str | None, phase: str) -> Iterator[Step | Fixpoint]:
        for item in options.split_outside_brackets(text, ","):
            if item:
                yield from self._item(item, pipeline, phase)

    def _item(self, item: str, pipeline: str | None, phase: str) -> Iterator[Step | Fixpoint]:
        parsed = _split_item(item)
        if parsed is None:
            raise UsageError(
                f"cannot read {item!r} in a pipeline", hint="write name, name{option=value} or fixpoint(...)"
            )
        name, option_text, body = parsed
        if body is None:
            if name not in self.registry.names("pipeline"):
                yield self._pass(name, parse_options(option_text, f"pass {name!r}"), phase)
            elif option_text is None:
                yield from self._named(name, phase)
            else:
                raise UsageError(f"the pipeline {name!r} has no options; its passes have")
        elif name == "fixpoint":
            limits = options.build(_FixpointOptions, "fixpoint", parse_options(option_text, "fixpoint"))
            yield Fixpoint(tuple(self.resolve(body, pipeline, phase)), limits.limit)
        elif name not in ("group", "phase"):
            raise UsageError(
                f"{name!r} takes no passes in parentheses", hint="fixpoint(...), group(...) and phase(...) do"
            )
        elif option_text is not None:
            raise UsageError(f"{name} has no options", hint=f"write {name}({body})")
        elif name == "group":
            yield from self.resolve(body, pipeline, phase)
        else:
            yield from self._phase(body.strip(), pipeline)

    def _phase(self, phase: str, pipeline: str | None) -> Iterator[Step | Fixpoint]:
        for plugin, text in self.registry.phase(phase, pipeline):
            with self._entered(f"phase({phase})"):
                try:
                    items = tuple(self.resolve(text, pipeline, phase))
                except MissingDependencyError:
                    raise
                except UsageError as error:  # the user wrote none of it, and should know who did
                    raise UsageError(
                        f"plugin {plugin!r} puts {text!r} into the phase {phase!r}: {error.message}",
                        hint=f"leave it out with -p no:{plugin}, and tell its author",
                    ) from error
            yield from _with_plugin(items, plugin)

    def _named(self, name: str, phase: str) -> Iterator[Step | Fixpoint]:
        with self._entered(name):
            yield from self.resolve(self.registry.find("pipeline", name).entry.text, name, phase)

    @contextlib.contextmanager
    def _entered(self, what: str) -> Iterator[None]:
        if what in self.open:
            raise UsageError(f"the pipeline {what!r} contains itself: {' -> '.join([*self.open, what])}")
        self.open.append(what)
        yield
        self.open.pop()

    def _pass(self, name: str, option_texts: dict[str, str], phase: str) -> Step:
        known = self.registry.names("pass")
        if name not in known:
            every = [*known, *self.registry.names("pipeline")]
            raise UsageError(f"there is no pass or pipeline {name!r}", hint=options.suggestion(name, every))
        cls = self.registry.load("pass", name)
        plugin = self.registry.find("pass", name).plugin
        if not (isinstance(cls, type) and issubclass(cls, Pass)):
            raise UsageError(f"pass {name!r} of plugin {plugin!r} is {cls!r}, which is not a subclass of xlapass.Pass")
        if problem := _class_problem(cls, name):
            raise UsageError(f"pass {name!r} of plugin {plugin!r} {problem}")
        return Step(options.build(cls, f"pass {name!r}", option_texts), plugin, phase)


def parse_options(text: str | None, what: str) -> dict[str, str]:
    """``key=value,key=value`` as a dictionary; a bare key means ``true``."""
    result: dict[str, str] = {}
    for part in options.split_outside_brackets(text or "", ","):
        if not part:
            continue
        key, equals, value = part.partition("=")
        if key.strip() in result:
            raise UsageError(f"{what} has the option {key.strip()!r} twice")
        result[key.strip()] = value.strip() if equals else "true"
    return result


def parse_item(text: str) -> tuple[str, dict[str, str]]:
    """``name{key=value}`` as a name and its options: the grammar of backends and targets too."""
    parsed = _split_item(text.strip())
    if parsed is None or parsed[2] is not None:
        raise UsageError(f"cannot read {text!r}", hint="write name or name{option=value}")
    return parsed[0], parse_options(parsed[1], repr(parsed[0]))


def _split_item(text: str) -> tuple[str, str | None, str | None] | None:
    """Name, text of the options and text in parentheses; None when it is no item."""
    head = _NAME.match(text)
    if head is None:
        return None
    option_text, body, rest = None, None, text[head.end() :].strip()
    if rest.startswith("{"):
        option_text, rest = options.split_bracketed(rest)
    if rest.startswith("("):
        body, rest = options.split_bracketed(rest)
    return None if rest else (head[0], option_text, body)


def _steps(items: Iterable[Step | Fixpoint], rounds: int = 1) -> Iterator[Step]:
    """The steps in the order in which they run when every fixpoint goes round so many times."""
    for item in items:
        if isinstance(item, Fixpoint):
            for _ in range(rounds):
                yield from _steps(item.body, rounds)
        else:
            yield item


def _with_plugin(items: Iterable[Any], plugin: str) -> Iterator[Any]:
    """In a phase, the origin worth showing is the plugin that inserted the pass."""
    for item in items:
        if isinstance(item, Step):
            yield dataclasses.replace(item, plugin=plugin)
        else:
            yield dataclasses.replace(item, body=tuple(_with_plugin(item.body, plugin)))


def _filter(items: tuple[Any, ...], keep: Any) -> tuple[Any, ...]:
    kept: list[Any] = []
    for item in items:
        if isinstance(item, Step):
            kept.extend([item] if keep(item) else [])
        elif body := _filter(item.body, keep):
            kept.append(dataclasses.replace(item, body=body))
    return tuple(kept)


def _map_steps(items: tuple[Any, ...], change: Callable[[Pass], Pass]) -> tuple[Any, ...]:
    return tuple(
        dataclasses.replace(item, pass_=change(item.pass_))
        if isinstance(item, Step)
        else dataclasses.replace(item, body=_map_steps(item.body, change))
        for item in items
    )


def _format(items: Iterable[Any]) -> str:
    parts = []
    for item in items:
        if isinstance(item, Step):
            parts.append(str(item.pass_))
        else:
            limit = "" if item.limit == FIXPOINT_LIMIT else f"{{limit={item.limit}}}"
            parts.append(f"fixpoint{limit}({_format(item.body)})")
    return ",".join(parts)


def _require_known(names: set[str], pipeline: Pipeline) -> None:
    present = {step.pass_.name for step in pipeline.steps()}
    for name in sorted(names - present):
        raise UsageError(f"the pipeline has no pass {name!r}", hint=options.suggestion(name, present))
