"""`fuse` finds activations however they are spelled, and what it finds computes what it did."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from xlapass.core.composites import attributes_of
from xlapass.core.graph import Graph
from xlapass.core.tracing import trace
from xlapass.passes.composites import exponential_units, gelu, hard_swish, log_softmax, softplus

CLEAN = "inline,fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"
X = jnp.linspace(-8.0, 8.0, 24).reshape(4, 6)
SLOPE = {"negative_slope": pytest.approx(0.2, rel=1e-2)}


def elu_by_select(x):
    return lax.select(x > 0, x, 0.5 * (jnp.exp(x) - 1))


FOUND = {
    "relu6": [(jax.nn.relu6, {}), (lambda x: jnp.clip(x, 0, 6), {}),
              (lambda x: lax.clamp(x.dtype.type(0), x, x.dtype.type(6)), {})],
    "hard_sigmoid": [(jax.nn.hard_sigmoid, {}), (lambda x: jnp.clip(x + 3, 0, 6) / 6, {}),
                     (lambda x: jax.nn.relu6(3 + x) * (1 / 6), {})],
    "hard_swish": [(jax.nn.hard_swish, {}), (lambda x: x * jax.nn.relu6(x + 3) / 6, {}),
                   (lambda x: x * jax.nn.relu6(x + 3) * (1 / 6), {})],
    "softplus": [(jax.nn.softplus, {}), (lambda x: jnp.log1p(jnp.exp(x)), {}), (lambda x: jnp.log(1 + jnp.exp(x)), {})],
    "mish": [(jax.nn.mish, {}), (lambda x: x * jnp.tanh(jnp.log1p(jnp.exp(x))), {})],
    "elu": [(jax.nn.elu, {"alpha": 1.0}), (lambda x: jax.nn.elu(x, 0.5), {"alpha": 0.5}),
            (elu_by_select, {"alpha": 0.5})],
    "selu": [(jax.nn.selu, {})],
    "celu": [(jax.nn.celu, {"alpha": 1.0}), (lambda x: jax.nn.celu(x, 2.0), {"alpha": 2.0})],
    "leaky_relu": [(lambda x: jax.nn.leaky_relu(x, 0.2), SLOPE), (lambda x: jnp.maximum(x, 0.2 * x), SLOPE),
                   (lambda x: jnp.where(x < 0, 0.2 * x, x), SLOPE)],
    "log_softmax": [(jax.nn.log_softmax, {"axis": 1}), (lambda x: jax.nn.log_softmax(x, 0), {"axis": 0}),
                    (lambda x: x - jax.nn.logsumexp(x, axis=-1, keepdims=True), {"axis": 1}),
                    (lambda x: x - jax.nn.logsumexp(x, axis=0), {"axis": 0})],
    "quick_gelu": [(lambda x: x * jax.nn.sigmoid(1.702 * x), {}), (lambda x: (1 / (1 + jnp.exp(-1.702 * x))) * x, {})],
}  # fmt: skip
PLAIN = {name: next(getattr(m, name) for m in (gelu, hard_swish, softplus, exponential_units, log_softmax)
                    if hasattr(m, name)) for name in FOUND}  # fmt: skip
CASES = [pytest.param(name, *case, id=f"{name}-{i}") for name, cases in FOUND.items() for i, case in enumerate(cases)]


def found(program):
    return [node for node in Graph(program.jaxpr).nodes() if node.name == "composite"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name, fn, attributes", CASES)
def test_every_spelling_is_found_and_stays_what_it_was(run, name, fn, attributes, dtype):
    x = X.astype(dtype)
    program = run(CLEAN, trace(fn, x))
    fused = run("fuse", program)
    (node,) = Graph(fused.jaxpr).nodes()
    assert (node.params["name"], attributes_of(node)) == (f"xlapass.{name}", attributes)
    assert [value.aval.shape for value in node.inputs] == [X.shape]
    for values in (x, jnp.asarray([[jnp.nan, jnp.inf, -jnp.inf, 0.0, -0.0, 90.0]] * 4, dtype)):
        np.testing.assert_array_equal(jnp.float32(fused(values)), jnp.float32(program(values)))
    tolerance = 3e-2 if dtype == "bfloat16" else 2e-5
    plain = PLAIN[name](X, **attributes_of(node))
    np.testing.assert_allclose(plain, np.asarray(program(x), np.float32), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.clip(x, 0, 5),
        lambda x: jnp.maximum(x, 2 * x),
        lambda x: jnp.where(x > 1, x, jnp.expm1(x)),
        lambda x: jnp.where(x > 0, x, jnp.expm1(2 * x)),
        lambda x: x - jnp.log(jnp.sum(jnp.exp(x), -1, keepdims=True)),
        lambda x: x - jax.nn.logsumexp(x, axis=1)[:, None] * 2,
        lambda x: x[:4, :4] - jax.nn.logsumexp(x[:4, :4], axis=0)[:, None],
        lambda x: x * jax.nn.sigmoid(1.5 * x),
    ],
)
def test_what_only_looks_like_it_is_left_alone(run, fn):
    assert found(run(f"{CLEAN},fuse", trace(fn, X))) == []


def test_a_multiple_of_another_elu_is_no_selu(run):
    (node,) = found(run(f"{CLEAN},fuse", trace(lambda x: 1.0507009873554805 * jax.nn.elu(x), X)))
    assert node.params["name"] == "xlapass.elu"


@pytest.mark.parametrize("name", ["hard_swish", "softplus", "elu", "log_softmax"])
def test_a_symbolic_batch_is_no_obstacle(run, name):
    fn, _ = FOUND[name][0]
    fused = run(f"{CLEAN},fuse", trace(fn, X, dynamic="batch, ..."))
    assert [node.params["name"] for node in found(fused)] == [f"xlapass.{name}"]
    np.testing.assert_allclose(fused(X[:3]), fn(X[:3]), rtol=1e-6)
