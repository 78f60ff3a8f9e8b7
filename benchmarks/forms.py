"""Measures every lowering form against the primitive, and what the static cost model picks.

    python benchmarks/forms.py [PART OF A NAME]

For each typical signature: the primitive's median time, and for each form how many times faster it is, measured in
alternation in one process; a star marks the choice of the cost model, with its own estimates in brackets. The last
lines say where the choice lost time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from xlapass.core.forms import DIRECT, Signature
from xlapass.core.graph import Graph
from xlapass.core.plugins import load_registry
from xlapass.passes.select_forms import form_table
from xlapass.passes.tune import time_forms

Case = tuple[str, Callable[..., Any], Sequence[tuple[tuple[int, ...], Any]], Sequence[int]]
"""Name, function of one primitive, types of its operands, indices of the constant ones."""

NHWC, NWC, NDHWC = ("NHWC", "HWIO", "NHWC"), ("NWC", "WIO", "NWC"), ("NDHWC", "DHWIO", "NDHWC")
F32, BF16 = jnp.float32, jnp.bfloat16


def convolution(
    name: str, image: Sequence[int], kernel: Sequence[int], dtype: Any = F32, constant: bool = True, **options: Any
) -> Case:
    numbers = {3: NWC, 4: NHWC, 5: NDHWC}[len(image)]
    options = {"window_strides": (1,) * (len(image) - 2), "padding": "SAME", "dimension_numbers": numbers} | options
    fn = lambda x, w: lax.conv_general_dilated(x, w, **options)  # noqa: E731
    return name, fn, [(tuple(image), dtype), (tuple(kernel), dtype)], (1,) if constant else ()


def convolutions() -> Iterator[Case]:
    for size, features, window, stride in [
        (112, 32, 3, 1), (112, 96, 3, 2), (56, 144, 3, 1), (56, 144, 5, 2), (28, 240, 5, 1), (14, 384, 3, 1),
        (14, 672, 5, 1), (7, 960, 3, 1), (7, 1152, 5, 1), (56, 96, 7, 1), (14, 384, 7, 1), (7, 768, 7, 1),
    ]:  # fmt: skip
        yield convolution(
            f"depthwise {window}x{window}/{stride} {size}x{size}x{features}",
            (1, size, size, features), (window, window, 1, features),
            window_strides=(stride, stride), feature_group_count=features,
        )  # fmt: skip
    for size, depth, out, stride in [
        (112, 32, 16, 1), (112, 16, 96, 1), (56, 24, 144, 1), (56, 144, 24, 1), (56, 64, 256, 1), (56, 256, 64, 1),
        (28, 40, 240, 1), (28, 512, 128, 1), (14, 64, 384, 1), (14, 384, 64, 1), (14, 256, 1024, 1), (7, 160, 960, 1),
        (7, 960, 320, 1), (7, 512, 2048, 1), (7, 2048, 512, 1), (1, 480, 20, 1), (56, 256, 512, 2), (56, 64, 128, 2),
    ]:  # fmt: skip
        yield convolution(
            f"1x1/{stride} {size}x{size}x{depth}->{out}",
            (1, size, size, depth), (1, 1, depth, out), window_strides=(stride, stride),
        )  # fmt: skip
    for size, depth, out, stride in [
        (224, 3, 32, 2), (128, 64, 64, 1), (112, 64, 64, 1), (56, 64, 64, 1), (56, 32, 32, 1), (56, 128, 32, 1),
        (28, 128, 128, 1), (28, 128, 32, 1), (14, 256, 256, 1), (14, 128, 32, 1), (7, 512, 512, 1), (7, 128, 32, 1),
        (28, 256, 256, 1), (14, 512, 512, 1), (56, 64, 128, 2), (14, 256, 512, 2), (32, 16, 16, 1), (64, 3, 64, 1),
    ]:  # fmt: skip
        yield convolution(
            f"3x3/{stride} {size}x{size}x{depth}->{out}",
            (1, size, size, depth), (3, 3, depth, out), window_strides=(stride, stride),
        )  # fmt: skip
    yield convolution("3x3 24x24x64 of 8, kernel not constant", (8, 24, 24, 64), (3, 3, 64, 64), constant=False)
    yield convolution("3x3 3x3x512 of 8, kernel not constant", (8, 3, 3, 512), (3, 3, 512, 512), constant=False)
    yield convolution("7x7/2 224x224x3->64", (1, 224, 224, 3), (7, 7, 3, 64), window_strides=(2, 2))
    yield convolution("4x4/4 224x224x3->96", (1, 224, 224, 3), (4, 4, 3, 96), window_strides=(4, 4), padding="VALID")
    yield convolution("3x3 dilated 2, 28x28x256", (1, 28, 28, 256), (3, 3, 256, 256), rhs_dilation=(2, 2))
    for size, features, groups in [
        (28, 256, 32),
        (56, 128, 32),
        (14, 512, 32),
        (28, 128, 4),
        (56, 48, 2),
        (14, 240, 15),
    ]:
        yield convolution(
            f"3x3 {size}x{size}x{features}, {groups} groups",
            (1, size, size, features), (3, 3, features // groups, features), feature_group_count=groups,
        )  # fmt: skip
    for size, depth, out in [(8, 512, 256), (16, 256, 128), (32, 128, 64), (64, 64, 3)]:
        yield convolution(
            f"transposed 4x4/2 {size}x{size}x{depth}->{out}",
            (1, size, size, depth), (4, 4, depth, out), lhs_dilation=(2, 2), padding=[(2, 2), (2, 2)],
        )  # fmt: skip
    yield convolution(
        "transposed 2x2/2 28x28x128->64", (1, 28, 28, 128), (2, 2, 128, 64), lhs_dilation=(2, 2), padding=[(1, 1)] * 2
    )
    yield convolution(
        "transposed depthwise 3x3/2 28x28x192", (1, 28, 28, 192), (3, 3, 1, 192),
        lhs_dilation=(2, 2), padding=[(1, 2), (1, 2)], feature_group_count=192,
    )  # fmt: skip
    for size, depth, out, window, dilation in [(4096, 64, 64, 2, 4), (4096, 64, 128, 3, 1), (1000, 256, 256, 3, 1)]:
        yield convolution(
            f"1-D {window} dilated {dilation}, {size}x{depth}->{out}",
            (1, size, depth), (window, depth, out),
            rhs_dilation=(dilation,), padding=[((window - 1) * dilation, 0)],
        )  # fmt: skip
    yield convolution("1-D depthwise 31, 400x512", (1, 400, 512), (31, 1, 512), feature_group_count=512)
    yield convolution("3x3x3 16x28x28x32", (1, 16, 28, 28, 32), (3, 3, 3, 32, 32))
    yield convolution("3x3x3 8x14x14x128", (1, 8, 14, 14, 128), (3, 3, 3, 128, 128))
    yield convolution("3x3x3/2 16x56x56x3->64", (1, 16, 56, 56, 3), (3, 3, 3, 3, 64), window_strides=(2, 2, 2))
    yield convolution("3x3x3 depthwise 16x28x28x32", (1, 16, 28, 28, 32), (3, 3, 3, 1, 32), feature_group_count=32)
    weights = lax.ConvDimensionNumbers((3, 0, 1, 2), (3, 0, 1, 2), (2, 3, 0, 1))
    for size, depth, out, stride, pads in [
        (24, 64, 64, 1, (1, 1)), (12, 128, 128, 1, (1, 1)), (6, 256, 256, 1, (1, 1)), (3, 512, 512, 1, (1, 1)),
        (24, 64, 128, 2, (1, 0)), (12, 128, 256, 2, (0, -1)),
    ]:  # fmt: skip
        yield convolution(
            f"weight gradient {size}x{size}x{depth}->{out}/{stride} of 8",
            (8, size, size, depth), (8, size // stride, size // stride, out), constant=False,
            padding=[pads, pads], rhs_dilation=(stride, stride), dimension_numbers=weights,
        )  # fmt: skip
    yield convolution(
        "weight gradient, depthwise 14x14x384 of 8", (8, 14, 14, 384), (8, 14, 14, 384), constant=False,
        padding=[(1, 1), (1, 1)], batch_group_count=384, dimension_numbers=weights,
    )  # fmt: skip
    images = lax.ConvDimensionNumbers((0, 3, 1, 2), (2, 3, 0, 1), (0, 3, 1, 2))
    for size, features in [(24, 64), (12, 128), (6, 256), (3, 512)]:
        yield convolution(
            f"image gradient 3x3 {size}x{size}x{features} of 8", (8, size, size, features), (3, 3, features, features),
            constant=False, padding=[(1, 1), (1, 1)], dimension_numbers=images,
        )  # fmt: skip
    yield convolution(
        "image gradient 3x3/2 12x12x128->64 of 8", (8, 12, 12, 128), (3, 3, 64, 128), constant=False,
        padding=[(1, 2), (1, 2)], lhs_dilation=(2, 2), dimension_numbers=images,
    )  # fmt: skip
    yield convolution(
        "image gradient 1x1/2 12x12x128->64 of 8", (8, 12, 12, 128), (1, 1, 64, 128), constant=False,
        padding=[(0, 1), (0, 1)], lhs_dilation=(2, 2), dimension_numbers=images,
    )  # fmt: skip
    for size, depth, out in [(224, 3, 16), (224, 1, 32), (64, 3, 96)]:
        yield convolution(f"3x3/2 {size}x{size}x{depth}->{out}", (1, size, size, depth), (3, 3, depth, out),
                          window_strides=(2, 2))  # fmt: skip
    yield convolution("bfloat16 3x3 28x28x128", (1, 28, 28, 128), (3, 3, 128, 128), BF16)
    yield convolution(
        "bfloat16 depthwise 3x3 28x28x192", (1, 28, 28, 192), (3, 3, 1, 192), BF16, feature_group_count=192
    )


def pools() -> Iterator[Case]:
    for kind, reducer, init in (("max", lax.max, -jnp.inf), ("sum", lax.add, 0.0)):
        for size, features, window, stride, padding in [
            (112, 64, 3, 2, "SAME"), (112, 64, 3, 1, "SAME"), (28, 192, 3, 1, "SAME"), (14, 480, 13, 1, "SAME"),
            (20, 256, 5, 1, "SAME"), (56, 64, 3, 2, "VALID"), (57, 64, 2, 2, "SAME"),
        ]:  # fmt: skip
            shape = (1, window, window, 1), (1, stride, stride, 1)
            fn = lambda x, r=reducer, i=init, s=shape, p=padding: lax.reduce_window(x, i, r, *s, p)  # noqa: E731
            name = f"{kind} pool {window}x{window}/{stride} {size}x{size}x{features} {padding}"
            yield name, fn, [((1, size, size, features), F32)], ()
    for size, features, window, stride in [(48, 64, 3, 2), (28, 64, 2, 2), (14, 128, 3, 1)]:
        pads = ((0, 0), (1, 1), (1, 1), (0, 0)) if window == 3 else ((0, 0),) * 4
        out = (size + sum(pads[1]) - window) // stride + 1
        params = {
            "select_prim": lax.ge_p, "window_dimensions": (1, window, window, 1),
            "window_strides": (1, stride, stride, 1), "padding": pads,
        }  # fmt: skip
        fn = lambda s, x, p=params: jax.extend.core.primitives.select_and_scatter_add_p.bind(s, x, **p)  # noqa: E731
        types = [((8, out, out, features), F32), ((8, size, size, features), F32)]
        yield f"max pool gradient {window}x{window}/{stride} {size}x{size}x{features} of 8", fn, types, ()


def others() -> Iterator[Case]:
    for shape, axis in [((8, 50257), 1), ((64, 1000), 1), ((1, 1000), 1), ((1024, 10), 1), ((1, 256, 256, 21), 3),
                        ((1, 21, 256, 256), 1), ((128, 128, 64), 1)]:  # fmt: skip
        fn = lambda x, axis=axis: lax.argmax(x, axis, jnp.int32)  # noqa: E731
        yield f"argmax {shape} axis {axis}", fn, [(shape, F32)], ()
    for shape, axis in [((64, 4096), 1), ((4096, 64), 0), ((8, 128, 1024), 1), ((1024, 1024), 0), ((1024, 8), 0),
                        ((16, 128), 1), ((8, 50257), 1)]:  # fmt: skip
        yield f"cumsum {shape} axis {axis}", lambda x, a=axis: lax.cumsum(x, axis=a), [(shape, F32)], ()
        yield f"cummax {shape} axis {axis}", lambda x, a=axis: lax.cummax(x, axis=a), [(shape, F32)], ()
    for shape, k in [((4096, 8), 2), ((4096, 64), 2), ((1024, 100), 5), ((16384, 32), 4), ((32, 100), 8), ((1, 64), 4)]:
        yield f"top {k} of {shape}", lambda x, k=k: lax.top_k(x, k), [(shape, F32)], ()
    for rows, depth, columns in [(1, 4096, 4096), (4, 768, 3072), (16, 768, 3072), (128, 768, 3072)]:
        for dtype in (F32, BF16):
            fn = lambda x, w: lax.dot_general(x, w, (((1,), (1,)), ((), ())))  # noqa: E731
            name = f"{jnp.dtype(dtype).name} product {rows}x{depth} with transposed constant {columns}x{depth}"
            yield name, fn, [((rows, depth), dtype), ((columns, depth), dtype)], (1,)
    for depth, columns in [(768, 3072), (3072, 768), (1280, 1000), (768, 50257), (256, 256)]:
        fn = lambda x, w: lax.dot_general(x, w, (((1,), (0,)), ((), ())))  # noqa: E731
        types = [((1, depth), F32), ((depth, columns), F32)]
        yield f"one row of {depth} with constant {depth}x{columns}", fn, types, (1,)
    for queries, length in [(1, 256), (4, 1024), (128, 128)]:
        fn = lambda q, k: lax.dot_general(q, k, (((3,), (3,)), ((0, 2), (0, 2))))  # noqa: E731
        types = [((1, queries, 12, 64), F32), ((1, length, 12, 64), F32)]
        yield f"{queries} queries with {length} keys of 12 heads", fn, types, ()
    sizes = [(4096, 2, 2, 2), (4096, 3, 3, 3), (4096, 4, 4, 4), (4096, 4, 4, 1)]
    sizes += [(4096, 8, 4, 8), (64, 4, 4, 4), (192, 49, 32, 49), (4096, 1, 8, 8)]
    for batch, rows, depth, columns in sizes:
        types = [((batch, rows, depth), F32), ((batch, depth, columns), F32)]
        yield f"{batch} products {rows}x{depth}x{columns}", lambda x, y: jax.lax.batch_matmul(x, y), types, ()


def main(wanted: str) -> None:
    table = form_table(load_registry())
    losses = []
    for name, fn, types, constant in (*convolutions(), *pools(), *others()):
        if wanted not in name:
            continue
        specs = [jax.ShapeDtypeStruct(*entry) for entry in types]
        (node,) = Graph(jax.make_jaxpr(fn)(*specs)).nodes()
        avals = [value.aval for value in node.inputs], [value.aval for value in node.outputs]
        signature = Signature.of(node.name, *avals, node.params, constant)
        forms = table.candidates(signature)[0]
        choice = table.choose(signature)
        times = time_forms(signature, node.primitive, forms, table)
        shown = []
        for form, seconds in times.items():
            found = table.find(node.name, form)
            estimate = table.direct_cost(signature) if form == DIRECT or found is None else found.cost(signature)
            ratio = "" if form == DIRECT else f" {times[DIRECT] / seconds:.2f}x"
            star = "*" if form == choice.form else ""
            shown.append(f"{star}{form}{ratio} {seconds * 1e6:.0f} us [{estimate * 1e6:.0f}]")
        print(f"{name}: {', '.join(shown)}", flush=True)
        best = min(times, key=times.__getitem__)
        losses.append((times[choice.form] / times[best], times[choice.form] / times[DIRECT], name, choice.form, best))
    print("\nslower than the best form by the factor, and than the primitive by the second one:")
    for loss, harm, name, chosen, best in sorted(losses, reverse=True):
        if loss > 1.15 or harm > 1.03:
            print(f"{loss:.2f} {harm:.2f} {name}: chose {chosen}, best is {best}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
