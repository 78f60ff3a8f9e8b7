"""Precision policies: those that come with xlapass, those of plugins, and which one a target gets."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support import operations
from xlapass.core.driver import compile, plan
from xlapass.core.errors import UsageError
from xlapass.core.graph import Graph
from xlapass.core.instruments.report import Report
from xlapass.core.manager import PassManager
from xlapass.core.plugins import Entry, hookimpl, load_registry
from xlapass.core.precision import Treatment, find_policy
from xlapass.core.target import Target
from xlapass.core.tracing import trace
from xlapass.passes.mixed_precision.cpu import has_bfloat16_products
from xlapass.testing import assert_equal_results, assert_unchanged, registry_with

RNG = np.random.default_rng(0)
FAST = Target("cpu", "cpu", {"bfloat16_products": True})
SLOW = Target("cpu", "cpu", {"bfloat16_products": False})
NUMBERS = ("NHWC", "HWIO", "NHWC")


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def spec(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def run(fn, *args, target=FAST, subject="mixed-precision", **options):
    """The program after the pass, and what it has to say."""
    report = Report()
    manager = PassManager(subject, target=target, instruments=[report])
    return manager.run(trace(fn, *args, **options)), report.records[-1].details


def kept(fn, *args, operation="dot_general", **options):
    """The reason why the one operation of a program stays, or None."""
    _, details = run(fn, *args, **options)
    return next(iter(details.get("kept", {}).get(operation, {})), None)


# -- cpu ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "reason"),
    [
        (128, 512, 512, None),
        (32, 1024, 1024, None),
        (16, 768, 3072, None),
        (512, 512, 512, None),
        (1, 768, 50257, "rows or columns"),
        (8, 512, 512, "rows or columns"),
        (512, 512, 1, "rows or columns"),
        (64, 64, 64, "it would gain less"),
        (3136, 64, 64, "it would gain less"),
        (0, 512, 512, "it has no elements"),
        (128, 0, 512, "it has no elements"),
    ],
)
def test_cpu_takes_large_products(rows, depth, columns, reason):
    weights = np.zeros((depth, columns), np.float32)
    found = kept(lambda x: lax.dot(x, weights), spec(rows, depth))
    assert found is None if reason is None else reason in found


def test_cpu_weighs_the_casts():
    """Two operands that must be rounded at each run cost more than one; a cast shared by many, less."""
    weights = draw(128, 64)
    assert kept(lambda x: x @ weights, spec(128, 128)) is not None
    many = lambda x: [x @ jnp.asarray(weights + i) for i in range(8)]  # noqa: E731
    assert kept(lambda x, w: x @ w, spec(32, 256), spec(256, 256)) is not None
    assert kept(lambda x: x @ draw(256, 256), spec(32, 256)) is None
    _, details = run(many, spec(512, 128))
    assert details["small"] == {"dot_general": 8}


def test_cpu_counts_what_a_loop_is_given_as_free():
    stack = draw(3, 256, 256)
    layers = lambda x, w: lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, w)[0]  # noqa: E731
    assert kept(lambda x: layers(x, stack), spec(32, 256)) is None
    assert kept(layers, spec(32, 256), spec(3, 256, 256)) is not None


def test_cpu_keeps_convolutions_and_float16():
    convolution = lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NUMBERS)  # noqa: E731
    shapes = spec(1, 56, 56, 64), spec(3, 3, 64, 64)
    assert kept(convolution, *shapes, operation="conv_general_dilated") == "XLA:CPU is no faster with it"
    half = "mixed-precision{dtype=float16}"
    assert kept(lax.dot, spec(512, 512), spec(512, 512), subject=half) == "XLA:CPU is no faster with float16"


def test_cpu_without_instructions():
    assert kept(lax.dot, spec(512, 512), spec(512, 512), target=SLOW) == "this CPU has no instructions for it"
    assert isinstance(has_bfloat16_products(Target("cpu", "cpu")), bool)


def test_cpu_does_not_guess_sizes():
    weights = draw(512, 512)
    assert kept(lambda x: x @ weights, draw(4, 512), dynamic="batch, ...") == "its sizes are not known yet"


def test_pipeline_keeps_what_the_pass_placed():
    """The forms of products, later in the pipeline, would otherwise widen constant weights again."""
    chosen = plan("cpu-bf16", target=FAST)
    weights = draw(512, 512)
    before = trace(lambda x: jax.nn.relu(x @ weights + 1), draw(128, 512))
    program = PassManager(chosen.pipeline, target=FAST).run(before)
    (dot,) = [n for n in Graph(program.jaxpr).nodes() if n.name == "dot_general"]
    assert [v.dtype for v in dot.inputs] == [jnp.bfloat16] * 2 and program.constant_bytes == 2 * weights.size


# -- activations -------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        y = nn.Dense(8)(nn.gelu(nn.Dense(16)(y)))
        return x + nn.softmax(y) * y


def test_activations():
    variables = Block().init(jax.random.key(0), draw(4, 8))
    variables = jax.tree.map(lambda leaf: leaf + 0.1 * draw(*leaf.shape), variables)
    subject = "inline,fixpoint(simplify,fold-constants),mixed-precision{policy=activations}"
    program = assert_equal_results(subject, lambda x: Block().apply(variables, x), draw(4, 8))
    nodes = Graph(program.jaxpr).nodes()
    small = {n.name for n in nodes if any(v.dtype == jnp.bfloat16 for v in n.outputs)}
    assert "add" in small
    inside = {"exp", "erf", "tanh", "rsqrt", "reduce_sum", "reduce_max", "div", "sub", "square", "integer_pow"}
    assert not inside & small


def test_activations_stay_small_between_operations():
    subject = "mixed-precision{policy=activations}"
    model = lambda x, w: lax.dot(lax.mul(lax.add(lax.dot(x, w), w), w), w)  # noqa: E731
    program = assert_equal_results(subject, model, draw(3, 3), draw(3, 3))
    wide = [n.name for n in Graph(program.jaxpr).nodes() if n.outputs[0].dtype == np.float32]
    assert wide == ["dot_general", "dot_general"]
    assert operations(program).count("convert_element_type") == 3  # two inputs, and the first sum of products


def test_activations_leave_updates_alone():
    """Weights that change by less than their last digit in bfloat16 would not change at all."""

    def step(w, x):
        gradient = jax.grad(lambda w: jnp.sum((jnp.tanh(x @ w + 1) @ w) ** 2))(w)
        return w - 1e-3 * gradient

    program = assert_equal_results("inline,mixed-precision{policy=activations}", step, draw(3, 3), draw(3, 3))
    update = Graph(program.jaxpr).outputs[0].producer
    assert update.name == "sub" and [v.dtype for v in update.inputs] == [np.float32] * 2


# -- of plugins --------------------------------------------------------------------------------------------------------


class Mine:
    """Rows of a policy of its own, for all policies, and for a policy of xlapass."""

    @hookimpl
    def xlapass_precision_policies(self):
        return {
            "mine": Entry([Treatment("exp")], "exponentials"),
            "every": Entry([Treatment("composite:mine.linear", "keep")], "mine stays"),
            "products": Entry([Treatment("dot_general", check=lambda one: "mine knows better")], "products"),
        }


def test_a_plugin_brings_a_policy():
    registry = registry_with(Mine())
    subject = "mixed-precision{policy=mine}"
    program = assert_equal_results(subject, lambda x: jnp.exp(x) @ x, draw(3, 3), registry=registry)
    types = {n.name: n.outputs[0].dtype for n in Graph(program.jaxpr).nodes() if n.name != "convert_element_type"}
    assert types == {"exp": jnp.bfloat16, "dot_general": np.float32}


def test_a_plugin_adds_to_every_policy():
    linear = lax.composite(lambda x, w: x @ w, "mine.linear")
    registry = registry_with(Mine())
    assert_unchanged("mixed-precision{policy=cpu}", linear, draw(3, 3), draw(3, 3), registry=registry)
    assert "composite:mine.linear" in find_policy(registry, "activations")


def test_two_rows_for_one_operation():
    with pytest.raises(UsageError, match=r"'xlapass-precision' and 'Mine' treat 'dot_general' differently"):
        find_policy(registry_with(Mine()), "products")


class Wrong:
    @hookimpl
    def xlapass_precision_policies(self):
        return {"wrong": Entry(["dot_general"], "no rows")}


def test_what_is_no_row():
    with pytest.raises(UsageError, match=r"holds 'dot_general', which is not a Treatment"):
        find_policy(registry_with(Wrong()), "wrong")


def test_unknown_policy():
    with pytest.raises(UsageError, match=r"no precision policy 'activation'\n.*did you mean 'activations'"):
        PassManager("mixed-precision{policy=activation}").run(trace(lambda x: x, draw(2)))


class Names:
    @hookimpl
    def xlapass_precision_policies(self):
        return {name: Entry([Treatment("dot_general")], "mine") for name in ("npu", "npu2")}


@pytest.mark.parametrize(
    ("target", "policy"),
    [
        (None, "products"),
        (Target("cpu", "cpu"), "cpu"),
        (Target("h100", "cuda"), "cuda"),
        (Target("onnx", "onnx"), "products"),
        (Target("npu2", "npu"), "npu2"),
        (Target("npu3", "npu"), "npu"),
        (Target("every", "auto"), "products"),
    ],
)
def test_policy_of_a_target(target, policy):
    assert find_policy(registry_with(Names()), "auto", target).name == policy


def test_policies_are_listed():
    registry = load_registry()
    assert {"products", "cpu", "activations", "every"} <= set(registry.names("precision policy"))


# -- pipelines ---------------------------------------------------------------------------------------------------------


def test_layouts_leave_products_as_they_were_written():
    """A product that takes over a transpose may be one on which XLA:CPU stops."""
    kernel, weights = draw(8, 4, 3, 3), draw(2, 8, 9, 10)

    def model(x):
        y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))
        return lax.dot_general(y, weights, (((2,), (2,)), ((0, 1), (0, 1))))

    x = draw(2, 4, 9, 9)
    program = PassManager("mixed-precision{policy=products},layout{to=nhwc}").run(trace(model, x))
    (dot,) = [n for n in Graph(program.jaxpr).nodes() if n.name == "dot_general"]
    assert dot.params["dimension_numbers"][1] == ((0, 1), (0, 1))
    np.testing.assert_allclose(program(x), model(x), atol=1)


def test_pipelines():
    weights = draw(256, 256) / 16
    model = lambda x: jnp.tanh(x @ weights)  # noqa: E731
    artifact = compile(model, draw(64, 256), pipeline="cpu-bf16", target=FAST)
    (record,) = [r for r in artifact.report.records if r.pass_ == "mixed-precision"]
    assert record.details["small"] == {"dot_general": 1} and record.details["policy"] == "cpu"
    x = draw(64, 256)
    np.testing.assert_allclose(artifact.executable()(x), model(x), atol=0.1)
    for name, dtype in {"gpu-bf16": jnp.bfloat16, "gpu-f16": jnp.float16}.items():
        chosen = plan(name)
        program = PassManager(chosen.pipeline, target=chosen.target).run(trace(model, draw(64, 256)))
        (dot,) = [n for n in Graph(program.jaxpr).nodes() if n.name == "dot_general"]
        assert [v.dtype for v in dot.inputs] == [dtype] * 2
