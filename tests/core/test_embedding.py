"""Which constants become literals of the executable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from xlapass.core import embedding
from xlapass.core.embedding import SMALL_BYTES, constants_to_embed

NUMBERS = ("NHWC", "HWIO", "NHWC")


def array(*shape, dtype=np.float32):
    return jnp.zeros(shape, dtype)


def conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS)


def embedded(function, *args):
    """The shapes of the constants that are embedded, and of those that are not."""
    program = jax.make_jaxpr(function)(*args)
    choice = constants_to_embed(program)
    inside: list = []
    outside: list = []
    for const, embeds in zip(program.consts, choice, strict=True):
        (inside if embeds else outside).append(const.shape)
    return inside, outside


KERNEL = array(3, 3, 32, 64)  # 73 kB
IMAGE = array(1, 8, 8, 32)


def test_small_arrays_are_embedded():
    small, large = array(SMALL_BYTES // 4), array(SMALL_BYTES // 4 + 1)
    assert embedded(lambda x: (x + small, x + large), 1.0) == ([small.shape], [large.shape])


def test_kernels_are_embedded_and_weights_of_products_are_not():
    weights = array(64, 256)
    assert embedded(lambda x: conv(x, KERNEL) @ weights, IMAGE) == ([KERNEL.shape], [weights.shape])


def test_the_image_of_a_convolution_is_no_kernel():
    image = array(1, 64, 64, 32)
    assert embedded(lambda kernel: conv(image, kernel), KERNEL) == ([], [image.shape])


def test_kernels_behind_operations_that_xla_folds():
    kernel = array(64, 32, 3, 3, dtype=np.float16)

    def function(x):
        return conv(x, jnp.transpose(kernel, (2, 3, 1, 0)).astype(jnp.float32))

    assert embedded(function, IMAGE) == ([kernel.shape], [])


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, jax.custom_jvp], ids=["jit", "remat", "custom_jvp"])
def test_kernels_inside_calls(wrap):
    wrapped = wrap(lambda x, kernel: jnp.sin(conv(x, kernel)))
    if wrap is jax.custom_jvp:
        wrapped.defjvp(lambda primals, tangents: (wrapped(*primals), tangents[0]))
    assert embedded(lambda x: wrapped(x, KERNEL), IMAGE) == ([KERNEL.shape], [])


def test_kernels_inside_composites():
    wrapped = jax.lax.composite(conv, "my.conv")
    assert embedded(lambda x: wrapped(x, KERNEL), IMAGE) == ([KERNEL.shape], [])


def test_kernels_inside_loops_stay_arguments():
    kernel = array(3, 3, 32, 32)

    def loop(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: conv(x, kernel), x)

    assert embedded(loop, IMAGE) == ([], [kernel.shape])


def test_too_many_kernels_are_not(monkeypatch):
    monkeypatch.setattr(embedding, "KERNEL_BYTES", KERNEL.nbytes)
    assert embedded(lambda x: conv(x, KERNEL), IMAGE) == ([KERNEL.shape], [])
    monkeypatch.setattr(embedding, "KERNEL_BYTES", KERNEL.nbytes - 1)
    assert embedded(lambda x: conv(x, KERNEL), IMAGE) == ([], [KERNEL.shape])


def test_a_kernel_used_twice_counts_once(monkeypatch):
    monkeypatch.setattr(embedding, "KERNEL_BYTES", KERNEL.nbytes)
    assert embedded(lambda x: conv(x, KERNEL) + conv(2 * x, KERNEL), IMAGE) == ([KERNEL.shape], [])


def test_no_constants():
    assert constants_to_embed(jax.make_jaxpr(jnp.sin)(1.0)) == ()


def test_what_loops_join_is_embedded():
    gates, other = [array(32, 32), array(32, 64)], array(96, 32)

    def cell(carry, _):
        return jnp.tanh(carry @ jnp.concatenate(gates, axis=1) @ other), None

    inside, outside = embedded(lambda x: jax.lax.scan(cell, x, None, length=3)[0], array(1, 32))
    assert (sorted(inside), outside) == ([(32, 32), (32, 64)], [other.shape])
    loop = lambda x: jax.lax.while_loop(lambda y: y[0, 0] < 1, lambda y: cell(y, 0)[0], x)  # noqa: E731
    inside, outside = embedded(loop, array(1, 32))
    assert (sorted(inside), outside) == ([(32, 32), (32, 64)], [other.shape])
