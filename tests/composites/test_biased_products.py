"""`fuse` finds convolutions and dense layers with bias and activation, where they are asked for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from xlapass.core.composites import Composite, Kernel, attributes_of
from xlapass.core.graph import Graph
from xlapass.core.plugins import Entry
from xlapass.core.target import Target
from xlapass.core.tracing import trace
from xlapass.passes.composites.biased_products import ACTIVATIONS, conv_bias_act, linear_bias_act

CLEAN = "inline,fixpoint{limit=4}(simplify,common-subexpressions,dead-code)"
FUSE = "fuse{of=xlapass.conv_bias_act+xlapass.linear_bias_act}"
EVERYTHING = "fuse,fuse{of=xlapass.conv_bias_act+xlapass.linear_bias_act}"
RNG = np.random.default_rng(0)


def array(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def composites_of(program):
    return [node for node in Graph(program.jaxpr).nodes() if node.name == "composite"]


def check(run, fn, *args, passes=EVERYTHING):
    """The one composite of the program, which stays what it was bit for bit; and its attributes."""
    program = run(CLEAN, trace(fn, *args))
    fused = run(passes, program)
    (node,) = composites_of(fused)
    np.testing.assert_array_equal(fused(*args), program(*args))
    attributes = attributes_of(node)
    plain = {"xlapass.conv_bias_act": conv_bias_act, "xlapass.linear_bias_act": linear_bias_act}[node.params["name"]]
    operands = [args[value.index] for value in node.inputs]
    np.testing.assert_allclose(plain(*operands, **attributes), program(*args), rtol=2e-5, atol=2e-5)
    return fused, attributes


ACTIVATED = {
    "none": lambda y: y, "relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "gelu": jax.nn.gelu,
    "quick_gelu": lambda y: y * jax.nn.sigmoid(1.702 * y), "silu": jax.nn.silu, "relu6": jax.nn.relu6,
    "hard_sigmoid": jax.nn.hard_sigmoid, "hard_swish": jax.nn.hard_swish, "softplus": jax.nn.softplus,
    "mish": jax.nn.mish, "elu": jax.nn.elu, "selu": jax.nn.selu, "celu": jax.nn.celu, "leaky_relu": jax.nn.leaky_relu,
}  # fmt: skip


def test_every_activation_has_a_case():
    assert set(ACTIVATED) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", list(ACTIVATED))
def test_activations(run, activation):
    fn = lambda x, w, b: ACTIVATED[activation](x @ w + b)  # noqa: E731
    _, attributes = check(run, fn, array(3, 4), array(4, 5), array(5))
    assert attributes["activation"] == activation and not attributes["transposed"]


@pytest.mark.parametrize("layout", [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("NHWC", "OIHW", "NCHW")])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window_strides": (2, 1), "padding": ((1, 0), (-1, 2))},
        {"feature_group_count": 2},
        {"lhs_dilation": (2, 1), "rhs_dilation": (1, 2), "padding": ((1, 1), (0, 1))},
    ],
)
def test_convolutions(run, layout, options):
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    groups = options.get("feature_group_count", 1)
    x, w = array(2, 8, 8, 4), array(3, 3, 4 // groups, 8)
    x = x if layout[0] == "NHWC" else jnp.transpose(x, (0, 3, 1, 2))
    w = w if layout[1] == "HWIO" else jnp.transpose(w, (3, 2, 0, 1))
    shape = (1, 1, 1, 8) if layout[2] == "NHWC" else (1, 8, 1, 1)

    def fn(x, w, b):
        y = lax.conv_general_dilated(x, w, dimension_numbers=layout, **options)
        return jax.nn.relu(b.reshape(shape) + y)

    _, attributes = check(run, fn, x, w, array(8))
    assert attributes["activation"] == "relu" and attributes["groups"] == groups


def test_flax_layers(run):
    module = nn.Sequential([nn.Conv(8, (3, 3)), nn.relu, lambda x: x.reshape(2, -1), nn.Dense(4), nn.gelu])
    x = array(2, 6, 6, 3)
    variables = module.init(jax.random.key(0), x)
    program = run(CLEAN + ",fold-constants", trace((module, variables), x))
    fused = run(EVERYTHING, program)
    names = [(node.params["name"], attributes_of(node)["activation"]) for node in composites_of(fused)]
    assert names == [("xlapass.conv_bias_act", "relu"), ("xlapass.linear_bias_act", "gelu")]
    np.testing.assert_array_equal(fused(x), program(x))


def test_transposed_weights(run):
    fn = lambda x, w, b: jnp.tanh(lax.dot_general(x, w, (((2,), (1,)), ((), ()))) + b)  # noqa: E731
    _, attributes = check(run, fn, array(2, 3, 4), array(5, 4), array(5))
    assert attributes["transposed"]


def test_not_without_being_asked(run):
    program = run(CLEAN, trace(lambda x, w, b: jax.nn.relu(x @ w + b), array(3, 4), array(4, 5), array(5)))
    assert run("fuse", program) is program


def test_a_kernel_asks_for_them(run):
    entries = {"xlapass.linear_bias_act/cpu": Entry(Kernel(lambda x, w, b, **_: jnp.full((3, 5), 7.0)), "sevens")}
    program = trace(lambda x, w, b: jax.nn.relu(x @ w + b), array(3, 4), array(4, 5), array(5))
    options = {"target": Target("cpu", "cpu")}
    fused = run(CLEAN + ",fuse{with-kernel=true},lower-composites", program, entries, **options)
    assert float(fused(array(3, 4), array(4, 5), array(5))[0, 0]) == 7.0


@pytest.mark.parametrize(
    "fn, shapes",
    [
        (lambda x, w, b: x @ w + b[:, None], [(5, 4), (4, 5), (5,)]),  # along the rows
        (lambda x, w, b: jnp.einsum("bij,bjk->bik", x, w) + b, [(2, 3, 4), (2, 4, 5), (5,)]),
        (lambda x, w, b: x @ w + b, [(3, 4), (4, 5), (1,)]),
        (lambda x, w, b: x @ w + b, [(3, 4), (4, 5), (3, 5)]),  # another summand
        (lambda x, w, b: (lambda y: y + b + y.sum())(x @ w), [(3, 4), (4, 5), (5,)]),  # the product is used twice
    ],
)
def test_what_is_no_bias(run, fn, shapes):
    program = run(CLEAN, trace(fn, *(array(*shape) for shape in shapes)))
    assert not composites_of(run(FUSE, program))


def test_they_can_be_called():
    assert isinstance(linear_bias_act(array(2, 3), array(3, 4), array(4), activation="relu"), jax.Array)
    assert Composite("other.name", linear_bias_act).by_default
