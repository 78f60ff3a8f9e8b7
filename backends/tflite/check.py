"""Running a file before it is written, and comparing what it gives with what JAX gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from ...core.instruments.inputs import has_unbounded_loop, random_inputs
from ...core.instruments.numerics import difference
from ...core.instruments.rounding import is_rounding, moved_by_rounding
from ...core.program import Program
from ...core.rewrite import Numerics
from ...core.specialize import sizes_of, specialize, symbols
from .choices import other_choices
from .edges import from_edge, to_edge
from .interface import Interface
from .process import Worker
from .quantize import is_quantized
from .worker.serve import MODEL

_Run = Callable[[Sequence[Any]], list[Any]]
"""Flat inputs to flat outputs."""

SLACK = 20.0
"""How much further than two XLA programs a file may be from JAX: LiteRT's kernels approximate exp, tanh and others."""

NEGLIGIBLE = 1e-6
"""An absolute difference that is never held against a file: sums that cancel to nothing."""


UNFUSED = {"xla_disable_hlo_passes": "fusion,cpu-instruction-fusion"}
"""XLA options for the legal program: its random keys are long chains of integer arithmetic; what the XLA of JAX 0.12
makes of them by fusion takes it hours to compile."""

DRAWN = "drawn inputs"
NEAR = "inputs near the examples"
"""Names of sets of inputs."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far the file's outputs are from JAX's.

    Attributes:
      inputs: the sets of inputs that were compared.
      largest: the largest absolute difference, apart from what rounding explains.
      output: name of the output that shows it.
      rounded: a set of inputs on which outputs differ further, as far as roundings alone move JAX's own; or nothing.
    """

    inputs: tuple[str, ...]
    largest: float = 0.0
    output: str = ""
    rounded: str = ""

    def __str__(self) -> str:
        where = f" in {self.output!r}" if self.output else ""
        but = f"; on {self.rounded} no further than roundings move JAX's own results" if self.rounded else ""
        agrees = f"LiteRT agrees with JAX on {' and '.join(self.inputs)}"
        return f"{agrees}: largest difference {self.largest:.3g}{where}{but}"


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """An output that is not what JAX computes.

    Attributes:
      output: its name.
      inputs: which inputs show it.
      what: the difference, in words.
    """

    output: str
    inputs: str
    what: str

    def __str__(self) -> str:
        return f"the output {self.output!r} is not what JAX computes on the {self.inputs}: {self.what}"


def input_sets(program: Program) -> list[tuple[str, list[Any]]]:
    """The inputs to compare on: the examples, drawn ones, of other sizes where sizes are dynamic, and other choices.

    Nothing is drawn for a program with a loop that might not end on it.
    """
    if program.examples is None:
        return [("random inputs", random_inputs(program))]
    pairs = zip(program.examples, program.in_avals, strict=True)
    examples = [value if hasattr(value, "dtype") else np.asarray(value, aval.dtype) for value, aval in pairs]
    sets: list[tuple[str, list[Any]]] = [("example inputs", list(program.examples))]
    if examples and not has_unbounded_loop(program.jaxpr.jaxpr):
        shapes = _other_shapes(program) or [np.shape(value) for value in examples]
        rng = np.random.default_rng(1)
        drawn = [_drawn(value, shape, rng) for value, shape in zip(examples, shapes, strict=True)]
        sets.append((DRAWN, drawn))
        sets.extend(other_choices(program, program.examples))
    return sets


def _other_shapes(program: Program) -> list[tuple[int, ...]] | None:
    """The inputs' shapes with every symbol one larger than in the examples; None where that is not possible."""
    if not program.is_symbolic or program.examples is None:
        return None
    sizes = {name: size + 1 for name, size in sizes_of(program, program.examples).items()}
    if sorted(sizes) != sorted(symbols(program)):
        return None
    try:
        return [tuple(aval.shape) for aval in specialize(program, sizes).in_avals]
    except ValueError:  # a constraint of the symbols
        return None


def _drawn(value: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Normal random numbers in the place of floats; of other values, which may be indices or keys, those that occur."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value if value.shape == shape else jnp.broadcast_to(value[:1], shape)
    array = np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return rng.choice(array.reshape(-1), shape) if array.size else np.zeros(shape, array.dtype)
    numbers = rng.standard_normal(shape)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        numbers = numbers + 1j * rng.standard_normal(shape)
    return np.asarray(numbers).astype(array.dtype)


def compare(program: Program, interface: Interface, model: bytes, worker: Worker) -> Agreement | Disagreement:
    """Runs a file and JAX on the same inputs.

    The file is held against what the passes made of the program, strictly, and against the program before any pass, as
    loosely as the passes declare. Where roundings alone move JAX's own results as far (a training step, where they turn
    ReLUs on and off), a difference is none of the file's; drawn inputs then say little, and those near the examples
    are compared, too.

    Args:
      program: after the passes.
      interface: the names in the file.
      model: the file.
      worker: where the file is run, for a wrong file can end the process that runs it.

    Raises:
      WorkerFailure: LiteRT does not load or run the file.
    """
    rounds = is_quantized(program.jaxpr.jaxpr)  # a number on the other side of a half differs by a whole step
    references: list[tuple[Program, Numerics]] = [(program, "lossy" if rounds else "reassociating")]
    if program.traced is not None:
        lossy = program.numerics == "lossy"
        references = [*references, (program.traced, "lossy")] if lossy else [(program.traced, "reassociating")]
    worst = Agreement(())
    sets, legal = input_sets(program), _unfused(program)
    for inputs, flat in sets:  # which may become more
        have = program.as_traced(run_file(program, interface, model, flat, worker), outputs=True)
        for reference, numerics in references:
            run = legal if reference is program else reference.evaluate_flat
            verdict = _verdict(reference, _for(reference, program, flat), have, numerics, run)
            if verdict.problem:
                return Disagreement(interface.outputs[verdict.output], inputs, verdict.problem)
            if verdict.largest > worst.largest:
                output = interface.outputs[verdict.output]
                worst = dataclasses.replace(worst, largest=verdict.largest, output=output)
            if verdict.rounded:
                worst = dataclasses.replace(worst, rounded=inputs)
        if worst.rounded == inputs == DRAWN and program.examples is not None:
            sets.append((NEAR, _near(program.examples, flat)))
    return dataclasses.replace(worst, inputs=tuple(name for name, _ in sets))


def _near(examples: Sequence[Any], flat: Sequence[Any]) -> list[Any]:
    """Inputs of the shapes of ``flat``: floats of the examples moved by a tenth, whatever else of ``flat``."""
    rng = np.random.default_rng(2)

    def near(example: Any, value: Any) -> Any:
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            return value
        moved = np.resize(np.asarray(example), value.shape) * (1 + 0.1 * rng.standard_normal(value.shape))
        return moved.astype(value.dtype)

    return [near(example, value) for example, value in zip(examples, flat, strict=True)]


@dataclasses.dataclass(frozen=True)
class _Verdict:
    """What a comparison with one program shows.

    Attributes:
      problem: what is wrong, or nothing.
      output: the number of the output that is wrong, or that differs most.
      largest: how far it differs.
      rounded: whether other outputs differ further, as roundings explain.
    """

    problem: str = ""
    output: int = 0
    largest: float = 0.0
    rounded: bool = False


def _verdict(reference: Program, flat: Sequence[Any], have: Sequence[Any], numerics: Numerics, run: _Run) -> _Verdict:
    """Compares a file's outputs with those of ``reference``, which ``run`` runs, on inputs of it."""
    want = reference.as_traced(run(flat), outputs=True)
    moved: list[Any] | None = None
    worst = _Verdict()
    for number, (a, b) in enumerate(zip(want, have, strict=True)):
        problem, largest = _difference(a, b, numerics, reference)
        if problem and a.shape == b.shape and jnp.issubdtype(a.dtype, jnp.inexact):
            moved = _moved(reference, flat, want) if moved is None else moved
            if moved and is_rounding(*(np.asarray(x) for x in (a, b, moved[number]))):
                worst = dataclasses.replace(worst, rounded=True)
                continue
        if problem:
            return _Verdict(problem, number)
        if largest > worst.largest:
            worst = dataclasses.replace(worst, output=number, largest=largest)
    return worst


def _unfused(program: Program) -> _Run:
    """Runs a program with `UNFUSED`; compiles it once for every size of its inputs."""
    compiled: dict[tuple[Any, ...], Callable[..., list[Any]]] = {}

    def run(flat: Sequence[Any]) -> list[Any]:
        shapes = tuple(np.shape(value) for value in flat)
        if shapes not in compiled:
            compiled[shapes] = program.compile_flat(flat, UNFUSED)
        return compiled[shapes](*flat)

    return run


def _moved(reference: Program, flat: Sequence[Any], want: Sequence[Any]) -> list[Any]:
    """What a program gives when all that it reads is moved as a file may round; nothing where that shows nowhere."""

    def differs(a: Any, b: Any) -> bool:
        return bool(_difference(a, b, "reassociating", reference)[0])

    return moved_by_rounding(reference, flat, want, differs, SLACK)


def _for(reference: Program, program: Program, flat: Sequence[Any]) -> list[Any]:
    """Inputs of ``program`` in the layout that ``reference`` takes."""
    return reference.as_converted(program.as_traced(flat))


def run_file(program: Program, interface: Interface, model: bytes, flat: Sequence[Any], worker: Worker) -> list[Any]:
    """What a file gives for flat inputs of ``program``, run by ``worker``.

    Raises:
      WorkerFailure: LiteRT does not load or run the file.
    """

    def prepare(folder: Path) -> None:
        (folder / MODEL).write_bytes(model)
        for number, (value, aval) in enumerate(zip(flat, program.in_avals, strict=True)):
            np.save(folder / f"{number}.npy", to_edge(value, aval))

    def collect(folder: Path, reply: Mapping[str, Any]) -> list[Any]:
        arrays = [np.load(folder / f"output-{number}.npy") for number in range(reply["outputs"])]
        return [from_edge(array, aval) for array, aval in zip(arrays, program.out_avals, strict=True)]

    request = {
        "job": "interpret",
        "signature": interface.signature,
        "inputs": interface.inputs,
        "outputs": interface.outputs,
        "threads": 1,
    }
    return worker.call(request, prepare, collect)


def _difference(want: Any, have: Any, numerics: Numerics, reference: Program) -> tuple[str, float]:
    """What is wrong with an output, or nothing, and its largest difference."""
    if want.shape != have.shape or want.dtype != have.dtype:
        return f"{have.dtype}{list(have.shape)} where JAX gives {want.dtype}{list(want.shape)}", 0.0
    want, have = _at_precision(want, have, reference)
    error, allowed = difference(want, have, numerics)
    if jnp.issubdtype(want.dtype, jnp.floating) and np.any(np.isnan(want) != np.isnan(have)):
        error = np.inf  # passes may make NaN of an infinity; of a file that is a surprise
    if error <= max(SLACK * allowed, NEGLIGIBLE):
        return "", error
    if np.isinf(error):
        return "infinities or NaN stand in other places", error
    if not jnp.issubdtype(want.dtype, jnp.inexact):
        return f"{100 * error:.3g} % of the numbers differ", error
    return f"it is off by {error:.3g}, where its largest value is {_magnitude(want):.3g}", error


def _at_precision(want: Any, have: Any, reference: Program) -> tuple[Any, Any]:
    """Both in the narrowest float type that JAX or the file computes in, if the output is of floats."""
    if not jnp.issubdtype(want.dtype, jnp.floating):
        return want, have
    narrowest = min((*_float_types(reference), np.dtype(np.float32)), key=lambda dtype: jnp.finfo(dtype).nmant)
    with np.errstate(over="ignore"):
        return np.asarray(want).astype(narrowest), np.asarray(have).astype(narrowest)


def _float_types(program: Program) -> set[Any]:
    found: set[Any] = set()
    pending = [program.jaxpr.jaxpr]
    while pending:
        jaxpr = pending.pop()
        for eqn in jaxpr.eqns:
            pending.extend(jex_core.jaxprs_in_params(eqn.params))
            dtypes = (getattr(atom.aval, "dtype", None) for atom in (*eqn.invars, *eqn.outvars))
            found.update(dtype for dtype in dtypes if dtype is not None and jnp.issubdtype(dtype, jnp.floating))
    return found


def _magnitude(values: Any) -> float:
    array = np.abs(np.asarray(values))
    return float(np.max(array[np.isfinite(array)], initial=0.0))
