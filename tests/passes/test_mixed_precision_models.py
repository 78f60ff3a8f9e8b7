"""`mixed-precision` on programs drawn by hypothesis, and on whole models: as good as the small type allows."""

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xlapass
from hypothesis import given, settings
from jax import lax
from programs import programs
from support import operations
from xlapass.core.graph import Graph
from xlapass.core.instruments.numerics import NumericalVerifier, compare_programs
from xlapass.core.instruments.structure import StructuralVerifier
from xlapass.core.manager import PassManager
from xlapass.core.pass_ import PassContext
from xlapass.core.plugins import load_registry
from xlapass.core.precision import find_policy
from xlapass.core.tracing import trace
from xlapass.passes.mixed_precision.constants import Constants
from xlapass.passes.mixed_precision.motion import CastMotion
from xlapass.passes.mixed_precision.placement import Placement

FEWER = max(hypothesis.settings().max_examples // 8, 1)
RNG = np.random.default_rng(0)
CLEAN = "inline,fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


# -- drawn programs ----------------------------------------------------------------------------------------------------


def placed_and_moved(drawn, policy, dtype):
    """The program with operations in the small type between casts, and the same with the casts moved."""
    with drawn.context():
        program = trace(drawn.fn, *drawn.args, dynamic=drawn.dynamic)
        rows = find_policy(load_registry(), policy)
        constants, context = Constants(jnp.dtype(dtype)), PassContext(load_registry())
        placed = Graph(program.jaxpr)
        Placement(rows, constants, context).run(placed)
        placed = program.replace(jaxpr=placed.to_closed())
        moved = Graph(placed.jaxpr)
        CastMotion(rows, constants).run(moved)
        return placed, placed.replace(jaxpr=moved.to_closed())


@pytest.mark.parametrize("policy", ["products", "activations"])
@settings(max_examples=FEWER)
@given(drawn=programs())
def test_moving_casts_is_exact(policy, drawn):
    placed, moved = placed_and_moved(drawn, policy, "bfloat16")
    with drawn.context():
        found = compare_programs(placed, moved, "exact")
    assert found is None, f"{found}\n{placed}\n{moved}"


def rounded_first(program):
    """The program in float32, with the operands of its products rounded to the digits of bfloat16 in place."""
    graph = Graph(program.jaxpr)
    for region in graph.walk():
        for node in region.nodes():
            types = {v.dtype for v in (*node.inputs, *node.outputs)}
            if node.name not in ("dot_general", "conv_general_dilated") or types != {np.dtype(np.float32)}:
                continue
            for index, value in enumerate(node.inputs):
                (digits,) = region.splice(lambda x: lax.reduce_precision(x, 8, 7), value, before=node)
                region.set_operand(node, index, digits)
    return program.replace(jaxpr=graph.to_closed())


@settings(max_examples=2 * FEWER)
@given(drawn=programs(most_steps=12))
def test_products_see_rounded_operands_and_nothing_else_does(drawn):
    with drawn.context():
        program = trace(drawn.fn, *drawn.args, dynamic=drawn.dynamic)
        context = PassContext(load_registry())
        after = PassManager("mixed-precision", instruments=[StructuralVerifier()]).run(program)
        Placement(find_policy(context.registry, "products"), Constants(jnp.bfloat16), context).run(Graph(program.jaxpr))
        hypothesis.assume("kept" not in context.details)
        found = compare_programs(rounded_first(program), after, "reassociating")
    assert found is None, f"{found}\n{program}\n{after}"


@pytest.mark.parametrize("options", [{"symbolic": True}, {"x64": True}, {"effects": True}], ids=lambda o: next(iter(o)))
@settings(max_examples=FEWER)
@given(data=st.data())
def test_other_programs_keep_their_types(options, data):
    """Structure alone; effects would happen."""
    drawn = data.draw(programs(**options))
    with drawn.context():
        program = trace(drawn.fn, *drawn.args, dynamic=drawn.dynamic)
        for subject in ("mixed-precision", "inline,mixed-precision{dtype=float16,policy=activations}"):
            once = PassManager(subject, instruments=[StructuralVerifier()]).run(program)
            assert once.out_avals == program.out_avals
            assert operations(PassManager(subject).run(once)) == operations(once)


# -- whole models ------------------------------------------------------------------------------------------------------


def decibels(expected, found):
    noise = np.linalg.norm(np.asarray(expected, np.float64) - np.asarray(found, np.float64))
    return 20 * np.log10(np.linalg.norm(np.asarray(expected, np.float64)) / noise)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, mask=None):
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x), mask=mask)
        return x + nn.Dense(16)(nn.gelu(nn.Dense(32)(nn.LayerNorm()(x))))


class Language(nn.Module):
    """A decoder whose embedding is its last layer too."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(50, 16)
        mask = nn.make_causal_mask(tokens)
        x = embed(tokens)
        for _ in range(2):
            x = Layer()(x, mask)
        return embed.attend(nn.LayerNorm()(x))


class Pictures(nn.Module):
    @nn.compact
    def __call__(self, x):
        for features in (8, 16):
            x = nn.Conv(features, (3, 3), strides=2)(x)
            x = nn.max_pool(nn.relu(nn.BatchNorm(use_running_average=True)(x)), (2, 2))
        return nn.Dense(10)(x.mean((1, 2)))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.RNN(nn.OptimizedLSTMCell(8))(x))


def stacked_layers(x):
    """Layers in a scan, each in a checkpoint."""
    weights = np.random.default_rng(1).standard_normal((3, 16, 16)).astype(np.float32) / 4
    layer = jax.checkpoint(lambda c, w: (c + jnp.tanh(c @ w), None))
    return lax.scan(layer, x, weights)[0]


def bound(module, *args):
    variables = module.init(jax.random.key(0), *args)
    return lambda *args: module.apply(variables, *args)


TOKENS = RNG.integers(0, 50, (2, 12)).astype(np.int32)
MODELS = {
    "language": (Language(), TOKENS),
    "pictures": (Pictures(), draw(2, 32, 32, 3)),
    "recurrent": (Recurrent(), draw(2, 5, 6)),
    "layers": (stacked_layers, draw(4, 16)),
}


@pytest.mark.parametrize("policy", ["products", "activations"])
@pytest.mark.parametrize("name", MODELS)
def test_models(name, policy):
    model, *args = MODELS[name]
    model = bound(model, *args) if isinstance(model, nn.Module) else model
    program = trace(model, *args)
    expected = program(*args)
    for dtype, least in {"bfloat16": 30 if policy == "products" else 25, "float16": 50}.items():
        subject = f"{CLEAN},fold-batch-norm,mixed-precision{{dtype={dtype},policy={policy}}},dead-code"
        small = PassManager(subject, instruments=[StructuralVerifier()]).run(program)
        assert decibels(expected, small(*args)) > least
        wide = [c.shape for c in small.consts if c.dtype == np.float32 and c.ndim > 1 and min(c.shape) > 2]
        assert wide == ([(50, 16)] if name == "language" else [])


@pytest.mark.parametrize("pipeline", ["cpu-bf16", "mixed-precision{policy=products},cpu"])
def test_model_after_the_pipeline_of_the_cpu(pipeline):
    model = bound(Language(), TOKENS)
    fast = xlapass.jit(model, pipeline=pipeline, numerics="lossy")
    assert decibels(model(TOKENS), fast(TOKENS)) > 30


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_model_in_onnx(dtype):
    """Attention, which ONNX has whole, gets operands of one type."""
    pytest.importorskip("onnxruntime")
    model = bound(Layer(), draw(2, 6, 16))
    pipeline = f"inline,fixpoint(simplify,fold-constants),fuse,mixed-precision{{dtype={dtype}}},onnx"
    artifact = xlapass.compile(model, x := draw(2, 6, 16), pipeline=pipeline, backend="onnx", target="onnx")
    assert decibels(model(x), artifact.executable()(x)) > (35 if dtype == "bfloat16" else 50)


@pytest.mark.parametrize("name", ["language", "layers"])
def test_numerical_verification(name):
    model, *args = MODELS[name]
    model = bound(model, *args) if isinstance(model, nn.Module) else model
    program = PassManager(CLEAN).run(trace(model, *args))
    instruments = [StructuralVerifier(), NumericalVerifier()]
    assert PassManager("mixed-precision", instruments=instruments).run(program) is not program


def test_training():
    """The loss falls as in float32, and the state stays in float32."""
    x = draw(64, 8)
    labels = (x @ draw(8, 3)).argmax(-1)
    params = {"w1": draw(8, 32) / 3, "w2": draw(32, 3) / 6}
    optimizer = optax.adam(1e-2)

    def step(params, state):
        def loss(params):
            logits = jnp.tanh(x @ params["w1"]) @ params["w2"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, value

    losses = {}
    program = trace(step, params, optimizer.init(params))
    for name, run in {"wide": program, "small": PassManager("inline,mixed-precision").run(program)}.items():
        current, state, values = params, optimizer.init(params), []
        for _ in range(60):
            current, state, value = run(current, state)
            values.append(float(value))
        losses[name] = values[-1]
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(current))
    assert losses["small"] < 0.4 and abs(losses["small"] - losses["wide"]) < 0.02, losses
