"""Numerical verification: does a pass keep the program's results, within what it declares?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from ..errors import VerificationError
from ..manager import Instrument, PassEvent
from ..program import Program
from ..rewrite import Numerics
from .evaluation import UNFUSED as UNFUSED
from .evaluation import Evaluation, Evaluator, evaluator
from .inputs import verification_inputs
from .locate import locate_difference

REASSOCIATING_TOLERANCE: Mapping[str, float] = {
    "float64": 1e-12,
    "float32": 5e-5,
    "float16": 2e-2,
    "bfloat16": 1e-1,
    "complex64": 5e-5,
    "complex128": 1e-12,
}
"""Largest difference after a reassociating pass, relative to the largest magnitude of the output: several hundred
roundings of the dtype, which is what networks of a hundred layers show."""

LOSSY_TOLERANCE = 0.1
"""Largest relative L2 difference after a lossy pass: a wrong scale or layout exceeds it, 8-bit weights do not."""

ROUNDINGS = 8
"""Where a lossy pass says to which dtype it rounded, the largest relative L2 difference is so many units in the last
place of that: networks of fifty layers show one."""

SENSITIVITY_MARGIN = 2
"""Roundings inside a program may move results this many times as far as roundings of its inputs and constants."""

INTEGER_DISAGREEMENT = 0.01
"""Fraction of integer outputs that may differ when floats were rounded differently: argmax of near ties."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Two programs that should agree and do not.

    Attributes:
      output: name of the first output that differs.
      inputs: which inputs show it.
      error: largest absolute difference (NaN against a number counts as infinite).
      allowed: what the numerics permits.
      flat_inputs: the inputs themselves.
    """

    output: str
    inputs: str
    error: float
    allowed: float
    flat_inputs: Sequence[Any]

    def __str__(self) -> str:
        return f"output {self.output!r} differs by {self.error:.3g} on {self.inputs} (allowed: {self.allowed:.3g})"


def compare_programs(
    before: Program, after: Program, numerics: Numerics, *, seed: int = 0, rounding: str | None = None
) -> Difference | None:
    """Runs both programs on example and adversarial inputs; returns the first difference beyond ``numerics``.

    Programs whose effects reach outside (printing, callbacks) are compared too, so their effects happen.

    Args:
      before, after: the programs.
      numerics: what ``after`` may do to results.
      seed: of random inputs.
      rounding: of a lossy change that only rounds, the float dtype to which it does.
    """
    return _compare(Evaluation(before), Evaluation(after), numerics, seed, rounding)


def _compare(
    before: Evaluation, after: Evaluation, numerics: Numerics, seed: int = 0, rounding: str | None = None
) -> Difference | None:
    """The strictest comparison that XLA is up to; see `UNSIMPLIFIED`."""
    programs, runs = (before.program, after.program), (before.simplified, after.simplified)
    if numerics != "exact" or before.unsimplified is None or after.unsimplified is None:
        return _first_difference(programs, runs, numerics, seed, rounding)
    found = _first_difference(programs, (before.unsimplified, after.unsimplified), numerics, seed, rounding)
    if found is None:
        return None
    flat = before.program.as_traced(found.flat_inputs)
    if _agrees_with_itself(before, found.flat_inputs) and _agrees_with_itself(after, after.program.as_converted(flat)):
        return found
    return _first_difference(programs, runs, numerics, seed, rounding)


def _agrees_with_itself(evaluation: Evaluation, flat: Sequence[Any]) -> bool:
    """Whether XLA's simplifier changes no more than roundings, as it should."""
    assert evaluation.unsimplified is not None
    pairs = zip(evaluation.simplified(flat), evaluation.unsimplified(flat), strict=True)
    return not any(_differs(a, b, "reassociating") for a, b in pairs)


def _first_difference(
    programs: tuple[Program, Program],
    runs: tuple[Evaluator, Evaluator],
    numerics: Numerics,
    seed: int,
    rounding: str | None,
) -> Difference | None:
    (before, after), (run_before, run_after) = programs, runs
    for name, flat in verification_inputs(before, special=numerics == "exact", seed=seed):
        expected = before.as_traced(run_before(flat), outputs=True)
        actual = after.as_traced(run_after(after.as_converted(before.as_traced(flat))), outputs=True)
        for output, want, have in zip(before.output_names, expected, actual, strict=True):
            error, allowed = difference(want, have, numerics, rounding)
            if error > allowed and (numerics == "reassociating" or rounding is not None):
                index = before.output_names.index(output)
                allowed = max(allowed, _sensitivity(before, flat, expected, index, rounding))
            if error > allowed:
                return Difference(output, name, error, allowed, flat)
    return None


def _sensitivity(
    program: Program, flat: Sequence[Any], expected: Sequence[Any], output: int, rounding: str | None
) -> float:
    """How far an output moves when all inputs and constants move by as much as a pass may round.

    Where large numbers cancel (the variance of a constant row, say), roundings show that are large beside the result,
    and no fault of the pass: a backward stable algorithm is as good as exact results for inputs that are a little off.
    """
    moved, values = nudged(program, flat, rounding)
    results = moved.as_traced(evaluator(moved)(values), outputs=True)
    want, have = expected[output], results[output]
    if rounding is not None:
        return SENSITIVITY_MARGIN * difference(want, have, "lossy")[0]
    if not jnp.issubdtype(want.dtype, jnp.inexact):
        return 0.0
    wide = np.complex128 if jnp.issubdtype(want.dtype, jnp.complexfloating) else np.float64
    gaps = np.abs(np.asarray(want).astype(wide) - np.asarray(have).astype(wide))
    return float(np.max(gaps[np.isfinite(gaps)], initial=0.0))


def nudged(
    program: Program, flat: Sequence[Any], rounding: str | None = None, times: float = 1.0
) -> tuple[Program, list[Any]]:
    """A program and its flat inputs, all floats and constants moved as far as a reassociating pass may round.

    Args:
      program: at the jaxpr level.
      flat: its inputs.
      rounding: the float dtype whose rounding is meant instead.
      times: so many times as far.
    """
    rng = np.random.default_rng(0)
    consts = [_nudged(const, rng, rounding, times) for const in program.consts]
    moved = program.replace(jaxpr=jex_core.ClosedJaxpr(program.jaxpr.jaxpr, consts))
    return moved, [_nudged(value, rng, rounding, times) for value in flat]


def _nudged(value: Any, rng: np.random.Generator, rounding: str | None, times: float) -> Any:
    """``value`` with every float moved by its `REASSOCIATING_TOLERANCE`, relative to itself, or as rounding does."""
    tolerance = REASSOCIATING_TOLERANCE.get(str(value.dtype))
    if tolerance is not None and rounding is not None:
        tolerance = float(jnp.finfo(rounding).eps)
    if tolerance is None:
        return value
    array = np.asarray(value)
    factors = 1 + times * tolerance * rng.uniform(-1, 1, array.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        return (array * factors).astype(array.dtype)


def difference(want: Any, have: Any, numerics: Numerics, rounding: str | None = None) -> tuple[float, float]:
    """``(error, allowed)`` of one output; an error of infinity where NaN or infinity stand in different places."""
    if jnp.issubdtype(want.dtype, jax.dtypes.prng_key):
        want, have = jax.random.key_data(want), jax.random.key_data(have)
    want, have = np.asarray(want), np.asarray(have)
    if want.size == 0:
        return 0.0, 0.0
    if want.dtype == np.bool_ or jnp.issubdtype(want.dtype, jnp.integer):
        disagreement = float(np.mean(want != have))
        return disagreement, 0.0 if numerics == "exact" else INTEGER_DISAGREEMENT
    tolerance = REASSOCIATING_TOLERANCE.get(str(want.dtype), LOSSY_TOLERANCE)
    wide = np.complex128 if np.iscomplexobj(want) else np.float64
    want, have = want.astype(wide), have.astype(wide)
    if numerics == "exact":
        return _exact_difference(want, have), 0.0
    finite = np.isfinite(want)
    if not np.array_equal(finite, np.isfinite(have)) or np.any((want == -have) & ~finite):
        return float("inf"), tolerance
    want, have = want[finite], have[finite]
    if want.size == 0:
        return 0.0, tolerance
    if numerics == "lossy":
        relative = LOSSY_TOLERANCE if rounding is None else ROUNDINGS * float(jnp.finfo(rounding).eps)
        return float(np.linalg.norm(want - have)), relative * float(np.linalg.norm(want)) + 1e-6
    return float(np.max(np.abs(want - have))), tolerance * max(float(np.max(np.abs(want))), 1e-30)


def _exact_difference(want: np.ndarray[Any, Any], have: np.ndarray[Any, Any]) -> float:
    """0 when equal bit for bit; NaNs are equal, zeros of different sign are not."""
    if np.iscomplexobj(want):
        return max(_exact_difference(want.real, have.real), _exact_difference(want.imag, have.imag))
    same = (want == have) | (np.isnan(want) & np.isnan(have))
    if not same.all():
        with np.errstate(invalid="ignore"):
            gaps = np.abs(want - have)[~same]
        return float(np.max(np.where(np.isnan(gaps), np.inf, gaps)))
    zeros = want == 0
    if np.any(np.signbit(want[zeros]) != np.signbit(have[zeros])):
        return float(np.finfo(np.float32).tiny)
    return 0.0


class NumericalVerifier(Instrument):
    """Runs the program before and after every pass and compares; names the pass, the operation and the user's line."""

    def __init__(self) -> None:
        self._last: Evaluation | None = None  # what one pass makes is what the next one gets

    def after(self, event: PassEvent) -> None:
        """Raises `VerificationError` when results differ beyond the pass's numerics."""
        if not event.result.changed:
            return
        before, after = event.before, event.result.program
        evaluation = Evaluation(after)
        rounding = event.result.rounding if event.numerics == "lossy" else None
        found = _compare(self._evaluation_of(before), evaluation, event.numerics, rounding=rounding)
        self._last = evaluation
        if found is None:
            return
        place = locate_difference(
            before, after, found.flat_inputs, lambda a, b: _differs(a, b, event.numerics, rounding)
        )
        step = event.step
        hits = [name for name, statistics in event.context.log.rules.items() if statistics.hits]
        culprit = f"; {place}" if place is not None else f"; rules that applied: {', '.join(hits)}" if hits else ""
        raise VerificationError(
            f"pass {step.pass_.name!r} (plugin {step.plugin!r}) changed results beyond its declared "
            f"{event.numerics!r} numerics: {found}{culprit}",
            where=place.where if place is not None else None,
            hint=f"leave it out with --skip {step.pass_.name}, and tell its author",
        )

    def _evaluation_of(self, program: Program) -> Evaluation:
        last = self._last
        if last and last.program.jaxpr is program.jaxpr and last.program.exported is program.exported:
            return last
        return Evaluation(program)


def _differs(want: Any, have: Any, numerics: Numerics, rounding: str | None = None) -> bool:
    error, allowed = difference(want, have, numerics, rounding)
    return error > allowed
