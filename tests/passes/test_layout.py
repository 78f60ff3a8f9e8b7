"""`layout`: programs in the other layout compute the same, with transposes at inputs and outputs only."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from xlapass.passes.inline import Inline
from xlapass.passes.layout import Layout

RNG = np.random.default_rng(0)
NUMBERS = {"nhwc": ("NHWC", "HWIO", "NHWC"), "nchw": ("NCHW", "OIHW", "NCHW")}


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def images(layout, batch=2, size=8, channels=4):
    return draw(*((batch, size, size, channels) if layout == "nhwc" else (batch, channels, size, size)))


def convolve(x, layout, features=4, **kwargs):
    axis = 3 if layout == "nhwc" else 1
    in_features = x.shape[axis] // kwargs.get("feature_group_count", 1)
    rng = np.random.default_rng(x.shape[axis] * 1000 + features)
    kernel = rng.standard_normal((3, 3, in_features, features)).astype(np.float32) / 6
    kernel = kernel if layout == "nhwc" else kernel.transpose(3, 2, 0, 1)
    options = {"window_strides": (1, 1), "padding": "SAME", **kwargs}
    return lax.conv_general_dilated(x, kernel, dimension_numbers=NUMBERS[layout], **options)


def run(fn, *args, to, **options):
    """The program after the pass, verified numerically."""
    program = xlapass.trace(fn, *args)
    instruments = [xlapass.StructuralVerifier(), xlapass.NumericalVerifier()]
    return xlapass.PassManager([Inline(), Layout(to=to, **options)], instruments=instruments).run(program)


def data_transposes(program):
    """Transposes of anything but constants, at any depth."""
    count = 0
    for region in xlapass.Graph(program.jaxpr).walk():
        count += sum(node.name == "transpose" and not node.inputs[0].is_const for node in region.nodes())
    return count


def residual(x, layout):
    y = jax.nn.relu(convolve(x, layout))
    return x + convolve(y, layout)


def squeeze_excite(x, layout):
    axes = (1, 2) if layout == "nhwc" else (2, 3)
    y = convolve(x, layout)
    gate = jax.nn.sigmoid(jnp.mean(y, axes) @ np.eye(4, dtype=np.float32))
    return convolve(y * jnp.expand_dims(gate, axes), layout)


def pooled(x, layout):
    window = (1, 3, 3, 1) if layout == "nhwc" else (1, 1, 3, 3)
    strides = (1, 2, 2, 1) if layout == "nhwc" else (1, 1, 2, 2)
    y = convolve(x, layout)
    largest = lax.reduce_window(y, -jnp.inf, lax.max, window, strides, "SAME")
    total = lax.reduce_window(y, 0.0, lax.add, window, strides, "SAME")
    return convolve(largest - total, layout)


def joined(x, layout):
    axis = 3 if layout == "nhwc" else 1
    y = convolve(x, layout)
    z = jnp.concatenate([x, y, jnp.flip(y, axis)], axis)
    z = jnp.pad(z, [(0, 0), *([(1, 1)] * 3)])
    return convolve(lax.slice_in_dim(z, 1, 9, axis=axis), layout)


def channel_norm(x, layout):
    axis = 3 if layout == "nhwc" else 1
    y = convolve(x, layout)
    mean = y.mean(axis, keepdims=True)
    scale = np.arange(1, 5, dtype=np.float32).reshape((1, 1, 1, 4) if layout == "nhwc" else (1, 4, 1, 1))
    return convolve((y - mean) * (lax.rsqrt(y.var(axis, keepdims=True) + 1e-3) * scale), layout)


def classifier(x, layout):
    y = convolve(x, layout)
    y = jnp.mean(y, (1, 2) if layout == "nhwc" else (2, 3), keepdims=True)
    return y.reshape(y.shape[0], -1) @ np.ones((4, 3), np.float32)


MODELS = [residual, squeeze_excite, pooled, joined, channel_norm, classifier]


@pytest.mark.parametrize("model", MODELS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("layout", "to"), [("nhwc", "nchw"), ("nchw", "nhwc")])
def test_only_the_transposes_of_inputs_and_outputs_remain(model, layout, to):
    program = run(lambda x: model(x, layout), images(layout), to=to)
    assert data_transposes(program) <= (1 if model is classifier else 2)


@pytest.mark.parametrize("model", MODELS, ids=lambda f: f.__name__)
def test_a_program_in_the_layout_already_is_left_alone(model):
    program = xlapass.trace(lambda x: model(x, "nhwc"), images("nhwc"))
    before = xlapass.PassManager([Inline()]).run(program)
    assert xlapass.PassManager([Layout(to="nhwc")]).run(before).jaxpr is before.jaxpr


def test_before_and_after():
    def model(x):
        return jnp.tanh(convolve(x, "nchw"))

    program = run(model, images("nchw"), to="nhwc")
    assert [eqn.primitive.name for eqn in program.jaxpr.eqns] == [
        "transpose",  # the input
        "transpose",  # the kernel, for fold-constants
        "conv_general_dilated",
        "tanh",
        "transpose",  # the output
    ]
    assert program.jaxpr.eqns[2].params["dimension_numbers"].lhs_spec == (0, 3, 1, 2)


@pytest.mark.parametrize(("layout", "to"), [("nhwc", "nchw"), ("nchw", "nhwc")])
def test_the_interface_is_converted_when_asked(layout, to):
    x = images(layout)
    program = run(lambda x: {"y": residual(x, layout)}, x, to=to, io="convert")
    assert data_transposes(program) == 0
    there = (0, 2, 3, 1) if to == "nhwc" else (0, 3, 1, 2)
    back = np.argsort(there)
    got = program(x.transpose(there))["y"].transpose(back)
    np.testing.assert_allclose(got, residual(x, layout), rtol=1e-4, atol=1e-5)


def test_a_kernel_gradient_keeps_the_layout_of_the_kernel():
    kernel = draw(4, 4, 3, 3)

    def loss(kernel, x):
        y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS["nchw"])
        return jnp.sum(jnp.tanh(y) ** 2)

    program = run(jax.grad(loss, argnums=(0, 1)), kernel, images("nchw"), to="nhwc")
    assert data_transposes(program) == 2  # the input and its gradient


@pytest.mark.parametrize("dimensions", [1, 3])
def test_other_numbers_of_spatial_axes(dimensions):
    first = ("NCDHW"[:1] + "C" + "DHW"[:dimensions], "OI" + "DHW"[:dimensions], "NC" + "DHW"[:dimensions])
    x, kernel = draw(2, 4, *[6] * dimensions), draw(4, 4, *[3] * dimensions)

    def model(x):
        for _ in range(2):
            x = lax.conv_general_dilated(x, kernel, (1,) * dimensions, "SAME", dimension_numbers=first)
        return x

    assert data_transposes(run(model, x, to="nhwc")) == 2


def test_carries_of_loops_change_layout():
    def model(x):
        y, sums = lax.scan(lambda c, _: (jax.nn.relu(convolve(c, "nchw")), c.sum()), x, None, length=3)
        return lax.fori_loop(0, 2, lambda i, c: convolve(c, "nchw") + c, y), sums

    program = run(model, images("nchw"), to="nhwc")
    for region in xlapass.Graph(program.jaxpr).walk():
        if "conv_general_dilated" in (names := [node.name for node in region.nodes()]):
            assert "transpose" not in [n.name for n in region.nodes() if not n.inputs[0].is_const], names


def test_branches_change_layout():
    def model(p, x):
        y = convolve(x, "nchw")
        z = lax.cond(p, lambda y: convolve(y, "nchw"), lambda y: y * 2, y)
        return convolve(z, "nchw")

    program = run(model, np.bool_(True), images("nchw"), to="nhwc")
    outer = [node.name for node in xlapass.Graph(program.jaxpr).nodes() if not node.inputs[0].is_const]
    assert outer.count("transpose") == 2


@given(data=st.data())
def test_elementwise_chains_of_any_kind(data):
    operations = data.draw(
        st.lists(
            st.sampled_from(["tanh", "bias", "scale", "clip", "where", "cumsum", "sort", "argmax", "reshape", "max"]),
            min_size=1,
            max_size=4,
        )
    )
    layout, to = data.draw(st.sampled_from([("nhwc", "nchw"), ("nchw", "nhwc")]))
    axis = 3 if layout == "nhwc" else 1
    vector = np.arange(4, dtype=np.float32).reshape((1, 1, 1, 4) if layout == "nhwc" else (1, 4, 1, 1))
    steps = {
        "tanh": jnp.tanh,
        "bias": lambda y: y + vector,
        "scale": lambda y: y * 1.5,
        "clip": lambda y: jnp.clip(y, -1, 1),
        "where": lambda y: jnp.where(y > 0, y, vector),
        "cumsum": lambda y: jnp.cumsum(y, axis=1),
        "sort": lambda y: jnp.sort(y, axis=2),
        "argmax": lambda y: y + jnp.argmax(y, axis=axis, keepdims=True).astype(np.float32) * 0,
        "reshape": lambda y: y.reshape(y.shape[0], y.shape[1], -1).reshape(y.shape),
        "max": lambda y: y - y.max((0, axis), keepdims=True),
    }

    def model(x):
        y = convolve(x, layout)
        for name in operations:
            y = steps[name](y)
        return convolve(y, layout)

    run(model, images(layout), to=to)


def test_a_symbolic_batch_stays_symbolic():
    program = xlapass.trace(lambda x: residual(x, "nchw"), images("nchw"), dynamic="b, ...")
    after = xlapass.PassManager([Inline(), Layout(to="nhwc")]).run(program)
    x = images("nchw", batch=5)
    np.testing.assert_allclose(after(x), residual(x, "nchw"), rtol=1e-4, atol=1e-5)
