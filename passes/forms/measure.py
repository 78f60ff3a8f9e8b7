"""Timing the forms of one operation on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex_core

from ...core import _compat
from ...core.embedding import constants_to_embed
from ...core.forms import Measured, Signature
from ...core.instruments.numerics import difference
from ...core.rewrite import Numerics
from ...core.target import Target
from .neighbours import ALONE, Neighbours

CHAIN_SECONDS = 1e-3
"""A run repeats the operation until it takes about this long: else the threads' waking up would be measured."""

MOST_COPIES = 8
"""Repetitions in one run; each is compiled."""

ROUNDS = (5, 40)
ROUNDS_SECONDS = 0.4
"""How many rounds, and about how long all of them may take."""

HOPELESS = 2.0
"""What takes so many times as long as the default in a first look is not measured further."""

DOUBT = 0.035
"""How probable it may be that a gain was chance."""

Run = Callable[[], Any]


def local_device(target: Target | None) -> jax.Device | None:
    """Where programs for ``target`` can be measured, by default JAX's first device; None where there is no such one."""
    try:
        return jax.devices(None if target is None else target.platform)[0]
    except RuntimeError:
        return None


def example_operands(signature: Signature) -> list[Any]:
    """Arrays of the operands' types: floats around zero, small integers; zeros where integers are indices."""
    rng = np.random.default_rng(0)
    is_indexed = any(word in signature.primitive for word in ("gather", "scatter", "dynamic"))
    arrays = []
    for operand in signature.operands:
        dtype = jnp.dtype(operand.dtype)
        values: Any = 0
        if jnp.issubdtype(dtype, jnp.floating):
            values = rng.standard_normal(operand.shape, np.float32)
        elif jnp.issubdtype(dtype, jnp.integer) and not is_indexed:
            values = rng.integers(0, 8, operand.shape)
        arrays.append(jnp.broadcast_to(jnp.asarray(values).astype(dtype), operand.shape))
    return arrays


def single_operation(signature: Signature, primitive: Any, neighbours: Neighbours = ALONE) -> jex_core.ClosedJaxpr:
    """A program of the one operation, with the transposes around it.

    Its constant operands are closed over; the others are inputs, as they stand before their transposes.
    """
    arrays = example_operands(signature)
    free = [index for index in range(len(arrays)) if index not in signature.constant_operands]

    def operation(*inputs: Any) -> Any:
        operands = list(arrays)
        for index, value in zip(free, inputs, strict=True):
            operands[index] = neighbours.operand(index, value)
        results = primitive.bind(*operands, **signature.params)
        if not primitive.multiple_results:
            return neighbours.result(0, results)
        return [neighbours.result(index, result) for index, result in enumerate(results)]

    sources = [jax.eval_shape(lambda x, i=index: neighbours.source(i, x), arrays[index]) for index in free]
    weak = [signature.operands[index].weak_type for index in free]
    pairs = zip(sources, weak, strict=True)
    return jax.make_jaxpr(operation)(*(jax.ShapeDtypeStruct(s.shape, s.dtype, weak_type=w) for s, w in pairs))


def example_inputs(signature: Signature, neighbours: Neighbours = ALONE) -> list[Any]:
    """Inputs for what `single_operation` makes."""
    arrays = enumerate(example_operands(signature))
    return [neighbours.source(index, array) for index, array in arrays if index not in signature.constant_operands]


def repeated_run(body: jex_core.ClosedJaxpr, inputs: Sequence[Any], copies: int) -> Run:
    """Compiles ``copies`` of a program in a row, and returns what runs them once.

    Constants are literals or arguments, as they will be in the program. One element of each result goes into the first
    input of the next copy, so that no two run at once; all results are returned, so that all are computed.
    """

    embedded = constants_to_embed(body)

    def chain(resident: Sequence[Any], first: Any, *others: Any) -> Any:
        results = []
        passed = iter(resident)
        consts = [c if inside else next(passed) for c, inside in zip(body.consts, embedded, strict=True)]
        for _ in range(copies):
            outputs = _compat.eval_jaxpr(body.jaxpr, consts, first, *others)
            results.append(outputs)
            first = _linked(first, outputs[0])
        return results

    arguments = [c for c, inside in zip(body.consts, embedded, strict=True) if not inside]
    resident, operands = jax.device_put((arguments, tuple(inputs)))
    compiled = jax.jit(chain).lower(resident, *operands).compile()
    return lambda: jax.block_until_ready(compiled(resident, *operands))


def _linked(operand: jax.Array, result: jax.Array) -> jax.Array:
    """``operand`` with its first element taken from ``result``."""
    if operand.ndim == 0 or jnp.issubdtype(operand.dtype, jax.dtypes.extended):
        return operand
    corner = lax.slice(lax.optimization_barrier(result), (0,) * result.ndim, (1,) * result.ndim)
    corner = corner.astype(operand.dtype).reshape((1,) * operand.ndim)
    linked: jax.Array = lax.optimization_barrier(lax.dynamic_update_slice(operand, corner, (0,) * operand.ndim))
    return linked


def alternating_samples(runs: Sequence[Run], seconds: float = ROUNDS_SECONDS) -> np.ndarray[Any, Any]:
    """Seconds of each run in each round, ``[runs, rounds]``, in about ``seconds`` in all.

    Every round runs each once, so that a drift of the machine meets all alike; the order rotates, so that none always
    follows the same other.
    """
    estimate = sum(run_seconds(run) for run in runs)
    rounds = int(np.clip(seconds / max(estimate, 1e-9), *ROUNDS))
    samples = np.empty((len(runs), rounds))
    for round_ in range(rounds):
        for offset in range(len(runs)):
            index = (round_ + offset) % len(runs)
            samples[index, round_] = run_seconds(runs[index])
    return samples


def compared(samples: np.ndarray[Any, Any], copies: int = 1) -> list[Measured]:
    """What samples show of the first candidate, the default, and of each other one against it."""
    medians = np.median(samples, axis=1) / copies
    gains = [(1.0, 1.0), *(sure_range(samples[0] / others) for others in samples[1:])]
    return [Measured(float(seconds), *gain) for seconds, gain in zip(medians, gains, strict=True)]


def sure_range(ratios: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Bounds of the median of ``ratios``, each wrong with a probability of at most `DOUBT`.

    The order statistic of the sign test (Dixon and Mood, 1946), which assumes nothing about how times are distributed.
    """
    count = len(ratios)
    below, probability = 0, 0.5**count
    while probability + math.comb(count, below + 1) * 0.5**count <= DOUBT:
        below += 1
        probability += math.comb(count, below) * 0.5**count
    ordered = np.sort(ratios)
    return float(ordered[below]), float(ordered[-1 - below])


def run_seconds(run: Run) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(bodies: Sequence[jex_core.ClosedJaxpr], inputs: Sequence[Any], firsts: Sequence[Run]) -> list[Measured]:
    """Measures several programs that compute the same against the first of them.

    Args:
      bodies: the programs.
      inputs: what they run on.
      firsts: a run of each, already compiled.
    """
    looks = np.array([[run_seconds(run) for run in firsts] for _ in range(3)]).min(axis=0)
    worth = [index for index, look in enumerate(looks) if look <= HOPELESS * looks[0]]
    copies = int(np.clip(CHAIN_SECONDS / looks.min(), 1, MOST_COPIES))
    runs = [firsts[i] if copies == 1 else repeated_run(bodies[i], inputs, copies) for i in worth]
    for run in runs:
        run()
    found = dict(zip(worth, compared(alternating_samples(runs), copies), strict=True))
    rough = [Measured(float(look), float(min(looks[0] / look, 1.0)), 1.0) for look in looks]
    return [found.get(index, rough[index]) for index in range(len(bodies))]


def wrong_result(wanted: Sequence[Any], found: Sequence[Any], numerics: Numerics) -> str:
    """How results differ beyond ``numerics``, in a sentence; empty where they do not.

    Floats may always be rounded in another order: the compiler does that around any change.
    """
    for want, have in zip(wanted, found, strict=True):
        is_float = np.asarray(want).dtype.kind not in "biu"
        allowed_numerics: Numerics = "reassociating" if numerics == "exact" and is_float else numerics
        error, allowed = difference(want, have, allowed_numerics)
        if not error <= allowed:
            return f"its result differs by {error:.3g} from the default's, and {allowed:.3g} is allowed"
    return ""
