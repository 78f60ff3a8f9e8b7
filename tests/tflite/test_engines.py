"""The same programs on both engines, and what is particular to each."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from jax import lax
from xlapass.backends.tflite import engines
from xlapass.backends.tflite.assembly import facts_of
from xlapass.backends.tflite.backend import TfliteBackend
from xlapass.backends.tflite.report import operation_counts

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 8)).astype(np.float32)
IMAGE = RNG.standard_normal((1, 4, 8, 8)).astype(np.float32)
KERNEL = RNG.standard_normal((8, 4, 3, 3)).astype(np.float32)
WEIGHTS = RNG.standard_normal((8, 8)).astype(np.float32)

CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "activations": (lambda x: [jax.nn.gelu(x, approximate=a) for a in (True, False)] + [jax.nn.softmax(x)], (X,)),
    "special": (lambda x: (lax.erf(x), jnp.sinh(x), jnp.arcsinh(x), jnp.cbrt(x), lax.rem(x, x * x + 1)), (X,)),
    "order": (lambda x: (jnp.sort(x, -1), lax.top_k(x, 3), jnp.argmax(x, 0), jnp.median(x, -1)), (X,)),
    "loops": (lambda x: lax.scan(lambda c, t: (jnp.tanh(t + c @ WEIGHTS), c), jnp.zeros(8), x), (X,)),
    "indices": (lambda t, i: (t[i], t.at[i].add(1.0), jnp.take(t, i, axis=0, mode="fill")), (X, np.int32([1, 3, 9]))),
    "channels_first": (
        lambda x: jax.nn.relu(
            lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))
        ).mean((2, 3)),
        (IMAGE,),
    ),
    "types": (
        lambda h, b, n, z: (h * 2, b + 1, n - 1, z * (1 + 2j)),
        (X.astype(np.float16), jnp.asarray(X, jnp.bfloat16), np.arange(6, dtype=np.uint8), (X + 1j * X)),
    ),
    "nothing": (lambda x, y: (x, jnp.ones(3), x + 1, x), (X, X)),
}


def agrees(artifact: Any, fn: Any, args: tuple[Any, ...]) -> None:
    want, have = (jax.tree.leaves(f(*args)) for f in (jax.jit(fn), artifact.executable(num_threads=1)))
    for a, b in zip(want, have, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        tolerance = 2e-2 if a.dtype.itemsize == 2 else 1e-4
        wide = np.complex64 if a.dtype.kind == "c" else np.float32
        np.testing.assert_allclose(np.asarray(b, wide), np.asarray(a, wide), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_litert(name, compiled):
    fn, args = CASES[name]
    agrees(compiled(fn, *args), fn, args)


def test_tensorflow(tensorflow):
    """All cases as one program: importing TensorFlow takes seconds."""
    sizes = [len(args) for _, args in CASES.values()]
    starts = np.cumsum([0, *sizes])
    arguments = tuple(a for _, args in CASES.values() for a in args)

    def every(*flat):
        parts = zip(CASES.values(), starts[:-1], sizes, strict=True)
        return [fn(*flat[start : start + size]) for (fn, _), start, size in parts]

    artifact = xlapass.compile(every, *arguments, pipeline="tflite", backend=TfliteBackend(**tensorflow))
    agrees(artifact, every, arguments)
    counts = operation_counts(artifact.model)
    assert (counts["GELU"], counts["SOFTMAX"], counts["CONV_2D"]) == (2, 1, 1)
    assert facts_of(artifact.model)["tensorflow-cpu"].startswith("2.")


def test_tensorflow_chooses(tensorflow):
    def fn(i, x):
        return lax.switch(i, [jnp.sin, jnp.cos, jnp.tanh], lax.switch(i, [jnp.tanh, jnp.cos, jnp.sin, jnp.abs], x))

    artifact = xlapass.compile(fn, np.int32(2), X, pipeline="tflite", backend=TfliteBackend(**tensorflow))
    for index in (-1, 1, 9):
        agrees(artifact, fn, (np.int32(index), X))


def test_tensorflow_at_every_size(tensorflow):
    def fn(x):
        return jax.nn.softmax(jnp.concatenate([jnp.zeros((x.shape[0], 1)), x], 1) @ jnp.ones((9, 8))) * x.shape[0]

    program = xlapass.trace(fn, X, dynamic="b, ...")
    artifact = xlapass.compile(program, pipeline="tflite", backend=TfliteBackend(**tensorflow))
    for size in (1, 6):
        x = RNG.standard_normal((size, 8)).astype(np.float32)
        agrees(artifact, fn, (x,))


def test_tensorflow_copies_weights_few_times(tensorflow):
    """128 MB of them in 4 GB of addresses, of which TensorFlow's libraries take half."""
    weights = RNG.standard_normal((2, 4096, 4096), np.float32) / 64
    backend = TfliteBackend(**tensorflow, memory=4 << 30)
    artifact = xlapass.compile(
        lambda x: x @ weights[0] @ weights[1], weights[0, :1], pipeline="tflite", backend=backend
    )
    assert operation_counts(artifact.model) == {"FULLY_CONNECTED": 2}


def test_the_engine_is_chosen_by_what_is_installed(monkeypatch):
    assert engines.choose("auto", "").name == "litert"
    litert = engines.dataclasses.replace(engines.LITERT, module="no_such_module")
    found = engines.dataclasses.replace(engines.TENSORFLOW, module="json")
    monkeypatch.setattr(engines, "ENGINES", {"litert": litert, "tensorflow": found})
    assert engines.choose("auto", "").name == "tensorflow"
    assert engines.choose("litert", "/usr/bin/another").name == "litert"


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (functools.partial(jax.nn.gelu, approximate=False), {"GELU": 1}),
        (jax.nn.gelu, {"GELU": 1}),
        (jax.nn.hard_swish, {"HARD_SWISH": 1}),
        (jax.nn.softmax, {"SOFTMAX": 1}),
        (jax.nn.log_softmax, {"LOG_SOFTMAX": 1}),
        (jax.nn.elu, {"ELU": 1}),
        (jax.nn.leaky_relu, {"LEAKY_RELU": 1}),
        (jax.nn.relu6, {"RELU6": 1}),
        (jax.nn.silu, {"LOGISTIC": 1, "MUL": 1}),
        (lambda x: x.mean(-1), {"MEAN": 1}),
        (lambda x: jax.nn.relu(x @ WEIGHTS + 1), {"FULLY_CONNECTED": 1}),
        (lambda x: jax.image.resize(x.reshape(1, 4, 8, 1), (1, 8, 16, 1), "bilinear"), {"RESIZE_BILINEAR": 1}),
        (lambda x: jax.image.resize(x.reshape(1, 4, 8, 1), (1, 8, 16, 1), "nearest"), {"RESIZE_NEAREST_NEIGHBOR": 1}),
    ],
)
def test_single_operators(fn, expected, compiled):
    counts = operation_counts(compiled(fn, X).model)
    counts.pop("RESHAPE", None)
    assert dict(counts) == expected


def test_channels_first_models_have_no_transposes_inside(compiled):
    def conv(x, stride=1, groups=1):
        kernel = KERNEL if groups == 1 else KERNEL[:, :1].repeat(1, 1)
        dims = ("NCHW", "OIHW", "NCHW")
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=dims, feature_group_count=groups
        )

    def network(x):
        y = jax.nn.relu6(conv(x))
        z = conv(y[:, :4], stride=2)
        gate = jax.nn.sigmoid(z.mean((2, 3), keepdims=True))
        pooled = lax.reduce_window(z * gate, -np.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return jax.nn.log_softmax(pooled.mean((2, 3)))

    counts = operation_counts(compiled(network, IMAGE).model)
    assert counts["TRANSPOSE"] == 1  # of the input
    assert counts["MAX_POOL_2D"] == 1 and counts["CONV_2D"] == 2
    assert counts["MEAN"] + counts["SUM"] == 2
