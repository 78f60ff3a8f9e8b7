"""Precision policies: which operations are computed in a smaller float, and which stay as they are.

A policy is a table of `Treatment`s, one row per operation. Plugins bring rows by the name of the policy they belong to;
several may add to one, and rows under `EVERY` belong to all of them. An operation without a row is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from .backend import operation_of
from .errors import UsageError
from .node import Node
from .options import suggestion
from .plugins import Registry
from .target import Target

KIND = "precision policy"
"""How the registry calls them."""

EVERY = "every"
"""Rows under this name are part of every policy; a policy's own row for an operation goes before."""

AUTO = "auto"
"""The policy of the target's name, else of its platform, else `USUAL`."""

USUAL = "products"
"""The policy where the target has none of its own."""

Compute = Literal["small", "follow", "keep"]
"""``small``: in the small type. ``follow``: whatever moves values or picks among them, in the type that its reader
wants, since rounding before it or after it is the same. ``keep``: as it is."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An operation that a policy may put in a small type, as a check sees it.

    Attributes:
      node: the operation; its operands are still float32.
      dtype: the small type.
      target: what the program is compiled for, or None.
      runtime_casts: indices of the operands that would be rounded at each run; those of constants, of what a loop does
        not change and of what was widened from the small type cost nothing.
      sharing: for each of these, how many candidates read it: they share one cast.
    """

    node: Node
    dtype: Any
    target: Target | None = None
    runtime_casts: tuple[int, ...] = ()
    sharing: Mapping[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Treatment:
    """One row of a policy.

    Attributes:
      operation: name of a primitive, or ``composite:NAME``.
      compute: see `Compute`. A composite that is kept is not looked into; one without a row is.
      accumulate: of an operation in the small type that can add up in another (``preferred_element_type``): whether it
        does so in float32 (``wide``), or leaves that to the backend and gives a result in the small type.
      operands: indices of the operands to round; empty means all that are float32.
      between: only where it lies between others that are put in the small type: it reads, by whatever way, the result
        of one, and its own result reaches another in the same body. So the update of weights is left alone.
      check: why this one stays as it is, in a sentence, or None.
    """

    operation: str
    compute: Compute = "small"
    accumulate: Literal["wide", "small"] = "wide"
    operands: tuple[int, ...] = ()
    between: bool = False
    check: Callable[[Candidate], str | None] | None = None


class Policy(Mapping[str, Treatment]):
    """The rows of one policy, by operation.

    Args:
      name: the name under which it was found.
      rows: its rows by operation.
    """

    def __init__(self, name: str, rows: Mapping[str, Treatment]) -> None:
        self.name = name
        self._rows = dict(rows)

    def __getitem__(self, operation: str) -> Treatment:
        return self._rows[operation]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, node: Node) -> Treatment | None:
        """The row of a node, or None."""
        return self._rows.get(operation_of(node))

    @property
    def kept_composites(self) -> frozenset[str]:
        """Names of the composites that stay whole."""
        prefix = "composite:"
        return frozenset(
            name.removeprefix(prefix)
            for name, row in self._rows.items()
            if name.startswith(prefix) and row.compute == "keep"
        )


def find_policy(registry: Registry, name: str, target: Target | None = None) -> Policy:
    """The policy of that name, or with ``name="auto"`` the one for ``target``.

    Raises:
      UsageError: there is no such policy, a plugin brings something else than rows, or two plugins treat one operation
        differently.
    """
    known = set(registry.names(KIND)) - {EVERY}
    if name == AUTO:
        wanted = (target.name, target.platform, USUAL) if target is not None else (USUAL,)
        name = next(one for one in (*wanted, USUAL) if one in known or one == USUAL)
    if name not in known:
        raise UsageError(f"there is no {KIND} {name!r}", hint=suggestion(name, {*known, AUTO}))
    return Policy(name, _rows(registry, EVERY) | _rows(registry, name))


def _rows(registry: Registry, name: str) -> dict[str, Treatment]:
    rows: dict[str, Treatment] = {}
    brought_by: dict[str, str] = {}
    for claim in registry.claims(KIND, name):
        for row in claim.entry.load(f"{KIND} {name!r} of plugin {claim.plugin!r}"):
            if not isinstance(row, Treatment):
                raise UsageError(f"{KIND} {name!r} of plugin {claim.plugin!r} holds {row!r}, which is not a Treatment")
            if rows.setdefault(row.operation, row) != row:
                first = brought_by[row.operation]
                raise UsageError(
                    f"the plugins {first!r} and {claim.plugin!r} treat {row.operation!r} differently in {name!r}",
                    hint=f"leave one out with -p no:{first} or -p no:{claim.plugin}",
                )
            brought_by.setdefault(row.operation, claim.plugin)
    return rows
