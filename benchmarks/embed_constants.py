"""Weights as arguments of the executable, or embedded in it: which runs faster on the CPU, and what does it cost?

    python benchmarks/embed_constants.py [--models] [CASE ...]

Forms: every weight an argument; what `constants_to_embed` chooses embedded, small arrays and the kernels of
convolutions (`auto`); all embedded. Run times come from alternating calls in one process: the median of the first
form, and for the others the median of the ratios to it, with the ratio of the minima in parentheses. Compile times and
the memory that compilation adds at its peak are each taken in a process of their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import zoo
from xlapass.core.embedding import constants_to_embed

FORMS = ("arguments", "auto", "embedded")

MODELS = {
    "resnet18": {},
    "resnet18-nchw": {"layout": "nchw"},
    "mobilenet-v2": {},
    "vit-s16": {},
    "gpt2-prefill": {},
    "gpt2-decode": {},
    "lstm": {},
    "convnext-t": {},
    "densenet121": {},
    "unet": {},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A function of weights and inputs."""

    fn: Callable[..., Any]
    params: Any
    inputs: tuple[Any, ...]

    def compiled(self, form: str) -> Callable[[], Any]:
        """A call without arguments of the function compiled in that form."""
        leaves, tree = jax.tree.flatten(self.params)
        embedded = self.embedded(form)
        passed = [leaf for leaf, inside in zip(leaves, embedded, strict=True) if not inside]

        def function(passed: list[Any], *inputs: Any) -> Any:
            arguments = iter(passed)
            every = [leaf if inside else next(arguments) for leaf, inside in zip(leaves, embedded, strict=True)]
            return self.fn(jax.tree.unflatten(tree, every), *inputs)

        executable = jax.jit(function).lower(passed, *self.inputs).compile()
        return lambda: jax.block_until_ready(executable(passed, *self.inputs))

    def embedded(self, form: str) -> list[bool]:
        """Which leaves of the parameters the form embeds."""
        leaves = jax.tree.leaves(self.params)
        if form != "auto":
            return [form == "embedded"] * len(leaves)
        program = jax.make_jaxpr(lambda *inputs: self.fn(self.params, *inputs))(*self.inputs)
        choice = zip(program.consts, constants_to_embed(program), strict=True)
        chosen = {id(const) for const, inside in choice if inside}
        return [id(leaf) in chosen for leaf in leaves]

    @property
    def megabytes(self) -> float:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.params)) / 1e6


def random(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(7).standard_normal(shape, np.float32))


def dense(rows: int, width: int, columns: int) -> Case:
    """`x @ w`"""
    return Case(lambda w, x: x @ w, random(width, columns), (random(rows, width),))


def dense_transposed(rows: int, width: int, columns: int) -> Case:
    """`x @ w.T`"""
    return Case(lambda w, x: x @ w.T, random(columns, width), (random(rows, width),))


def layer(transposed: bool) -> Case:
    """`gelu(x @ w + b)` for one row, with `w` or `w.T`."""

    def fn(params: Any, x: jax.Array) -> jax.Array:
        weights, bias = params
        return jax.nn.gelu(x @ (weights.T if transposed else weights) + bias)

    return Case(fn, (random(3072, 768) if transposed else random(768, 3072), random(3072)), (random(1, 768),))


def convolution(size: int, channels: int, layout: str, mean: bool = False) -> Case:
    """3x3, with bias, ReLU and perhaps the mean over space; `nhwc` with a kernel HWIO, `nchw` with a kernel OIHW."""
    last = layout == "nhwc"
    numbers = ("NHWC", "HWIO", "NHWC") if last else ("NCHW", "OIHW", "NCHW")

    def fn(params: Any, x: jax.Array) -> jax.Array:
        kernel, bias = params
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        y = jax.nn.relu(y + (bias if last else bias[:, None, None]))
        return y.mean((1, 2)) if mean else y

    kernel = random(3, 3, channels, channels) if last else random(channels, channels, 3, 3)
    x = random(1, size, size, channels) if last else random(1, channels, size, size)
    return Case(fn, (kernel, random(channels)), (x,))


def many_biases(count: int) -> Case:
    """A chain of additions of small arrays: what an argument costs to pass."""

    def fn(params: Any, x: jax.Array) -> jax.Array:
        for bias in params:
            x = x + bias
        return x

    return Case(fn, [random(64) for _ in range(count)], (random(64),))


OPERATIONS: dict[str, Callable[[], Case]] = {
    "x @ w, 1x768x3072": lambda: dense(1, 768, 3072),
    "x @ w.T, 1x768x3072": lambda: dense_transposed(1, 768, 3072),
    "gelu(x @ w + b), 1x768x3072": lambda: layer(transposed=False),
    "gelu(x @ w.T + b), 1x768x3072": lambda: layer(transposed=True),
    "x @ w, 1x4096x4096": lambda: dense(1, 4096, 4096),
    "x @ w.T, 1x4096x4096": lambda: dense_transposed(1, 4096, 4096),
    "x @ w, 1x768x50257": lambda: dense(1, 768, 50257),
    "x @ w.T, 1x768x50257": lambda: dense_transposed(1, 768, 50257),
    "x @ w, 8x768x3072": lambda: dense(8, 768, 3072),
    "x @ w.T, 8x768x3072": lambda: dense_transposed(8, 768, 3072),
    "x @ w, 128x768x3072": lambda: dense(128, 768, 3072),
    "x @ w.T, 128x768x3072": lambda: dense_transposed(128, 768, 3072),
    "conv 56x56x64 HWIO": lambda: convolution(56, 64, "nhwc"),
    "conv 56x56x64 OIHW": lambda: convolution(56, 64, "nchw"),
    "conv 14x14x256 HWIO": lambda: convolution(14, 256, "nhwc"),
    "conv 14x14x256 OIHW": lambda: convolution(14, 256, "nchw"),
    "conv 7x7x512 HWIO": lambda: convolution(7, 512, "nhwc"),
    "conv 7x7x512 OIHW": lambda: convolution(7, 512, "nchw"),
    "conv 7x7x512 HWIO, mean": lambda: convolution(7, 512, "nhwc", mean=True),
    "50 arrays of 64": lambda: many_biases(50),
    "260 arrays of 64": lambda: many_biases(260),
}


def build(name: str) -> Case:
    if name in OPERATIONS:
        return OPERATIONS[name]()
    model = zoo.load(name.removesuffix("-nchw"), **MODELS[name])
    return Case(model.fn, model.params, model.inputs)


def run_times(case: Case, seconds: float) -> dict[str, np.ndarray]:
    """Seconds of each call, by form.

    The forms take turns at being first, and each has its own copy of the weights: whoever comes second with the same
    copy would find it in the cache.
    """
    calls = {form: dataclasses.replace(case, params=_copied(case.params)).compiled(form) for form in FORMS}
    samples: dict[str, list[float]] = {form: [] for form in FORMS}
    forms = list(FORMS)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples["embedded"]) < 15:
        forms.append(forms.pop(0))
        for form in forms:
            calls[form]()  # finds the caches as another form left them
            start = time.perf_counter()
            calls[form]()
            samples[form].append(time.perf_counter() - start)
    return {form: np.array(times) for form, times in samples.items()}


def ratio(times: np.ndarray, base: np.ndarray) -> str:
    """The median of the pairs' ratios, and the ratio of the minima."""
    return f"{np.median(times / base):.2f} ({times.min() / base.min():.2f})"


def _copied(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)


def compile_cost(name: str, form: str) -> dict[str, float]:
    """Seconds to compile, and megabytes of memory that it took at its peak; in this process, once."""
    case = build(name)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (proc(5))
    before, start = _memory_megabytes("VmRSS"), time.perf_counter()
    case.compiled(form)
    return {"seconds": time.perf_counter() - start, "megabytes": _memory_megabytes("VmHWM") - before}


def _memory_megabytes(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1e3


def compile_cost_elsewhere(name: str, form: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--compile-only", form, name]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: the operations, or with --models the models")
    parser.add_argument("--models", action="store_true", help="measure the models of the zoo")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to run each case (default: 10)")
    parser.add_argument("--compile-only", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.cases or list(MODELS if options.models else OPERATIONS)
    if options.compile_only:
        print(json.dumps(compile_cost(names[0], options.compile_only)))
        return
    print("| case | weights, MB | arguments, ms | auto | embedded | compile, s | compile, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        case = build(name)
        times = run_times(case, options.seconds)
        costs = [compile_cost_elsewhere(name, form) for form in FORMS]
        seconds = " -> ".join(f"{cost['seconds']:.2f}" for cost in costs)
        megabytes = " -> ".join(f"{cost['megabytes']:.0f}" for cost in costs)
        first = times["arguments"]
        print(
            f"| {name} | {case.megabytes:.1f} | {np.median(first) * 1e3:.3f} | {ratio(times['auto'], first)} "
            f"| {ratio(times['embedded'], first)} | {seconds} | {megabytes} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
