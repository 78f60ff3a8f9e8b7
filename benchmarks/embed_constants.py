"""Weights as arguments of the executable, or embedded in it: which runs faster on the CPU, and what does it cost?

    python benchmarks/embed_constants.py [--models] [--seconds S] [CASE ...]

Forms: every weight an argument; what `constants_to_embed` chooses embedded, small arrays and the kernels of
convolutions (`auto`); all embedded. Run times come from alternating calls in one process: the median of the first
form, and for the others the median of the ratios to it, with the ratio of the minima in parentheses. Compile times and
the memory that compilation adds at its peak are each taken in a process of their own.

Measured with JAX 0.10.2 on two busy cores of an AMD EPYC (AVX-512): times are high, and a ratio means something only
where it is outside 0.9 to 1.1 and that of the minima agrees. `->` separates arguments, auto and embedded:

| case | weights, MB | arguments, ms | auto | embedded | compile, s | compile, MB |
| --- | --- | --- | --- | --- | --- | --- |
| x @ w, 1x768x3072 | 9.4 | 0.230 | 0.97 (1.03) | 1.01 (1.00) | 0.31 -> 0.29 -> 0.56 | 26 -> 26 -> 60 |
| x @ w.T, 1x768x3072 | 9.4 | 0.188 | 1.01 (0.92) | 1.23 (0.93) | 0.11 -> 0.18 -> 1.16 | 15 -> 15 -> 85 |
| gelu(x @ w + b), 1x768x3072 | 9.4 | 0.193 | 0.99 (0.99) | 1.00 (0.96) | 0.35 -> 0.30 -> 0.48 | 29 -> 29 -> 63 |
| gelu(x @ w.T + b), 1x768x3072 | 9.4 | 1.668 | 0.98 (0.78) | 0.18 (0.22) | 0.32 -> 0.27 -> 0.98 | 30 -> 30 -> 86 |
| x @ w, 1x4096x4096 | 67.1 | 13.330 | 0.92 (0.81) | 1.00 (0.95) | 0.45 -> 0.47 -> 3.48 | 107 -> 122 -> 249 |
| x @ w.T, 1x4096x4096 | 67.1 | 219.297 | 1.12 (0.91) | 0.10 (0.01) | 0.57 -> 0.49 -> 10.29 | 128 -> 109 -> 639 |
| x @ w, 1x768x50257 | 154.4 | 24.419 | 0.81 (0.96) | 0.78 (0.95) | 0.62 -> 0.51 -> 6.47 | 172 -> 148 -> 587 |
| x @ w.T, 1x768x50257 | 154.4 | 24.278 | 1.01 (0.96) | 1.00 (0.99) | 0.19 -> 0.27 -> 12.26 | 90 -> 87 -> 1480 |
| x @ w, 8x768x3072 | 9.4 | 0.384 | 0.96 (0.99) | 1.02 (1.02) | 0.06 -> 0.05 -> 0.28 | 3 -> 3 -> 40 |
| x @ w.T, 8x768x3072 | 9.4 | 0.698 | 1.00 (0.88) | 0.66 (0.65) | 0.04 -> 0.06 -> 0.72 | 3 -> 3 -> 85 |
| x @ w, 128x768x3072 | 9.4 | 10.108 | 1.03 (0.99) | 0.95 (0.62) | 0.06 -> 0.12 -> 0.41 | 2 -> 2 -> 40 |
| x @ w.T, 128x768x3072 | 9.4 | 15.728 | 0.99 (0.60) | 0.81 (0.57) | 0.09 -> 0.06 -> 0.69 | 3 -> 3 -> 85 |
| conv 56x56x64 HWIO | 0.1 | 3.169 | 0.99 (1.00) | 1.01 (0.99) | 0.19 -> 0.20 -> 0.17 | 22 -> 21 -> 22 |
| conv 56x56x64 OIHW | 0.1 | 3.952 | 0.98 (0.99) | 0.99 (0.98) | 0.54 -> 0.45 -> 0.43 | 31 -> 29 -> 29 |
| conv 14x14x256 HWIO | 2.4 | 6.686 | 0.99 (0.93) | 1.02 (0.90) | 0.15 -> 0.54 -> 0.51 | 22 -> 30 -> 30 |
| conv 14x14x256 OIHW | 2.4 | 1.660 | 0.75 (0.71) | 0.75 (0.67) | 0.36 -> 0.35 -> 0.34 | 30 -> 39 -> 37 |
| conv 7x7x512 HWIO | 9.4 | 5.216 | 0.98 (1.05) | 0.95 (0.99) | 0.15 -> 0.31 -> 0.32 | 22 -> 58 -> 58 |
| conv 7x7x512 OIHW | 9.4 | 12.908 | 0.59 (0.61) | 0.60 (0.57) | 0.26 -> 0.52 -> 0.64 | 31 -> 72 -> 81 |
| conv 7x7x512 HWIO, mean | 9.4 | 2.762 | 0.74 (0.58) | 0.75 (0.57) | 0.08 -> 0.27 -> 0.31 | 21 -> 57 -> 66 |
| 50 arrays of 64 | 0.0 | 0.043 | 0.11 (0.26) | 0.11 (0.26) | 0.34 -> 0.15 -> 0.14 | 23 -> 20 -> 20 |
| 260 arrays of 64 | 0.1 | 0.102 | 0.05 (0.04) | 0.05 (0.04) | 1.12 -> 0.22 -> 0.14 | 42 -> 21 -> 21 |
| resnet18 | 46.8 | 140.932 | 0.77 (0.86) | 0.81 (0.94) | 2.10 -> 3.49 -> 2.76 | 19 -> 151 -> 152 |
| resnet18-nchw | 46.8 | 224.739 | 0.52 (0.33) | 0.46 (0.48) | 2.22 -> 2.64 -> 2.33 | 9 -> 198 -> 223 |
| mobilenet-v2 | 14.2 | 61.138 | 0.98 (0.98) | 0.99 (0.99) | 3.96 -> 3.38 -> 2.78 | 11 -> 32 -> 48 |
| vit-s16 | 88.2 | 152.753 | 1.00 (1.01) | 1.05 (1.01) | 2.80 -> 2.46 -> 3.67 | 57 -> 55 -> 308 |
| gpt2-prefill | 497.8 | 133.402 | 1.03 (1.01) | 1.01 (0.99) | 2.07 -> 2.45 -> 13.60 | 129 -> 140 -> 1900 |
| gpt2-decode | 497.8 | 34.969 | 1.02 (1.03) | 0.90 (0.94) | 4.65 -> 6.01 -> 19.96 | 130 -> 101 -> 2018 |
| lstm | 79.1 | 26.998 | 0.98 (0.85) | 0.84 (0.83) | 1.26 -> 1.07 -> 1.94 | 34 -> 31 -> 283 |
| convnext-t | 114.4 | 381.559 | 0.98 (1.01) | 0.99 (0.98) | 2.57 -> 3.14 -> 4.43 | 70 -> 93 -> 414 |
| densenet121 | 32.3 | 87.934 | 0.93 (0.96) | 0.97 (0.96) | 9.61 -> 10.27 -> 10.14 | 13 -> 62 -> 69 |
| unet | 124.2 | 1435.946 | 0.96 (0.90) | 1.00 (1.02) | 3.33 -> 4.87 -> 5.25 | 120 -> 498 -> 441 |

What follows from it:

* Kernels do not run faster because a weight is a literal. XLA saves what it would do to the weight at every call: it
  transposes it (a convolution kernel OIHW: half the time of ResNet-18 in NCHW; `x @ w.T`: 0.1 to 0.6 of the time where
  XLA's kernel for that layout is slow, 4096 x 4096 for one), concatenates it (the gates of the LSTM), or packs it. The
  last happens where convolutions share a YNNPACK fusion with a later reduction, as the end of a classifier does
  (ResNet-18 in NHWC: 0.75), and cannot be had otherwise; the rest a pass that folds and lays out weights beforehand
  gives as well, without the cost. A device layout chosen by XLA (`Layout.AUTO`) does not help: on the CPU it is always
  row-major.
* An argument costs about 0.3 microseconds a call, so small arrays should be literals.
* Embedding costs 15 to 60 ms of compile time and 3 to 10 MB of memory per MB of weights; the more, the more XLA folds:
  for GPT-2, 15 s and 2 GB, and nothing gained beyond the noise.

Hence `auto`: arrays of up to 4 kB and the kernels of convolutions are literals, up to 128 MB of them; weights of
products are arguments, and it is for the passes to give them the layout that is fast.
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
