"""Runs an artifact where that is possible, and compares it with plain JAX."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.backend import Artifact
from ..core.errors import CompileError, MissingDependencyError, XlapassError
from ..core.instruments.numerics import difference
from ..core.manager import Instrument, PassEvent
from ..core.pass_ import NUMERICS_ORDER
from ..core.pipeline import Pipeline
from ..core.program import Program
from ..core.rewrite import Numerics


class LoosestNumerics(Instrument):
    """Records the loosest change that a pass may have made to results.

    It starts at ``reassociating``: every compiler rounds sums in an order of its own.
    """

    def __init__(self) -> None:
        self.numerics: Numerics = "reassociating"

    def begin(self, pipeline: Pipeline, program: Program) -> None:
        """Forgets the previous run."""
        self.numerics = "reassociating"

    def after(self, event: PassEvent) -> None:
        """Takes a pass that changed something into account."""
        if event.result.changed:
            self.numerics = max(self.numerics, event.numerics, key=NUMERICS_ORDER.index)


@dataclasses.dataclass(frozen=True)
class OutputError:
    """How far one output is from plain JAX.

    Attributes:
      output: its name.
      largest: the largest absolute difference; infinity where only one side is a number.
      magnitude: the largest absolute value that plain JAX gives.
      acceptable: whether the difference is within what the passes declared.
    """

    output: str
    largest: float
    magnitude: float
    acceptable: bool


@dataclasses.dataclass(frozen=True)
class Run:
    """What running the artifact showed.

    Attributes:
      obstacle: why it was not run; empty when it was.
      platform: what it ran on.
      outputs: one entry for each output.
      compile_seconds: until the first result was there.
    """

    obstacle: str = ""
    platform: str = ""
    outputs: tuple[OutputError, ...] = ()
    compile_seconds: float = 0.0

    @property
    def worst(self) -> OutputError | None:
        """The unacceptable output that is furthest off, else the one with the largest difference."""
        return max(self.outputs, key=lambda o: (not o.acceptable, o.largest), default=None)

    @property
    def acceptable(self) -> bool:
        """Whether all outputs are as near to plain JAX as the passes declared."""
        return all(o.acceptable for o in self.outputs)

    def data(self) -> dict[str, Any]:
        """The run as JSON-able data; numbers that JSON lacks are text."""
        outputs = {o.output: {"largest_difference": _json(o.largest), "magnitude": o.magnitude} for o in self.outputs}
        return {
            "obstacle": self.obstacle,
            "platform": self.platform,
            "compile_seconds": self.compile_seconds,
            "acceptable": self.acceptable,
            "outputs": outputs,
        }

    def summary(self) -> str:
        """One sentence."""
        if self.obstacle:
            return f"not run: {self.obstacle}"
        took = f"ran on {self.platform} (compiled in {self.compile_seconds:.2g} s)"
        worst = self.worst
        if worst is None:
            return f"{took}; it has no outputs"
        if worst.largest == 0:
            return f"{took}; equal to plain JAX bit for bit"
        relative = f", {worst.largest / worst.magnitude:.1e} of the largest value" if worst.magnitude > 0 else ""
        return f"{took}; largest difference from plain JAX: {worst.largest:.3g} in {worst.output!r}{relative}"


def run_and_compare(artifact: Artifact, backend: str, original: Program, platform: str, numerics: Numerics) -> Run:
    """Runs ``artifact`` and plain JAX on the example inputs of ``original``.

    Args:
      artifact: what was compiled.
      backend: name of the backend that did it.
      original: the program before any pass, with example inputs.
      platform: of the target; plain JAX runs on such a device where JAX has one.
      numerics: what the passes may have done to results.

    Raises:
      CompileError: the artifact, or plain JAX, cannot compile or run the program.
    """
    obstacle = artifact.obstacle()
    if obstacle is not None:
        return Run(obstacle)
    assert original.examples is not None
    with jax.default_device(reference_device(platform)):
        expected = _checked("plain JAX", lambda: original.evaluate_flat(original.examples))
    start = time.perf_counter()
    arguments = jax.tree_util.tree_unflatten(original.in_tree, original.examples)
    compiled = f"the program of backend {backend!r}"
    try:
        actual = _checked(compiled, lambda: jax.tree_util.tree_leaves(artifact.executable()(*arguments)))
    except MissingDependencyError as error:
        return Run(f"{error.message}; {error.hint}")
    seconds = time.perf_counter() - start
    if len(actual) != len(expected):
        raise CompileError(f"{compiled} returned {len(actual)} outputs where plain JAX returns {len(expected)}")
    triples = zip(original.output_names, expected, actual, strict=True)
    return Run("", platform, tuple(_output_error(n, want, have, numerics) for n, want, have in triples), seconds)


def _json(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)


def reference_device(platform: str) -> jax.Device:
    """JAX's device of that platform, or its CPU."""
    try:
        return jax.devices(platform)[0]
    except RuntimeError:  # not one of JAX's platforms, or not on this machine
        return jax.devices("cpu")[0]


def _checked(what: str, run: Any) -> list[Any]:
    try:
        results = list(jax.block_until_ready(run()))
        jax.effects_barrier()  # what the program prints belongs to its run
        return results
    except XlapassError:
        raise
    except (Exception, SystemExit) as error:  # compilers, and callbacks of the user's, raise what they like
        raise CompileError(f"{what} could not be compiled or run: {failure_text(error)}") from error


def failure_text(error: BaseException) -> str:
    """What an exception says; of a traceback that XLA put into its message, the last line."""
    text = f"{type(error).__name__}: {error}"
    before, heading, traceback = text.partition("Traceback (most recent call last):\n")
    return before + traceback.rstrip().rpartition("\n")[2] if heading else text


def _output_error(name: str, want: Any, have: Any, numerics: Numerics) -> OutputError:
    if jnp.issubdtype(want.dtype, jax.dtypes.prng_key):
        want, have = jax.random.key_data(want), jax.random.key_data(have)
    want, have = np.asarray(want), np.asarray(have)
    if want.shape != have.shape or want.dtype != have.dtype:
        raise CompileError(
            f"output {name!r} is {have.dtype}{list(have.shape)} where plain JAX gives {want.dtype}{list(want.shape)}"
        )
    if want.size == 0:
        return OutputError(name, 0.0, 0.0, True)
    error, allowed = difference(want, have, numerics)
    wide = np.complex128 if np.iscomplexobj(want) else np.float64
    want, have = want.astype(wide), have.astype(wide)
    same = (want == have) | (np.isnan(want) & np.isnan(have))
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(want - have))
    magnitudes = np.abs(want[np.isfinite(want)])
    largest = float(np.max(np.where(np.isnan(gaps), np.inf, gaps)))
    return OutputError(name, largest, float(magnitudes.max(initial=0.0)), error <= allowed)
