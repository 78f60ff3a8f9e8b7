"""The contracts of backends: `Backend`, `Artifact`, `Executable`, and legality tables."""

from __future__ import annotations

import abc
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from . import options
from .errors import UnsupportedError, UsageError
from .graph import Graph
from .node import Node
from .program import Program
from .target import Target

ANY_DTYPE: frozenset[str] = frozenset()
"""In a legality row: every dtype is taken."""


class Executable(abc.ABC):
    """A program that is ready to run."""

    @abc.abstractmethod
    def __call__(self, *args: Any) -> Any:
        """Runs on arguments of the structure that the program was traced with; returns its result structure."""


class Description(Protocol):
    """Something to report: as data, and as what rich shows."""

    def data(self) -> dict[str, Any]:
        """JSON-able."""

    def __rich__(self) -> Any:
        """A table or text for the terminal."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What an artifact was made of, so that it can be made for other sizes.

    Attributes:
      program: before any pass.
      compile: makes an artifact of another program in the same way.
    """

    program: Program
    compile: Callable[[Program], Artifact]


class Artifact(abc.ABC):
    """What a backend makes of a program: a file's worth of bytes, with what is needed to run it.

    Attributes:
      suffix: of the files it writes.
      report: what the passes did, when the driver made the artifact.
      origin: what it was made of, when the driver made the artifact.
    """

    suffix: ClassVar[str] = ""
    report: Any = None
    origin: Origin | None = None

    @abc.abstractmethod
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the artifact, atomically; raises `UsageError` where that is not possible."""

    @abc.abstractmethod
    def executable(self, **options: Any) -> Executable:
        """Loads the artifact into its real runtime."""

    def obstacle(self) -> str | None:
        """Why the artifact cannot run on this machine, for lack of a device; None when it can."""
        return None

    def stage(self, name: str) -> str:
        """The text of a stage on the way to the artifact, such as ``stablehlo``; see `Backend.stages`."""
        raise UsageError(f"{type(self).__name__} has no stage {name!r}")

    def notes(self) -> Sequence[str]:
        """What the user should know about the artifact, for example what was not done."""
        return ()

    def description(self) -> Description | None:
        """What the artifact is made of, for reports; None where there is nothing to tell."""
        return None

    def check_for(self, place: str) -> Description:
        """What of the artifact would not run in ``place``, one of the backend's ``checks``, and why."""
        raise UsageError(f"{type(self).__name__} cannot be checked for {place!r}")


@dataclasses.dataclass(frozen=True)
class Legality:
    """One row of a legality table: an operation that a backend takes.

    Attributes:
      operation: name of a primitive, or ``composite:NAME``.
      dtypes: names of the operand dtypes taken; `ANY_DTYPE` for all.
      check: further condition on the node; returns why it is not taken, or None.
      lowering: how it is lowered, in words, for documentation.
    """

    operation: str
    dtypes: frozenset[str] = ANY_DTYPE
    check: Callable[[Node], str | None] | None = None
    lowering: str = ""

    def problem(self, node: Node) -> str | None:
        """Why the backend does not take ``node``, or None."""
        if self.dtypes:
            for value in (*node.inputs, *node.outputs):
                dtype = str(getattr(value.aval, "dtype", "token"))
                if dtype not in self.dtypes:
                    return f"dtype {dtype} is not supported"
        return self.check(node) if self.check is not None else None


def operation_of(node: Node) -> str:
    """The key of ``node`` in a legality table: the name of its primitive, or ``composite:NAME``."""
    return f"composite:{node.params['name']}" if node.name == "composite" else node.name


@dataclasses.dataclass(frozen=True)
class Illegal:
    """An operation that a backend does not take."""

    operation: str
    where: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.reason}" + (f" ({self.where})" if self.where else "")


class LegalityTable(Mapping[str, Legality]):
    """Which operations a backend takes, at which dtypes, and how each is lowered."""

    def __init__(self, rows: Iterable[Legality], opened: Iterable[str] = ()) -> None:
        self._rows = {row.operation: row for row in rows}
        self.opened = frozenset(opened)

    def __getitem__(self, operation: str) -> Legality:
        return self._rows[operation]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def problems(self, program: Program) -> list[Illegal]:
        """Every operation of ``program`` that the table does not allow, with the user's source lines.

        Operations in ``opened`` are looked into: their bodies must be legal, they themselves need no row. A composite
        that has a row is taken whole, whatever is in its body.
        """
        found = []
        graph = Graph(program.jaxpr)
        pending, seen = [graph], {id(graph)}
        while pending:
            for node in pending.pop().nodes():
                operation = operation_of(node)
                row = self._rows.get(operation)
                reason = None if row is None else row.problem(node)
                if row is None and node.name not in self.opened:
                    reason = f"{operation} is not supported"
                if reason is not None:
                    found.append(Illegal(operation, node.where, reason))
                if row is None or node.name != "composite":
                    inner = [region for region in node.regions.values() if id(region) not in seen]
                    seen.update(map(id, inner))
                    pending.extend(inner)
        return found

    def require(self, program: Program, backend: str) -> None:
        """Raises one `UnsupportedError` that lists all problems."""
        problems = self.problems(program)
        if problems:
            listing = "\n".join(f"  {problem}" for problem in dict.fromkeys(map(str, problems)))
            raise UnsupportedError(f"the {backend} backend cannot take {len(problems)} operation(s):\n{listing}")


@dataclasses.dataclass(frozen=True)
class Backend(abc.ABC):
    """Turns programs into artifacts. Subclasses are frozen dataclasses whose fields are their options.

    Class attributes:
      name: how pipelines and the command call it.
      default_target: name of the target when none is asked for.
      stages: what ``--emit`` can write, besides ``jaxpr``.
      compares: whether `emit` wants ``program.traced``, the program before any pass, to check its work against.
      checks: what ``--check-for`` can ask of an artifact; see `Artifact.check_for`.
    """

    name: ClassVar[str]
    default_target: ClassVar[str]
    stages: ClassVar[tuple[str, ...]] = ()
    compares: ClassVar[bool] = False
    checks: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def emit(self, program: Program, target: Target) -> Artifact:
        """Compiles ``program`` for ``target``.

        Raises:
          CompileError: the program cannot be compiled; `UnsupportedError` lists every operation that is not taken.
        """

    def legality(self, target: Target) -> LegalityTable | None:
        """What the backend takes for ``target``; None means whatever JAX itself can lower."""
        return None

    def __str__(self) -> str:
        return options.to_text(self.name, self)
