"""How much each kind of convolution gains from int8, by itself: what bounds the latency of a quantized network.

    python benchmarks/integer_convolutions.py [--seconds 5]

Every case is a chain of convolutions of one kind, with ReLU6 between them, so that quantizing the input and
dequantizing the result weigh little. Times are CPU time on one thread, as in ``benchmarks/quantization.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xlapass
from measure import quartiles
from quantization import RUNTIMES, alternate

NUMBERS = ("NHWC", "HWIO", "NHWC")
LAYERS = 6


def chain(size: int, kernels: list[tuple[int, int, int]], groups: int = 1) -> tuple[Callable[..., Any], np.ndarray]:
    """A chain of `LAYERS` convolutions: window, input and output channels of each, over and over."""
    rng = np.random.default_rng(0)
    weights = []
    for layer in range(LAYERS):
        window, inputs, outputs = kernels[layer % len(kernels)]
        shape = (window, window, inputs // groups, outputs)
        weights.append((rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:3]))).astype(np.float32))

    def apply(x: jax.Array) -> jax.Array:
        for w in weights:
            x = jax.lax.conv_general_dilated(
                x, w, (1, 1), "SAME", dimension_numbers=NUMBERS, feature_group_count=groups
            )
            x = jnp.clip(x, 0, 6)
        return x

    return apply, rng.standard_normal((1, size, size, kernels[0][1])).astype(np.float32)


CASES = {
    "3x3, 64 channels, 56x56": chain(56, [(3, 64, 64)]),
    "3x3, 256 channels, 14x14": chain(14, [(3, 256, 256)]),
    "1x1, 32 to 192 and back, 28x28": chain(28, [(1, 32, 192), (1, 192, 32)]),
    "1x1, 160 to 960 and back, 7x7": chain(7, [(1, 160, 960), (1, 960, 160)]),
    "depthwise 3x3, 32 channels, 112x112": chain(112, [(3, 32, 32)], 32),
    "depthwise 3x3, 144 channels, 56x56": chain(56, [(3, 144, 144)], 144),
    "depthwise 3x3, 576 channels, 14x14": chain(14, [(3, 576, 576)], 576),
}


def measure(case: str, runtime: str, seconds: float) -> tuple[float, float]:
    """Milliseconds in float32, and the median ratio of int8 to it."""
    fn, x = CASES[case]
    runner, _, pipelines = RUNTIMES[runtime]
    exact = xlapass.compile(fn, x, pipeline=runtime)
    small = xlapass.compile(fn, x, pipeline=pipelines["static"], calibration_data=[(x,)])
    runs = [runner(bytes(a.serialized if hasattr(a, "serialized") else a.model)) for a in (exact, small)]
    times = alternate([lambda run=run: run(x) for run in runs], seconds)
    return quartiles(1e3 * times[0])[1], quartiles(times[1] / times[0])[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    print(f"{'int8 / float32':38}" + "".join(f"{runtime:>10}" for runtime in RUNTIMES))
    for case in CASES:
        ratios = [measure(case, runtime, seconds)[1] for runtime in RUNTIMES]
        print(f"{case:38}" + "".join(f"{ratio:10.2f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()
