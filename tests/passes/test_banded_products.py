"""`banded-products`: products with matrices of few numbers a row."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from support import operations
from xlapass.core.manager import PassManager
from xlapass.core.program import Program
from xlapass.core.tracing import trace
from xlapass.passes.banded_products import Band

FORCED = "banded-products{least-gain=0}"


def changed(fn: Any, *args: Any, pipeline: str = FORCED) -> tuple[Program, Program]:
    program = trace(fn, *args)
    after = PassManager(pipeline).run(program)
    for want, have in zip(program.evaluate_flat(args), after.evaluate_flat(args), strict=True):
        assert (have.shape, have.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)
    return program, after


@settings(max_examples=15)
@given(st.data())
def test_any_matrix_on_either_side(data: Any) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    inputs, outputs, width = (data.draw(st.integers(1, 9)) for _ in range(3))
    matrix = np.zeros((outputs, inputs), np.float32)
    for row in range(outputs):
        start = int(rng.integers(-2, inputs))
        taps = slice(max(start, 0), max(start + min(width, 8), 0))
        matrix[row, taps] = rng.integers(-3, 4, matrix[row, taps].shape)
    axis, flipped, first = data.draw(st.integers(0, 1)), data.draw(st.booleans()), data.draw(st.booleans())
    shape = [3, 3, 8]
    shape[axis] = inputs
    constant = jnp.asarray(matrix.T if flipped else matrix)
    contract = 0 if flipped else 1

    def fn(x: Any) -> Any:
        if first:
            return lax.dot_general(constant, x, (((contract,), (axis,)), ((), ())))
        return lax.dot_general(x, constant, (((axis,), (contract,)), ((), ())))

    _, after = changed(fn, rng.integers(-4, 5, shape).astype(np.float32))
    assert "dot_general" not in operations(after)


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "lanczos3"])
@pytest.mark.parametrize("size", [(16, 12), (5, 4), (13, 9)])
def test_resized_images(method: str, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).standard_normal((2, 8, 6, 16)).astype(np.float32)
    changed(lambda x: jax.image.resize(x, (2, *size, 16), method), image, pipeline=f"inline,fold-constants,{FORCED}")


def test_a_large_bilinear_resize_on_the_cpu() -> None:
    image = np.random.default_rng(0).standard_normal((1, 48, 48, 32)).astype(np.float32)
    fn = lambda x: jax.image.resize(x, (1, 96, 96, 32), "bilinear")  # noqa: E731
    artifact = xlapass.compile(fn, image)
    assert "dot_general" not in operations(artifact.program)
    np.testing.assert_allclose(artifact.executable()(image), fn(image), rtol=1e-5, atol=1e-5)
    assert "dot_general" in operations(xlapass.compile(fn, image, numerics="exact").program)


X = np.ones((3, 8, 8), np.float32)
EYE = np.eye(8, dtype=np.float32)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x @ EYE,  # along the last axis
        lambda x: jnp.einsum("abc,bd->adc", x, np.ones((8, 8), np.float32) if x.shape[0] < 9 else EYE)[:, :4] @ x,
        lambda x: jnp.einsum("abc,adc->bd", x, x),
        lambda x: jnp.einsum("abc,bd->adc", x.astype(jnp.bfloat16), EYE.astype(jnp.bfloat16)),
        lambda x: jnp.einsum("abc,abd->acd", x, np.broadcast_to(EYE, (3, 8, 8))),
        lambda x: jnp.einsum("abc,bd->adc", x[:0], EYE),
        lambda x: jnp.einsum("abc,bcd->ad", x, np.ones((8, 8, 2), np.float32)),
    ],
)
def test_what_stays_a_product(fn: Any) -> None:
    before, after = changed(fn, X, pipeline="inline,fold-constants,banded-products")
    assert operations(before).count("dot_general") == operations(after).count("dot_general") > 0


def test_wide_bands_and_small_products_stay() -> None:
    wide = np.ones((9, 9), np.float32)
    _, after = changed(lambda x: jnp.einsum("bc,bd->dc", x, wide), np.ones((9, 16), np.float32))
    assert "dot_general" in operations(after)
    _, after = changed(lambda x: jnp.einsum("abc,bd->adc", x, EYE), X, pipeline="banded-products")
    assert "dot_general" in operations(after)


def test_symbolic_sizes_stay() -> None:
    program = trace(lambda x: jnp.einsum("abc,bd->adc", x, EYE), X, dynamic="b, ...")
    assert "dot_general" in operations(PassManager(FORCED).run(program))


def test_bands() -> None:
    band = Band.of(np.array([[1, 2, 0], [0, 0, 3], [0, 0, 0]], np.float32))
    np.testing.assert_array_equal(band.starts, [0, 1, 0])
    np.testing.assert_array_equal(band.weights, [[1, 0, 0], [2, 3, 0]])
