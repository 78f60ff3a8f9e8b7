"""What the file shows of a program: names and element types of inputs and outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ...core.errors import UsageError
from ...core.program import Program

SIGNATURE = "serving_default"
"""The usual name of the signature, by the convention of TFLite's own tools."""


@dataclasses.dataclass(frozen=True)
class Interface:
    """The names that the file uses.

    Attributes:
      signature: of the function.
      inputs: one per flat input.
      outputs: one per flat output.
    """

    signature: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def interface_of(
    program: Program, inputs: Sequence[str] = (), outputs: Sequence[str] = (), signature: str = SIGNATURE
) -> Interface:
    """The interface of a program; names that are not given come from its structure.

    Raises:
      UsageError: too many or too few names, or one name twice.
    """
    return Interface(
        signature, _names(inputs, program.input_names, "input"), _names(outputs, program.output_names, "output")
    )


def _names(given: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    if not given:
        return tuple(known)
    if len(given) != len(known):
        raise UsageError(
            f"{len(given)} {what} names for {len(known)} {what}s", hint=f"the {what}s are: {', '.join(known)}"
        )
    if len(set(given)) != len(given):
        raise UsageError(f"two {what}s cannot have one name", hint="give every name once")
    return tuple(given)
