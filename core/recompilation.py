"""Noticing that a signature keeps changing: each new one compiles anew, which costs more than it runs."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Hashable, Mapping

MANY = 8
"""Distinct signatures after which something is amiss: a handful of shapes is a normal way to work."""

SHOWN = 4
LONGEST = 60
"""Values that a message lists, and how much of each."""


class RecompilationWarning(UserWarning):
    """A function is compiled again and again, because an argument's shape, dtype or static value keeps changing."""


class SignatureWatch:
    """Counts the signatures of one function, and says once which argument keeps changing.

    Args:
      function: what to call it in the warning.
      hint: what the user can do.
    """

    def __init__(self, function: str, hint: str) -> None:
        self._function = function
        self._hint = hint
        self._seen: dict[str, dict[Hashable, None]] = {}
        self._signatures: set[Hashable] = set()
        self._warned = False

    def saw(self, signature: Mapping[str, Hashable]) -> None:
        """Records a signature that is about to be compiled: by argument, what compilation depends on."""
        if self._warned:
            return
        key = tuple(signature.items())
        if key in self._signatures:
            return
        self._signatures.add(key)
        for name, value in signature.items():
            self._seen.setdefault(name, {})[value] = None
        if len(self._signatures) >= MANY:
            self._warned = True
            warnings.warn(self._message(), RecompilationWarning, stacklevel=4)

    def _message(self) -> str:
        """Names the arguments with the most distinct values."""
        most = max(len(values) for values in self._seen.values())
        changing = [name for name, values in self._seen.items() if len(values) == most]
        first = changing[0]
        values = ", ".join(textwrap.shorten(str(value), LONGEST) for value in list(self._seen[first])[-SHOWN:])
        others = f" (and {', '.join(map(repr, changing[1:SHOWN]))})" if len(changing) > 1 else ""
        return (
            f"{self._function} was compiled {len(self._signatures)} times, because its argument {first!r}{others} "
            f"keeps changing: {values}, ...; {self._hint}"
        )
