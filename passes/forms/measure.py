"""Timing the forms of one operation on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex_core

from ...core import _compat
from ...core.forms import Signature

CHAIN_SECONDS = 1e-3
"""A run repeats the operation until it takes about this long: else the threads' waking up would be measured."""

MOST_COPIES = 8
"""Repetitions in one run; each is compiled."""

ROUNDS = (7, 40)
ROUNDS_SECONDS = 0.4
"""How many rounds, and about how long all of them may take."""

Run = Callable[[], Any]


def example_operands(signature: Signature) -> list[Any]:
    """Arrays of the operands' types: floats around zero, zeros for everything else (indices are then valid)."""
    rng = np.random.default_rng(0)
    arrays = []
    for operand in signature.operands:
        dtype = jnp.dtype(operand.dtype)
        values = rng.standard_normal(operand.shape, np.float32) if jnp.issubdtype(dtype, jnp.floating) else 0
        arrays.append(jnp.broadcast_to(jnp.asarray(values).astype(dtype), operand.shape))
    return arrays


def single_operation(signature: Signature, primitive: Any) -> jex_core.ClosedJaxpr:
    """A program of the one operation; its constant operands are closed over, the others are inputs."""
    arrays = example_operands(signature)
    free = [index for index in range(len(arrays)) if index not in signature.constant_operands]

    def operation(*inputs: Any) -> Any:
        operands = list(arrays)
        for index, value in zip(free, inputs, strict=True):
            operands[index] = value
        return primitive.bind(*operands, **signature.params)

    avals = [
        jax.ShapeDtypeStruct(arrays[i].shape, arrays[i].dtype, weak_type=signature.operands[i].weak_type) for i in free
    ]
    return jax.make_jaxpr(operation)(*avals)


def repeated_run(body: jex_core.ClosedJaxpr, inputs: Sequence[Any], copies: int) -> Run:
    """Compiles ``copies`` of a program in a row, and returns what runs them once.

    One element of each result goes into the first input of the next copy, so that no two run at once; all results are
    returned, so that all are computed.
    """

    def chain(consts: Sequence[Any], first: Any, *others: Any) -> Any:
        results = []
        for _ in range(copies):
            outputs = _compat.eval_jaxpr(body.jaxpr, consts, first, *others)
            results.append(outputs)
            first = _linked(first, outputs[0])
        return results

    consts, operands = jax.device_put((tuple(body.consts), tuple(inputs)))
    compiled = jax.jit(chain).lower(consts, *operands).compile()
    return lambda: jax.block_until_ready(compiled(consts, *operands))


def _linked(operand: jax.Array, result: jax.Array) -> jax.Array:
    """``operand`` with its first element taken from ``result``."""
    if operand.ndim == 0 or jnp.issubdtype(operand.dtype, jax.dtypes.extended):
        return operand
    corner = lax.slice(lax.optimization_barrier(result), (0,) * result.ndim, (1,) * result.ndim)
    corner = corner.astype(operand.dtype).reshape((1,) * operand.ndim)
    linked: jax.Array = lax.optimization_barrier(lax.dynamic_update_slice(operand, corner, (0,) * operand.ndim))
    return linked


def alternating_medians(runs: Sequence[Run]) -> list[float]:
    """Median seconds of each run; every round runs each once, so that a drift of the machine meets all alike."""
    estimate = sum(_seconds(run) for run in runs)
    rounds = int(np.clip(ROUNDS_SECONDS / max(estimate, 1e-9), *ROUNDS))
    samples = [[_seconds(run) for run in runs] for _ in range(rounds)]
    return [float(median) for median in np.median(np.array(samples), axis=0)]


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(bodies: Sequence[jex_core.ClosedJaxpr], inputs: Sequence[Any]) -> list[float]:
    """Seconds of each of several programs that compute the same."""
    shortest = min(_seconds(run) for run in _warmed([repeated_run(body, inputs, 1) for body in bodies]))
    copies = int(np.clip(CHAIN_SECONDS / shortest, 1, MOST_COPIES))
    runs = _warmed([repeated_run(body, inputs, copies) for body in bodies])
    return [seconds / copies for seconds in alternating_medians(runs)]


def _warmed(runs: Sequence[Run]) -> Sequence[Run]:
    for run in runs:
        run()
    return runs
