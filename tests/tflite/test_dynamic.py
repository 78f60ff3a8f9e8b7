"""One file for every size: equal to JAX at each, and bit for bit to the file of that size alone."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from jax import lax
from xlapass.backends.tflite import flatbuffer
from xlapass.backends.tflite.dynamic import NotUniform, Size, merge, trial_sizes
from xlapass.core.specialize import sizes_of, specialize, symbols

RNG = np.random.default_rng(0)
WEIGHTS = [RNG.standard_normal((16, 16)).astype(np.float32) / 4 for _ in range(4)]
KERNEL = RNG.standard_normal((3, 3, 4, 8)).astype(np.float32)
TOKEN = RNG.standard_normal((1, 1, 16)).astype(np.float32)


def encoder(x):
    """A class token, attention, GELU, layer norm: what a vision transformer does."""
    b, t, d = x.shape
    q, k, v, w = WEIGHTS
    h = jnp.concatenate([jnp.broadcast_to(TOKEN, (b, 1, d)), x], 1)
    heads = [(h @ m).reshape(b, t + 1, 4, 4) for m in (q, k, v)]
    h = h + jax.nn.gelu(jax.nn.dot_product_attention(*heads).reshape(b, t + 1, d) @ w)
    h = (h - h.mean(-1, keepdims=True)) * lax.rsqrt(h.var(-1, keepdims=True) + 1e-5)
    return h[:, 0], h.reshape(-1, d)


def recurrent(x):
    """The carry starts from zeros of the batch's size."""
    start = jnp.zeros((x.shape[0], 16))
    return lax.scan(lambda c, t: (jnp.tanh(c @ WEIGHTS[0] + t), c), start, jnp.swapaxes(x, 0, 1))


def convolutional(x):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.nn.relu(lax.conv_general_dilated(x, KERNEL, (2, 2), "SAME", dimension_numbers=dims)).mean((1, 2))


def sizes_as_numbers(x):
    return x[:, 1:3], jnp.argmax(x, -1), x.mean(0), x.sum() * x.shape[0], jnp.ones((x.shape[0], 2)), x[::-1]


def line_by_line(x):
    """Where lines start depends on how many there are before."""
    count = jnp.arange(x.shape[0])
    return jnp.sort(x, 1), lax.top_k(x, 2), x[count, jnp.argmax(x, 1)], x + 2 * count[:, None]


CASES = {
    "encoder": (encoder, "b, t, 16", [(1, 1, 16), (2, 5, 16)]),
    "recurrent": (recurrent, "b, ...", [(2, 5, 16), (1, 5, 16)]),
    "convolutional": (convolutional, "b, ...", [(2, 8, 8, 4), (5, 8, 8, 4)]),
    "sizes_as_numbers": (sizes_as_numbers, "b, ...", [(4, 6), (1, 6)]),
    "line_by_line": (line_by_line, "b, ...", [(3, 6), (1, 6), (8, 6)]),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_at_every_size(name, compiled):
    fn, dynamic, shapes = CASES[name]
    inputs = [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    artifact = compiled(xlapass.trace(fn, inputs[0], dynamic=dynamic))
    run = artifact.executable()
    for x in inputs:
        have = jax.tree.leaves(run(x))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), have, jax.tree.leaves(fn(x)))
    alone = jax.tree.leaves(compiled(fn, inputs[-1]).executable()(inputs[-1]))
    for dynamic_result, static_result in zip(have, alone, strict=True):
        np.testing.assert_array_equal(dynamic_result, static_result)


def test_fusions_are_kept(compiled):
    artifact = compiled(xlapass.trace(convolutional, np.ones((2, 8, 8, 4), np.float32), dynamic="b, ..."))
    model = flatbuffer.read(artifact.model)
    assert Counter(flatbuffer.operator_name(model, op) for _, op in flatbuffer.operators(model)) == {
        "CONV_2D": 1,
        "MEAN": 1,
    }
    tensor = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
    assert list(tensor.shapeSignature) == [-1, 8, 8, 4]
    assert list(tensor.shape) == [1, 8, 8, 4]


def test_what_cannot_be_one_file_says_why(compiled):
    def masked(x):
        t = x.shape[0]
        return jnp.where(jnp.tril(jnp.ones((t, t), bool)), x @ x.T, 0)

    with pytest.raises(xlapass.UnsupportedError, match="the values of a constant depend on a size"):
        compiled(xlapass.trace(masked, np.ones((4, 3), np.float32), dynamic="t, ..."))


def test_files_of_other_programs_do_not_merge(compiled):
    models = [compiled(fn, np.ones((2, 3), np.float32)).model for fn in (jnp.sin, jnp.cos, jnp.cos)]
    with pytest.raises(NotUniform, match="other operations"):
        merge(models, ["b"])


def test_trial_sizes_differ_and_the_last_checks():
    trials = trial_sizes(["b", "t"])
    assert len(trials) == 5
    assert len({tuple(sorted(sizes.items())) for sizes in trials}) == 5
    assert Size((((), 2), (("b", "t"), 3))).at({"b": 5, "t": 7}) == 2 + 3 * 5 * 7


def test_specialize_gives_the_same_results():
    x = RNG.standard_normal((3, 6)).astype(np.float32)
    program = xlapass.trace(sizes_as_numbers, x, dynamic="b, ...")
    assert symbols(program) == ("b",)
    assert sizes_of(program, [x]) == {"b": 3}
    fixed = specialize(program, {"b": 3})
    assert not fixed.is_symbolic
    for want, have in zip(sizes_as_numbers(x), fixed(x), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-6)


def test_specialize_enters_bodies():
    program = xlapass.trace(recurrent, np.ones((2, 5, 16), np.float32), dynamic="b, ...")
    x = RNG.standard_normal((4, 5, 16)).astype(np.float32)
    for want, have in zip(recurrent(x), specialize(program, {"b": 4})(x), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)
