import itertools

import equinox as eqx
import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from jax import lax
from support import check, operations, run
from xlapass.core.manager import PassManager
from xlapass.core.tracing import trace
from xlapass.testing import assert_equal_results, assert_rule_does_not_fire

RNG = np.random.default_rng(0)
NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
ALONE = "inline,fold-batch-norm"
AFTER_OTHERS = "inline,fold-constants,simplify,fold-batch-norm"


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def channel(size):
    """A scale, or a variance: positive numbers."""
    return RNG.uniform(0.5, 2, size).astype(np.float32)


def conv(x, w, numbers=NHWC, padding="SAME", strides=(1, 1), **options):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=numbers, **options)


def test_before_and_after():
    w = np.full((1, 1, 1, 2), 0.5, np.float32)
    mean, scale = np.asarray([1.0, 2.0], np.float32), np.asarray([2.0, 4.0], np.float32)

    check(
        "fold-batch-norm",
        lambda x: (lax.dot(x, w[0, 0]) - mean[None]) * scale[None] + 1.0,
        array(3, 1),
        before="""
            program(a:f32[3,1]):
              const b:f32[1,2] = [[0.5, 0.5]]
              const c:f32[1,2] = [[1.0, 2.0]]
              const d:f32[1,2] = [[2.0, 4.0]]
              e:f32[3,2] = dot_general[dimension_numbers=(((1),(0)),((),()))] a b
              f:f32[3,2] = sub e c
              g:f32[3,2] = mul f d
              h:f32[3,2] = add g 1.0:f32[]
              return h
        """,
        after="""
            program(a:f32[3,1]):
              const b:f32[1,2] = [[1.0, 2.0]]
              const c:f32[1,2] = [[-1.0, -7.0]]
              d:f32[3,2] = dot_general[dimension_numbers=(((1),(0)),((),()))] a b
              e:f32[3,2] = add d c
              return e
        """,
    )


class Linen(nn.Module):
    depthwise: bool = False
    axis: int = -1

    @nn.compact
    def __call__(self, x):
        groups = x.shape[-1] if self.depthwise else 1
        x = nn.Conv(8, (3, 3), strides=2, feature_group_count=groups)(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, axis=self.axis)(x))


class LinenDense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True, use_bias=False)(nn.Dense(8)(x))


class Nnx(nnx.Module):
    def __init__(self):
        self.conv = nnx.Conv(4, 8, (3, 3), use_bias=False, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=nnx.Rngs(0))
        self.norm.mean[...] = jnp.asarray(array(8))

    def __call__(self, x):
        return nnx.relu(self.norm(self.conv(x)))


def linen(module, x):
    """The module with statistics that are not those of a new one."""
    variables = module.init(jax.random.key(0), x)
    return module, jax.tree.map(lambda leaf: leaf + channel(leaf.shape) / 8, variables)


def equinox_model():
    convolution = eqx.nn.Conv2d(4, 8, 3, key=jax.random.key(0))
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(8, "batch", mode="ema")
    state = state.set(norm.ema_state_index, (jnp.asarray(array(8)), jnp.asarray(channel(8))))
    norm = eqx.nn.inference_mode(norm)
    return lambda x: jax.vmap(lambda image: norm(convolution(image), state)[0], axis_name="batch")(x)


def by_hand(numbers, w, shape):
    mean, var, scale, bias, b = array(8), channel(8), channel(8), array(8), array(8)
    mean, var, scale, bias, b = (v.reshape(shape) for v in (mean, var, scale, bias, b))

    def model(x):
        x = conv(x, w, numbers) + b
        return bias + scale * (x - mean) / jnp.sqrt(var + 1e-5)

    return model


IMAGE = array(2, 6, 6, 4)
MODELS = {
    "linen": (linen(Linen(), IMAGE), IMAGE),
    "linen-depthwise": (linen(Linen(depthwise=True), IMAGE), IMAGE),
    "linen-dense": (linen(LinenDense(), array(2, 5, 4)), array(2, 5, 4)),
    "nnx": (Nnx(), IMAGE),
    "equinox": (equinox_model(), array(2, 4, 6, 6)),
    "by-hand-nhwc": (by_hand(NHWC, array(3, 3, 4, 8), (1, 1, 1, 8)), IMAGE),
    "by-hand-nchw": (by_hand(NCHW, array(8, 4, 3, 3), (1, 8, 1, 1)), array(2, 4, 6, 6)),
}


@pytest.mark.parametrize("name", MODELS)
def test_spellings_of_batch_norm(name):
    model, x = MODELS[name]
    product = "dot_general" if name == "linen-dense" else "conv_general_dilated"
    left = operations(run(AFTER_OTHERS, model, x))
    assert left[left.index(product) :][:2] == [product, "add"] and not {"sub", "mul", "div", "rsqrt"} & set(left)


@pytest.mark.parametrize("name", ["linen", "by-hand-nchw"])
def test_constants_that_are_not_folded_yet(name):
    left = operations(run(ALONE, *MODELS[name]))
    assert left[:2] == ["conv_general_dilated", "add"]


CONV_ADD = ["conv_general_dilated", "add"]


def folds(fn, *args, **options):
    """The operations that are left; equal results are asserted."""
    return operations(assert_equal_results(ALONE, fn, *args, **options))


@pytest.mark.parametrize(
    ("fn", "left"),
    [
        (lambda x: conv(x, W) * 2.0, ["conv_general_dilated"]),
        (lambda x: conv(x, W) / S, ["conv_general_dilated"]),
        (lambda x: (conv(x, W) + B) / S - B, CONV_ADD),
        (lambda x: conv(x, W) + jnp.zeros_like(B), ["conv_general_dilated"]),
        (lambda x: conv(x, W) * jnp.broadcast_to(S, (2, 6, 6, 8)), ["conv_general_dilated"]),
        (lambda x: conv(x * S[:4], W), ["conv_general_dilated"]),
        (lambda x: conv(x / 255.0, W), ["conv_general_dilated"]),
        (lambda x: conv((x - B[:4]) / S[:4], W, padding="VALID"), CONV_ADD),
        (lambda x: conv((x - B[:4]) / S[:4], W), ["sub", "conv_general_dilated"]),
        (lambda x: conv(x * S[:4], W[:, :, :2], feature_group_count=2), ["conv_general_dilated"]),
        (lambda x: conv(x + B[:4], W[:, :, :1], padding="VALID", feature_group_count=4), CONV_ADD),
        (lambda x: conv(x, W, padding=SHIFTED, lhs_dilation=(2, 2)) * S, ["conv_general_dilated"]),
        (lambda x: conv(x, W, batch_group_count=2) * S, ["conv_general_dilated"]),
    ],
)
def test_what_folds(fn, left):
    assert folds(fn, IMAGE) == left


SHIFTED = ((1, 2), (0, 1))
W, S, B = array(3, 3, 4, 8), channel(8), array(8)


@pytest.mark.parametrize(
    ("rule", "fn", "because"),
    [
        ("scale-weights", lambda x: jax.nn.relu(conv(x, W)) * S, None),
        ("scale-weights", lambda x: (y := conv(x, W), y * S), "used elsewhere"),
        ("scale-weights", lambda x: conv(x, W) * x.mean(), "not constant"),
        ("scale-weights", lambda x: conv(x, x[0, :3, :3, :, None]) * S[:1], "not constant"),
        ("scale-weights", lambda x: conv(x, W) * array(1, 6, 1, 8), "more than the channels"),
        ("scale-weights", lambda x: conv(x, W) * S + conv(x + 1, W), "weights are used elsewhere"),
        ("scale-weights", lambda x: conv(x, W) / np.zeros(8, np.float32), "overflow"),
        ("scale-weights", lambda x: conv(x, W) * np.float32(3e38), "overflow"),
        ("scale-weights", lambda x: S / conv(x, W), None),
        ("scale-biased", lambda x: (y := conv(x, W) + B, y * S), "used elsewhere"),
        ("scale-biased", lambda x: (conv(x, W) + array(1, 6, 1, 1)) * S, "different axes"),
        ("merge-biases", lambda x: (conv(x, W) + array(1, 6, 1, 1)) + B, "different axes"),
        ("scale-before", lambda x: conv(x * array(6, 1), W), "more than the channels"),
        ("scale-before", lambda x: (y := x * 2.0, conv(y, W)), "used elsewhere"),
        ("scale-before", lambda x: conv((x - x.mean()) * lax.rsqrt(x.var()) * S[:4], W), "normalization"),
        ("scale-before", lambda x: conv(x * 2.0, W, batch_group_count=2), "groups its batch"),
        ("shift-before", lambda x: conv(x + B[:4], W), "padding"),
        ("shift-before", lambda x: conv(x + B[:4], W, padding=((0, 0), (0, 0)), lhs_dilation=(2, 2)), "padding"),
    ],
)
def test_what_must_not_fold(rule, fn, because):
    program = PassManager("inline,fold-constants").run(trace(fn, IMAGE))
    assert_rule_does_not_fire("fold-batch-norm", program, rule=rule, because=because)


def test_dense_nets_normalize_before_they_convolve():
    def f(x):
        return conv(jax.nn.relu((x - B[:4]) * S[:4]), W)

    assert folds(f, IMAGE) == ["sub", "mul", "max", "conv_general_dilated"]


def test_integers_and_narrow_weights_stay():
    w = RNG.integers(-9, 9, (3, 3, 4, 8)).astype(np.int8)
    program = trace(lambda x: conv(x, w, preferred_element_type=jnp.int32) * 3, IMAGE.astype(np.int8))
    assert_rule_does_not_fire("fold-batch-norm", program)
    half = W.astype(jnp.bfloat16)
    program = trace(lambda x: conv(x, half, preferred_element_type=jnp.float32) * S, IMAGE.astype(jnp.bfloat16))
    assert_rule_does_not_fire(
        "fold-batch-norm", PassManager("inline,fold-constants").run(program), because="not floats of the result's dtype"
    )


def test_an_exact_pipeline_leaves_it_out():
    program = trace(lambda x: conv(x, W) * 2.0, IMAGE)
    assert PassManager("fold-batch-norm", numerics="exact").run(program) is program


def test_nothing_to_do():
    program = trace(lambda x: conv(x, W) + B[None, None, None], IMAGE)
    assert PassManager("fold-batch-norm").run(program) is program


def test_inside_control_flow():
    def f(x):
        return lax.cond(x.sum() > 0, lambda y: conv(y, W) * S, lambda y: conv(y, W[..., ::-1]) * 3.0, x)

    assert_equal_results(ALONE, f, IMAGE)


def test_half_precision():
    """BatchNorm computes in float32; the weights stay in bfloat16."""

    class Half(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (3, 3), use_bias=False, dtype=jnp.bfloat16)(x)
            return nn.BatchNorm(use_running_average=True, dtype=jnp.bfloat16)(x)

    module, variables = linen(Half(), IMAGE)
    left = operations(run(AFTER_OTHERS, (module, variables), IMAGE))
    convert = "convert_element_type"
    assert left == [convert, "conv_general_dilated", convert, "add", convert]


def test_symbolic_batch():
    module, variables = linen(Linen(), IMAGE)
    after = run(AFTER_OTHERS, (module, variables), IMAGE, dynamic="b, ...")
    assert operations(after) == ["conv_general_dilated", "add", "max"] and after.is_symbolic


EXAMPLES = max(settings().max_examples // 3, 1)
"""Two compilations and a rewrite each."""

LETTERS = [f"{a}C{b}" for a, b in (("N", "HW"), ("NH", "W"), ("NHW", ""))]
KERNELS = ["".join(p) for p in itertools.permutations("OIHW")][::3]


@settings(max_examples=EXAMPLES)
@given(
    lhs=st.sampled_from(LETTERS),
    kernel=st.sampled_from(KERNELS),
    out=st.sampled_from(LETTERS),
    groups=st.sampled_from([1, 2, 4]),
    before=st.booleans(),
    divide=st.booleans(),
)
def test_every_layout_of_a_convolution(lhs, kernel, out, groups, before, divide):
    sizes = {"N": 2, "H": 5, "W": 4, "C": 4, "O": 8, "I": 4 // groups}
    x, w = (array(*(dict(sizes, **extra)[d] for d in text)) for text, extra in ((lhs, {}), (kernel, {"H": 3, "W": 2})))
    shape = [8 if d == "C" else 1 for d in out]
    input_shape = [4 if d == "C" else 1 for d in lhs]
    scale, shift, first = channel(8).reshape(shape), array(8).reshape(shape), channel(4).reshape(input_shape)

    def f(x):
        x = (x / first if divide else x * first) if before else x
        y = conv(x, w, (lhs, kernel, out), feature_group_count=groups)
        return ((y + shift) / scale if divide else (y - shift) * scale) + shift

    assert folds(f, x) == ["conv_general_dilated", "add"]


@settings(max_examples=EXAMPLES)
@given(
    batch=st.integers(0, 2),
    left=st.integers(0, 2),
    right=st.integers(0, 2),
    weights_first=st.booleans(),
    over=st.sampled_from(["nothing", "weights", "batch", "other"]),
)
def test_every_layout_of_a_product(batch, left, right, weights_first, over):
    """Operands hold batch, free and contracted axes, in an order drawn by their number."""
    free = (left, right)
    shapes = [[2] * batch + [3 + side] * free[side] + [5] for side in (0, 1)]
    orders = [RNG.permutation(len(shape)) for shape in shapes]
    operands = [array(*shape).transpose(order) for shape, order in zip(shapes, orders, strict=True)]
    place = [{int(axis): position for position, axis in enumerate(order)} for order in orders]
    contracting = [[place[side][len(shapes[side]) - 1]] for side in (0, 1)]
    batches = [[place[side][axis] for axis in range(batch)] for side in (0, 1)]
    weights = 0 if weights_first else 1
    out = [2] * batch + [3] * left + [4] * right
    starts = {"batch": range(batch), "nothing": ()}
    spans = [range(batch, batch + left), range(batch + left, len(out))]
    varies = starts.get(over, spans[weights] if over == "weights" else spans[1 - weights])
    scale = channel([size if axis in varies else 1 for axis, size in enumerate(out)])

    def f(x):
        pair = (operands[0], x) if weights_first else (x, operands[1])
        return lax.dot_general(*pair, ((contracting[0], contracting[1]), (batches[0], batches[1]))) * scale

    stays = over == "other" and len(varies) > 0
    assert ("mul" in folds(f, operands[1 - weights])) == stays


@pytest.mark.parametrize("name", ["mobilenet", "resnet"])
def test_published_networks(name):
    """Inverted residuals with depthwise convolutions, and bottlenecks with projections: no scale is left."""

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            norm = lambda y: nn.BatchNorm(use_running_average=True)(y)  # noqa: E731
            y = nn.relu6(norm(nn.Conv(16, (1, 1), use_bias=False)(x)))
            groups = 16 if name == "mobilenet" else 1
            y = nn.relu6(norm(nn.Conv(16, (3, 3), feature_group_count=groups, use_bias=False)(y)))
            y = norm(nn.Conv(x.shape[-1], (1, 1), use_bias=False)(y))
            return x + y if name == "mobilenet" else nn.relu(norm(nn.Conv(x.shape[-1], (1, 1))(x)) + y)

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3), strides=2)(x)))
            for _ in range(2):
                x = Block()(x)
            return nn.Dense(5)(x.mean((1, 2)))

    after = run(AFTER_OTHERS + ",dead-code", linen(Network(), IMAGE), IMAGE)
    assert not {"mul", "sub", "rsqrt"} & set(operations(after))
