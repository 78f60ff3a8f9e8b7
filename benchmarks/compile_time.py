"""How long the `cpu` pipeline takes, beside XLA's own compilation, and how it grows with the program.

    python benchmarks/compile_time.py [--models resnet50 gpt2-prefill] [--sizes 1000 10000 100000]

For each model: the pipeline with its default verification, and XLA compiling the program as it was traced,
alternating; medians. XLA compiles it twice: with the weights as arguments, and as literals, which is what `jax.jit` of
a function that closes over them does. For each size: a chain of that many equations through the same pipeline, and the
time per equation, which stays the same when growth is linear.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import xlapass
import zoo
from rich.console import Console
from rich.table import Table
from xlapass.core.driver import optimize, plan
from xlapass.core.program import operation_count


def pipeline_seconds(program, chosen, pipeline_report=None):
    """Seconds of CPU time that the passes and their verification take."""
    start = time.process_time()
    optimize(chosen, program, instruments=[pipeline_report] if pipeline_report else [])
    return time.process_time() - start


def xla_seconds(program, literals):
    """Seconds of CPU time that XLA takes to compile the program as traced."""
    jax.clear_caches()
    specs = program.input_specs()
    if literals:
        lowered = jax.jit(program.flat_function).lower(*specs)
    else:
        lowered = jax.jit(program.function_of_constants).lower(program.jaxpr.consts, *specs)
    start = time.process_time()
    lowered.compile()
    return time.process_time() - start


def measure_model(name, chosen, rounds):
    """Median seconds of the pipeline and of XLA, alternating."""
    model = zoo.load(name)
    program = xlapass.trace(lambda *inputs: model.fn(model.params, *inputs), *model.inputs)
    pipeline_seconds(program, chosen)  # imports and first traces
    rows = [
        (pipeline_seconds(program, chosen), xla_seconds(program, False), xla_seconds(program, True))
        for _ in range(rounds)
    ]
    return program, [statistics.median(column) for column in zip(*rows, strict=True)]


def chain(equations):
    """A program of about so many equations, with work for every pass in each link."""
    weights = np.linspace(0.5, 1.5, 8, dtype=np.float32)

    def fn(x):
        for i in range(equations // 10):
            y = jnp.tanh(x * 1.0) + (x - 0.0)
            z = jnp.reshape(jnp.transpose(y), y.shape) * weights
            x = jnp.where(z > i, z, jnp.negative(-y)) + jnp.tanh(x * 1.0)
        return x

    return xlapass.trace(fn, jnp.ones((8, 8)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["resnet50", "gpt2-prefill"])
    parser.add_argument("--sizes", nargs="*", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    chosen = plan("cpu")
    console = Console()
    models = Table(title="CPU seconds", title_justify="left")
    for heading in ("model", "equations", "pipeline", "XLA, arguments", "XLA, literals", "pipeline / XLA"):
        models.add_column(heading)
    for name in args.models:
        program, (ours, arguments, literals) = measure_model(name, chosen, args.rounds)
        ratios = f"{ours / arguments:.2f}, {ours / literals:.2f}"
        seconds = (f"{value:.2f}" for value in (ours, arguments, literals))
        models.add_row(name, str(operation_count(program.jaxpr)), *seconds, ratios)
    console.print(models)
    growth = Table("equations", "pipeline s", "us per equation", title="Growth", title_justify="left")
    for size in args.sizes:
        program = chain(size)
        count = operation_count(program.jaxpr)
        seconds = pipeline_seconds(program, chosen)
        growth.add_row(str(count), f"{seconds:.2f}", f"{1e6 * seconds / count:.0f}")
    console.print(growth)


if __name__ == "__main__":
    warnings.simplefilter("ignore", xlapass.core.plugins.PluginWarning)
    main()
