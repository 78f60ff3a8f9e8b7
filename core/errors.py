"""The exceptions that xlapass raises on purpose: each says what happened, where in the user's code, and what to do."""

from __future__ import annotations


class XlapassError(Exception):
    """Base of every deliberate error.

    Args:
      message: what happened, one sentence.
      where: the place in the user's code, usually ``"file.py:12 (function)"``.
      hint: what the reader can do about it.
    """

    exit_status = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message]
        if self.where:
            lines.append(f"  at {self.where}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class CompileError(XlapassError):
    """The model could not be compiled."""


class UsageError(XlapassError):
    """xlapass was called wrongly: unknown names, bad options, bad files."""

    exit_status = 2


class UnsupportedError(CompileError):
    """The program holds something that this stage or backend cannot represent."""


class UserCodeError(CompileError):
    """The user's own code raised; ``__cause__`` is what it raised."""


class PassError(CompileError):
    """A pass raised, or returned nonsense; names the pass and the plugin that brought it."""


class VerificationError(PassError):
    """A pass broke the program: invalid IR, changed types or effects, or values beyond its declared numerics."""


class MissingDependencyError(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str, missing: str) -> None:
        super().__init__(f"{feature} needs the package {missing!r}", hint=f"pip install xlapass[{extra}]")
        self.extra = extra
