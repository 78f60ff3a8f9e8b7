"""Measures the primitives of `jax.lax` over typical shapes: jax.jit, xlapass.jit, and ONNX Runtime or a roofline.

    python benchmarks/primitives.py [--seconds 0.6] [--markdown FILE] [PART OF A NAME]

All contenders of a case run in alternation in one process. A ratio is of jax.jit's shortest time to the contender's,
which other work on the machine disturbs least: above 1 the contender is faster. The roofline is what
NumPy's copy and matrix product reach on this machine, measured first, for the bytes and multiply-adds of the case; it
says how much could be gained at all, where ONNX Runtime has no such operation.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xlapass
from contenders import thread_count
from jax import lax
from measure import Run, alternate, geometric_mean, largest_error
from xlapass.core.cost import flops

TOLERANCE = 1e-3
"""Relative to the largest result: beyond it, a contender computed something else."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One operation at one set of shapes.

    Attributes:
      name: what it is.
      fn: takes ``inputs``; what it closes over is constant.
      inputs: NumPy arrays.
    """

    name: str
    fn: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Result:
    """Seconds of one case, by contender; None where one does not take part."""

    case: Case
    plain: float
    ours: float
    onnx: float | None
    roofline: float
    error: float


# -- the cases ---------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def i32(high: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, high, shape).astype(np.int32)


def elementwise() -> Iterator[Case]:
    x, y = f32(64, 4096), f32(64, 4096)
    positive = np.abs(x) + 0.1
    yield Case("add 64x4096", jnp.add, (x, y))
    yield Case("multiply and add 64x4096", lambda a, b: a * b + a, (x, y))
    for name in ("exp", "tanh", "log", "sqrt", "rsqrt", "sin", "floor", "abs", "sign"):
        yield Case(f"{name} 64x4096", getattr(lax, name), (positive,))
    yield Case("erf 64x4096", lax.erf, (x,))
    yield Case("logistic 64x4096", lax.logistic, (x,))
    yield Case("power 64x4096", lambda a, b: lax.pow(a, b), (positive, y))
    yield Case("divide 64x4096", jnp.divide, (x, positive))
    yield Case("select 64x4096", lambda a, b: jnp.where(a > 0, a, b), (x, y))
    yield Case("float32 to bfloat16 and back 64x4096", lambda a: a.astype(jnp.bfloat16).astype(jnp.float32), (x,))
    yield Case("int32 to float32 64x4096", lambda a: a.astype(jnp.float32), (i32(100, 64, 4096),))
    yield Case("softmax 64x1000", jax.nn.softmax, (f32(64, 1000),))
    yield Case("softmax of scores 12x128x128", jax.nn.softmax, (f32(12, 128, 128),))
    yield Case("layer norm 128x768", layer_norm, (f32(128, 768),))
    yield Case("threefry bits 65536", lambda a: jax.random.bits(jax.random.key(a), (65536,)), (np.uint32(3),))


def layer_norm(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)


def reductions() -> Iterator[Case]:
    x = f32(64, 4096)
    yield Case("sum of rows 64x4096", lambda a: a.sum(1), (x,))
    yield Case("sum of columns 64x4096", lambda a: a.sum(0), (x,))
    yield Case("sum of the middle 8x256x256", lambda a: a.sum(1), (f32(8, 256, 256),))
    yield Case("mean over the image 1x56x56x144", lambda a: a.mean((1, 2)), (f32(1, 56, 56, 144),))
    yield Case("max of rows 64x4096", lambda a: a.max(1), (x,))
    yield Case("sum of everything 262144", lambda a: a.sum(), (x,))
    yield Case("argmax of rows 8x50257", lambda a: a.argmax(1), (f32(8, 50257),))
    yield Case("argmax of columns 1000x64", lambda a: a.argmax(0), (f32(1000, 64),))
    yield Case("cumsum of rows 64x4096", lambda a: jnp.cumsum(a, 1), (x,))
    yield Case("cumsum of columns 4096x64", lambda a: jnp.cumsum(a, 0), (f32(4096, 64),))
    yield Case("any over rows 64x4096", lambda a: (a > 3).any(1), (x,))


def ordering() -> Iterator[Case]:
    yield Case("sort 8x50257", lambda a: jnp.sort(a, 1), (f32(8, 50257),))
    yield Case("sort 1024x64", lambda a: jnp.sort(a, 1), (f32(1024, 64),))
    yield Case("largest 40 of a sort 8x50257", lambda a: jnp.sort(a, 1)[:, -40:], (f32(8, 50257),))
    yield Case("largest 40 of a sort downwards 8x50257", lambda a: -jnp.sort(-a, 1)[:, :40], (f32(8, 50257),))
    yield Case("first 5 of an argsort downwards 8x5000", lambda a: jnp.argsort(-a, axis=1)[:, :5], (f32(8, 5000),))
    yield Case("argsort 64x1000", lambda a: jnp.argsort(a, axis=1), (f32(64, 1000),))
    yield Case("median 64x1001", lambda a: jnp.median(a, axis=1), (f32(64, 1001),))
    yield Case("top 40 of 8x50257", lambda a: lax.top_k(a, 40), (f32(8, 50257),))
    yield Case("top 5 of 64x1000", lambda a: lax.top_k(a, 5), (f32(64, 1000),))
    yield Case("top 2 of 1024x8", lambda a: lax.top_k(a, 2), (f32(1024, 8),))
    yield Case("top 8 of 4096x64", lambda a: lax.top_k(a, 8), (f32(4096, 64),))
    yield Case("top 1 of 1024x1000", lambda a: lax.top_k(a, 1), (f32(1024, 1000),))


def indexing() -> Iterator[Case]:
    table = f32(30522, 768)
    yield Case("gather of 128 rows of 768", lambda i: jnp.take(jnp.asarray(table), i, 0), (i32(30522, 1, 128),))
    yield Case("gather of 4096 rows of 64", lambda t, i: t[i], (f32(10000, 64), i32(10000, 4096)))
    yield Case("gather of 65536 elements", lambda t, i: t[i], (f32(100000), i32(100000, 65536)))
    yield Case("elements of rows 4096x64", lambda t, i: jnp.take_along_axis(t, i, 1), (f32(4096, 64), i32(64, 4096, 1)))
    yield Case(
        "elements of columns 64x4096", lambda t, i: jnp.take_along_axis(t, i, 0), (f32(64, 4096), i32(64, 8, 4096))
    )
    yield Case(
        "columns in another order 4096x64", lambda t: t[:, np.random.default_rng(0).permutation(64)], (f32(4096, 64),)
    )
    yield Case("every second column 4096x64", lambda t: t[:, ::2], (f32(4096, 64),))
    yield Case("scatter-add of 1024 rows of 64", lambda t, i, u: t.at[i].add(u),
               (f32(1000, 64), i32(1000, 1024), f32(1024, 64)))  # fmt: skip
    yield Case("histogram of 65536 in 256", lambda i: jnp.bincount(i, length=256), (i32(256, 65536),))
    yield Case("one hot 4096 of 64", lambda i: jax.nn.one_hot(i, 64), (i32(64, 4096),))
    yield Case("update of a cache 12x1024x64", lambda c, u: lax.dynamic_update_slice(c, u, (0, 100, 0)),
               (f32(12, 1024, 64), f32(12, 1, 64)))  # fmt: skip
    yield Case("shifted windows (roll) 1x56x56x96", lambda a: jnp.roll(a, (-3, -3), (1, 2)), (f32(1, 56, 56, 96),))
    for size, features in ((28, 64), (64, 128)):
        shape = (1, 2 * size, 2 * size, features)
        for method in ("nearest", "bilinear", "bicubic"):
            yield Case(f"resize twice, {method} {size}x{size}x{features}",
                       lambda a, shape=shape, method=method: jax.image.resize(a, shape, method),
                       (f32(1, size, size, features),))  # fmt: skip
    yield Case("resize to half, bilinear 224x224x3", lambda a: jax.image.resize(a, (1, 112, 112, 3), "bilinear"),
               (f32(1, 224, 224, 3),))  # fmt: skip
    yield Case("bilinear samples 1x64x64x32 at 4096", bilinear_samples, (f32(64, 64, 32), f32(4096, 2) * 10 + 32))


def bilinear_samples(image: Any, places: Any) -> Any:
    corner = jnp.floor(places).astype(jnp.int32)
    weight = places - corner
    total = 0.0
    for dy in (0, 1):
        for dx in (0, 1):
            factor = jnp.abs(1 - dy - weight[:, 0]) * jnp.abs(1 - dx - weight[:, 1])
            total += factor[:, None] * image[jnp.clip(corner[:, 0] + dy, 0, 63), jnp.clip(corner[:, 1] + dx, 0, 63)]
    return total


def movement() -> Iterator[Case]:
    yield Case("transpose 1024x1024", jnp.transpose, (f32(1024, 1024),))
    yield Case("channels last 1x64x56x56", lambda a: a.transpose(0, 2, 3, 1), (f32(1, 64, 56, 56),))
    yield Case("heads first 8x128x12x64", lambda a: a.transpose(0, 2, 1, 3), (f32(8, 128, 12, 64),))
    yield Case("concatenate features 1x28x28x(128+32)", lambda a, b: jnp.concatenate([a, b], 3),
               (f32(1, 28, 28, 128), f32(1, 28, 28, 32)))  # fmt: skip
    yield Case(
        "concatenate rows 64x1024 twice", lambda a, b: jnp.concatenate([a, b], 0), (f32(64, 1024), f32(64, 1024))
    )
    yield Case("pad 1x56x56x64 by 1", lambda a: jnp.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0))), (f32(1, 56, 56, 64),))
    yield Case("reverse 64x4096", lambda a: a[:, ::-1], (f32(64, 4096),))
    yield Case("tile 64x64 by 8x8", lambda a: jnp.tile(a, (8, 8)), (f32(64, 64),))
    yield Case("repeat 1x28x28x64 twice", lambda a: jnp.repeat(jnp.repeat(a, 2, 1), 2, 2), (f32(1, 28, 28, 64),))
    yield Case("space to depth 1x56x56x64", space_to_depth, (f32(1, 56, 56, 64),))


def space_to_depth(x: Any) -> Any:
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4 * c)


def products() -> Iterator[Case]:
    square, wide, hidden = f32(768, 768), f32(768, 3072), f32(4096, 4096)
    yield Case("product 128x768x768", lambda a: a @ square, (f32(128, 768),))
    yield Case("product 128x768x3072", lambda a: a @ wide, (f32(128, 768),))
    yield Case("product 512x512x512", jnp.matmul, (f32(512, 512), f32(512, 512)))
    yield Case("vector times 4096x4096", lambda a: a @ hidden, (f32(1, 4096),))
    yield Case("vector times 4096x4096 transposed", lambda a: a @ hidden.T, (f32(1, 4096),))
    yield Case("8 rows times 4096x4096 transposed", lambda a: a @ hidden.T, (f32(8, 4096),))
    yield Case(
        "heads of attention 12x128x64x128", lambda q, k: q @ k.swapaxes(1, 2), (f32(12, 128, 64), f32(12, 128, 64))
    )
    yield Case("products of 4x4, 4096 of them", jnp.matmul, (f32(4096, 4, 4), f32(4096, 4, 4)))
    yield Case("products of 16x16, 256 of them", jnp.matmul, (f32(256, 16, 16), f32(256, 16, 16)))
    yield Case("matrix times vector, 1024 of 16x16", lambda a, b: jnp.einsum("bij,bj->bi", a, b),
               (f32(1024, 16, 16), f32(1024, 16)))  # fmt: skip
    yield Case("outer products 256x64x64", lambda a, b: jnp.einsum("bi,bj->bij", a, b), (f32(256, 64), f32(256, 64)))
    yield Case(
        "dot products of rows 4096x64", lambda a, b: jnp.einsum("bi,bi->b", a, b), (f32(4096, 64), f32(4096, 64))
    )
    yield Case("einsum of three, bi,ij,bj->b 64x256", lambda a, w, b: jnp.einsum("bi,ij,bj->b", a, w, b),
               (f32(64, 256), f32(256, 256), f32(64, 256)))  # fmt: skip
    yield Case("einsum of three, bi,bj,ijk->bk 64x64", lambda a, b, w: jnp.einsum("bi,bj,ijk->bk", a, b, w),
               (f32(64, 64), f32(64, 64), f32(64, 64, 64)))  # fmt: skip
    yield Case("attention einsum bqhd,bkhd->bhqk 4x64x8x64", lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k),
               (f32(4, 64, 8, 64), f32(4, 64, 8, 64)))  # fmt: skip
    yield Case("int8 product 128x768x768", lambda a, b: lax.dot(a, b, preferred_element_type=jnp.int32),
               (i32(100, 128, 768).astype(np.int8), i32(100, 768, 768).astype(np.int8)))  # fmt: skip
    yield Case("cholesky 64 of 16x16", lambda a: jnp.linalg.cholesky(a @ a.swapaxes(1, 2) + 16 * jnp.eye(16)),
               (f32(64, 16, 16),))  # fmt: skip
    yield Case("fft 64x1024", lambda a: jnp.abs(jnp.fft.rfft(a)), (f32(64, 1024),))


def convolution(name: str, image: Sequence[int], kernel: Sequence[int], **options: Any) -> Case:
    numbers = {3: ("NWC", "WIO", "NWC"), 4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}[len(image)]
    weights = f32(*kernel) / math.sqrt(math.prod(kernel[:-1]))
    settings = {"window_strides": (1,) * (len(image) - 2), "padding": "SAME", "dimension_numbers": numbers} | options
    return Case(name, lambda x: lax.conv_general_dilated(x, weights, **settings), (f32(*image),))


def convolutions() -> Iterator[Case]:
    yield convolution("convolution 1x1 28x28x512->128", (1, 28, 28, 512), (1, 1, 512, 128))
    yield convolution("convolution 3x3 56x56x64", (1, 56, 56, 64), (3, 3, 64, 64))
    yield convolution("convolution 3x3 14x14x256", (1, 14, 14, 256), (3, 3, 256, 256))
    yield convolution("convolution 7x7/2 224x224x3->64", (1, 224, 224, 3), (7, 7, 3, 64), window_strides=(2, 2))
    yield convolution("convolution 11x11/4 224x224x3->64", (1, 224, 224, 3), (11, 11, 3, 64), window_strides=(4, 4))
    yield convolution(
        "convolution 16x16/16 224x224x3->384", (1, 224, 224, 3), (16, 16, 3, 384), window_strides=(16, 16)
    )
    yield convolution("depthwise 3x3 56x56x144", (1, 56, 56, 144), (3, 3, 1, 144), feature_group_count=144)
    yield convolution("grouped 3x3, 32 groups 28x28x256", (1, 28, 28, 256), (3, 3, 8, 256), feature_group_count=32)
    yield convolution("grouped 3x3, 4 groups 28x28x128", (1, 28, 28, 128), (3, 3, 32, 128), feature_group_count=4)
    yield convolution("dilated 3x3 28x28x128", (1, 28, 28, 128), (3, 3, 128, 128), rhs_dilation=(2, 2))
    yield convolution("transposed 4x4/2 28x28x64", (1, 28, 28, 64), (4, 4, 64, 64), lhs_dilation=(2, 2),
                      padding=((2, 2), (2, 2)))  # fmt: skip
    yield convolution("convolution of sequences 3 1024x64", (1, 1024, 64), (3, 64, 64))
    yield convolution("dilated of sequences 3 4096x32", (1, 4096, 32), (3, 32, 32), rhs_dilation=(8,))
    yield convolution("convolution 3x3x3 16x28x28x32", (1, 16, 28, 28, 32), (3, 3, 3, 32, 32))
    yield convolution("convolution 3x3x3 16x56x56x3->16", (1, 16, 56, 56, 3), (3, 3, 3, 3, 16))
    yield convolution("convolution 1x3x3 16x28x28x32", (1, 16, 28, 28, 32), (1, 3, 3, 32, 32))
    yield convolution("depthwise 3x3x3 16x28x28x32", (1, 16, 28, 28, 32), (3, 3, 3, 1, 32), feature_group_count=32)


def pools() -> Iterator[Case]:
    x = f32(1, 112, 112, 64)
    yield Case("max pool 3x3/2 112x112x64",
               lambda a: lax.reduce_window(a, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"), (x,))  # fmt: skip
    yield Case("sum pool 3x3 112x112x64",
               lambda a: lax.reduce_window(a, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME"), (x,))  # fmt: skip
    yield Case("sum pool 15x15 56x56x32",
               lambda a: lax.reduce_window(a, 0.0, lax.add, (1, 15, 15, 1), (1, 1, 1, 1), "SAME"),
               (f32(1, 56, 56, 32),))  # fmt: skip
    yield Case("max pool 2x2x2/2 16x56x56x16",
               lambda a: lax.reduce_window(a, -jnp.inf, lax.max, (1, 2, 2, 2, 1), (1, 2, 2, 2, 1), "VALID"),
               (f32(1, 16, 56, 56, 16),))  # fmt: skip


def loops() -> Iterator[Case]:
    weights = f32(64, 64) / 8
    yield Case("recurrence of 128 steps 8x64",
               lambda x: lax.scan(lambda c, row: (jnp.tanh(c @ weights + row), None), jnp.zeros((8, 64)), x)[0],
               (f32(128, 8, 64),))  # fmt: skip


FAMILIES = (elementwise, reductions, ordering, indexing, movement, products, convolutions, pools, loops)


# -- measuring ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Roofline:
    """What this machine reaches: bytes per second of NumPy's copy, operations per second of its matrix product."""

    bytes_per_second: float
    flops_per_second: float

    def seconds(self, case: Case) -> float:
        """The least time of a case: its inputs are read and outputs written once, or its products computed."""
        closed = jax.make_jaxpr(case.fn)(*case.inputs)
        arrays = [*closed.in_avals, *closed.out_avals, *closed.consts]
        touched = sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in arrays)
        products = [e for e in closed.jaxpr.eqns if e.primitive.name in ("dot_general", "conv_general_dilated")]
        work = flops(closed.jaxpr) if products else 0.0
        return max(touched / self.bytes_per_second, work / self.flops_per_second)


def measured_roofline() -> Roofline:
    array, matrix = np.ones(4 << 20, np.float32), np.ones((1024, 1024), np.float32)
    target = np.empty_like(array)
    copy = min(_seconds(lambda: np.copyto(target, array)) for _ in range(200))
    product = min(_seconds(lambda: matrix @ matrix) for _ in range(100))
    return Roofline(2 * array.nbytes / copy, 2 * 1024**3 / product)


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measured(case: Case, roofline: Roofline, seconds: float) -> Result:
    """Runs every contender in turns."""
    runs: list[Run] = [_blocking(jax.jit(case.fn), case.inputs), _blocking(xlapass.jit(case.fn), case.inputs)]
    onnx = onnx_run(case)
    if onnx is not None:
        runs.append(onnx)
    outputs = [run() for run in runs]
    error = largest_error(outputs[1], outputs[0])
    if onnx is not None and largest_error(outputs[2], outputs[0]) > TOLERANCE:
        del runs[2]
        onnx = None
    times = alternate(runs, seconds).min(axis=1)
    return Result(case, times[0], times[1], times[2] if onnx is not None else None, roofline.seconds(case), error)


def _blocking(function: Callable[..., Any], inputs: Sequence[Any]) -> Run:
    placed = jax.device_put(list(inputs))
    return lambda: jax.tree.leaves(jax.block_until_ready(function(*placed)))


def onnx_run(case: Case) -> Run | None:
    """ONNX Runtime on what xlapass exports; None where it is not installed or does not have the operation."""
    try:
        import onnxruntime
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "case.onnx")
        try:
            xlapass.compile(case.fn, *case.inputs, pipeline="onnx").save(path)
        except xlapass.XlapassError:
            return None
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [meta.name for meta in session.get_inputs()]
    feed = {name: np.asarray(array) for name, array in zip(names, case.inputs, strict=True)}
    return lambda: session.run(None, feed)


# -- the table ---------------------------------------------------------------------------------------------------------


def markdown(results: Sequence[Result], roofline: Roofline) -> str:
    lines = [
        "# Primitives of `jax.lax`, measured",
        "",
        "Written by `python benchmarks/primitives.py --markdown benchmarks/primitives.md`: microseconds of `jax.jit`,",
        "and how many times faster the others are, by the shortest of alternating runs in one process. The roofline",
        f"is {roofline.bytes_per_second / 1e9:.0f} GB/s (NumPy's copy, one core) and "
        f"{roofline.flops_per_second / 1e9:.0f} GFLOP/s (its matrix product); what stays in the cache exceeds it.",
        f"jax {jax.__version__}, {platform.machine()}, {thread_count()} cores.",
        "",
        "| operation | jax.jit µs | xlapass.jit | ONNX Runtime | roofline |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for one in results:
        onnx = "" if one.onnx is None else f"{one.plain / one.onnx:.2f}x"
        ours = f"{one.plain / one.ours:.2f}x"
        lines.append(f"| {one.case.name} | {1e6 * one.plain:.0f} | {ours} | {onnx} | {one.plain / one.roofline:.1f}x |")
    both = [one.ours / one.onnx for one in results if one.onnx is not None]
    lines += ["", f"Geometric mean of xlapass.jit's gain: {geometric_mean([r.plain / r.ours for r in results]):.2f}x."]
    if both:
        lines.append(f"ONNX Runtime to xlapass.jit, geometric mean: {geometric_mean(both):.2f}x as fast.")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="", help="measure the cases whose names hold this")
    parser.add_argument("--seconds", type=float, default=0.6, help="for each case (default: 0.6)")
    parser.add_argument("--markdown", metavar="FILE", help="write the table there")
    options = parser.parse_args(arguments)
    roofline = measured_roofline()
    results = []
    for case in (case for family in FAMILIES for case in family()):
        if options.part not in case.name:
            continue
        result = measured(case, roofline, options.seconds)
        results.append(result)
        onnx = "-" if result.onnx is None else f"{result.plain / result.onnx:.2f}x"
        wrong = "" if result.error < TOLERANCE else f"  WRONG by {result.error:.1g}"
        print(
            f"{case.name:<52}{1e6 * result.plain:>10.0f} us{result.plain / result.ours:>9.2f}x{onnx:>9}"
            f"{result.plain / result.roofline:>9.1f}x{wrong}",
            flush=True,
        )
    if options.markdown:
        Path(options.markdown).write_text(markdown(results, roofline))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
