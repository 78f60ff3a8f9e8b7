"""Where quantizers stand, in which form, and what moves and cancels them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from hypothesis import given
from hypothesis import strategies as st
from support import operations
from xlapass.core.errors import CompileError, UsageError
from xlapass.core.graph import Graph
from xlapass.core.instruments.report import Report
from xlapass.core.manager import PassManager
from xlapass.passes.quantize.arithmetic import asymmetric
from xlapass.passes.quantize.composites import dequantize, quantize
from xlapass.passes.quantize.placement import place
from xlapass.passes.quantize.tables import ONNX, TFLITE, XLA

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def conv(x, w, **options):
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC"), **options}
    return jax.lax.conv_general_dilated(x, w, **options)


def prepared(fn, *args):
    return PassManager("inline,simplify,fold-constants,fuse,simplify").run(xlapass.trace(fn, *args))


def placed(fn, *args, table=ONNX, scheme="static"):
    return place(Graph(prepared(fn, *args).jaxpr), table, scheme)


def noise(want, have):
    """Signal to quantization noise in dB."""
    want, have = np.asarray(want, np.float64), np.asarray(have, np.float64)
    return 10 * np.log10((want**2).sum() / max(((want - have) ** 2).sum(), 1e-30))


X = drawn(2, 8, 8, 4)
W, V = drawn(3, 3, 4, 4) / 6, drawn(3, 3, 4, 4) / 6
D = drawn(4, 5)


# -- placement ---------------------------------------------------------------------------------------------------------


def test_residual_blocks_are_wholly_quantized():
    def block(x):
        return conv(jax.nn.relu(x + conv(jax.nn.relu(conv(x, W) + 1), V)), W)

    found = placed(block, X)
    assert [op.kind for op in found.operations] == ["conv", "conv", "add", "conv"]
    assert [op.activation is not None for op in found.operations] == [True, False, True, False]
    assert found.operations[0].bias.tolist() == [1, 1, 1, 1]
    assert sorted(found.inputs.values()) == ["conv:input"]


def test_the_residual_stream_of_a_transformer_stays_float():
    def norm(x):
        y = x - x.mean(-1, keepdims=True)
        return y * jax.lax.rsqrt((y**2).mean(-1, keepdims=True) + 1e-5)

    def layer(x):
        return norm(x + jax.nn.gelu(norm(x) @ D) @ D.T)

    found = placed(layer, drawn(6, 4))
    assert [op.kind for op in found.operations] == ["dot", "dot"]
    assert found.outputs == []
    assert len(placed(layer, drawn(6, 4), table=TFLITE).outputs) == 2


def test_products_of_two_computed_values_stay_float():
    found = placed(lambda x: (x @ x.T) @ (x @ drawn(4, 4)), drawn(4, 4))
    assert len(found.operations) == 1 and set(found.floats.values()) == {"both operands are computed"}


@pytest.mark.parametrize(
    ("fn", "args", "reason"),
    [
        (lambda x: x @ jnp.full((4, 5), np.nan), (drawn(3, 4),), "not finite"),
        (lambda x: x @ jnp.ones((4, 5), jnp.float16), (np.ones((3, 4), np.float16),), "not float32"),
        (lambda x: x @ drawn(4, 0), (drawn(3, 4),), "empty"),
        (
            lambda x: conv(x, W, lhs_dilation=(2, 2), window_strides=(1, 1), padding=((1, 1), (1, 1))),
            (X,),
            "transposed",
        ),
    ],
)
def test_what_stays_float_and_why(fn, args, reason):
    found = placed(fn, *args)
    assert not found.operations
    assert reason in " ".join(found.floats.values())


def test_tables_differ():
    assert placed(lambda x: conv(x, W), X, table=XLA).operations == []
    few, many = drawn(3, 4), drawn(64, 4)
    assert "3 rows" in " ".join(placed(lambda x: x @ D, few, table=XLA).floats.values())
    assert len(placed(lambda x: x @ D, many, table=XLA).operations) == 1


# -- forms of products -------------------------------------------------------------------------------------------------

PRODUCTS = {
    "dense": (lambda x: x @ D + 1, drawn(3, 4)),
    "dense of three axes": (lambda x: x @ D, drawn(2, 3, 4)),
    "vector": (lambda x: x @ D, drawn(4)),
    "weights first": (lambda x: D.T @ x + jnp.arange(5.0)[:, None], drawn(4, 6)),
    "two summed axes": (lambda x: jnp.einsum("bij,ijk->bk", x, drawn(3, 4, 5)), drawn(2, 3, 4)),
    "heads": (lambda x: jnp.einsum("bi,ihd->bhd", x, drawn(4, 2, 3)) + drawn(2, 3), drawn(5, 4)),
    "transposed weights": (lambda x: jnp.einsum("bi,ki->bk", x, drawn(5, 4)), drawn(3, 4)),
    "strided convolution": (lambda x: conv(x, W, window_strides=(2, 2)) + 0.5, X),
    "grouped convolution": (lambda x: conv(x, drawn(3, 3, 2, 6), feature_group_count=2), X),
    "depthwise convolution": (lambda x: jax.nn.relu6(conv(x, drawn(3, 3, 1, 4), feature_group_count=4)), X),
    "dilated convolution": (lambda x: conv(x, W, rhs_dilation=(2, 2)), X),
    "convolution of one axis": (
        lambda x: conv(x, drawn(3, 4, 6), window_strides=(1,), dimension_numbers=("NWC", "WIO", "NWC")),
        drawn(2, 9, 4),
    ),
    "channels first": (
        lambda x: conv(x, drawn(5, 4, 3, 3), dimension_numbers=("NCHW", "OIHW", "NCHW")),
        drawn(2, 4, 6, 6),
    ),
}


@pytest.mark.parametrize("name", sorted(PRODUCTS))
@pytest.mark.parametrize("scheme", ["static", "dynamic", "weight-only"])
def test_every_product_keeps_its_meaning(name, scheme):
    fn, x = PRODUCTS[name]
    program = prepared(fn, x).replace(calibration=[(x,)])
    result = PassManager(f"quantize{{target=simulated,scheme={scheme}}}").run(program)
    kept = scheme == "dynamic" and ("convolution" in name or name == "channels first")
    assert (result is program) == kept
    assert noise(program(x), result(x)) > 30


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_every_product_is_an_integer_kernel_of_onnx_runtime(name):
    fn, x = PRODUCTS[name]
    artifact = xlapass.compile(fn, x, pipeline="onnx-int8", calibration_data=[(x,)])
    assert [kernel.is_integer for kernel in artifact.kernels.kernels] == [True]
    assert noise(artifact.program(x), artifact.executable()(x)) > 45


def test_four_bits_in_groups():
    w, x = drawn(64, 16), drawn(3, 64)
    program = prepared(lambda x: x @ w, x)
    results = {
        group: PassManager(f"quantize{{scheme=weight-only,bits=4,group={group}}}").run(program)(x) for group in (16, 64)
    }
    assert noise(x @ w, results[16]) > noise(x @ w, results[64]) > 15
    artifact = xlapass.compile(program, pipeline="quantize{scheme=weight-only,bits=4,target=onnx}", backend="onnx")
    assert noise(artifact.program(x), artifact.executable()(x)) > 30  # ONNX Runtime rounds the activations, too
    assert [kernel.kernel for kernel in artifact.kernels.kernels] == ["MatMulNBits"]


def test_symbolic_batch():
    program = xlapass.trace(lambda x: jax.nn.relu(x @ D) @ D.T, drawn(3, 4), dynamic="batch, ...")
    x = drawn(5, 4)
    program = PassManager("inline,simplify").run(program.replace(calibration=[(drawn(3, 4),), (x,)]))
    result = PassManager("quantize{target=simulated}").run(program)
    assert noise(program(x), result(x)) > 25


@pytest.mark.parametrize(
    "options", ["scheme=static,bits=4", "scheme=dynamic,group=8", "percentile=20", "group=-1", "target=nowhere"]
)
def test_options_that_make_no_sense(options):
    with pytest.raises(UsageError):
        PassManager(f"quantize{{{options}}}").run(prepared(lambda x: x @ D, drawn(3, 4)))


def test_keep_leaves_a_product_in_float():
    program = prepared(lambda x: (x @ D) @ D.T, drawn(3, 4))
    result = PassManager("quantize{scheme=weight-only,keep=dot}").run(program)
    dots = [eqn for eqn in result.jaxpr.eqns if eqn.primitive.name == "dot_general"]
    assert len(dots) == 2 and operations(result).count("composite") == 1


def test_a_pipeline_that_promised_integers_fails_without(monkeypatch):
    monkeypatch.setattr("xlapass.backends.onnx.integer.INTEGER", frozenset())
    with pytest.raises(CompileError, match="no integer kernels in ONNX Runtime"):
        xlapass.compile(lambda x: x @ D, drawn(3, 4), pipeline="onnx-int8", calibration_data=[(drawn(3, 4),)])


# -- rules -------------------------------------------------------------------------------------------------------------

P, Q = asymmetric(-1, 2), asymmetric(-3, 3)
MOVES = {
    "reshape": lambda x: x.reshape(-1),
    "transpose": lambda x: x.transpose(1, 0, 2),
    "slice": lambda x: x[:, 1:3],
    "max pool": lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2), (1, 1, 1), "SAME"),
    "max": lambda x: x.max(1),
    "broadcast": lambda x: jnp.broadcast_to(x[None], (2, *x.shape)),
}


@pytest.mark.parametrize("name", sorted(MOVES))
def test_dequantizing_moves_down(name):
    def fn(q):
        return MOVES[name](dequantize(q, P))

    q = RNG.integers(-128, 127, (3, 4, 5)).astype(np.int8)
    before = xlapass.trace(fn, q)
    after = PassManager("inline,simplify").run(before)
    assert [eqn.primitive.name for eqn in after.jaxpr.eqns][-1] == "composite"
    np.testing.assert_array_equal(after(q), before(q))


def test_quantizers_cancel():
    program = PassManager("simplify").run(xlapass.trace(lambda q: quantize(dequantize(q, P), P), np.zeros(3, np.int8)))
    assert not program.jaxpr.eqns
    kept = PassManager("simplify").run(xlapass.trace(lambda q: quantize(dequantize(q, P), Q), np.zeros(3, np.int8)))
    assert len(kept.jaxpr.eqns) == 2


@given(st.integers(-128, 127), st.floats(2.0**-20, 2.0**20, width=32), st.integers(-128, 127))
def test_cancelling_is_exact(number, scale, zero_point):
    p = type(P)(np.float32(scale), np.int32(zero_point))
    assert int(quantize(dequantize(np.int8(number), p), p)) == number


def test_a_factor_goes_into_the_scale():
    q = RNG.integers(-128, 127, (3, 4)).astype(np.int8)
    before = xlapass.trace(lambda q: dequantize(q, P) / 6, q)
    after = PassManager("simplify").run(before)
    assert len(after.jaxpr.eqns) == 1
    np.testing.assert_allclose(after(q), before(q), rtol=1e-6)


def test_saturation_does_what_relu_would():
    positive = asymmetric(0, 2)
    program = PassManager("inline,simplify").run(
        xlapass.trace(lambda q: jax.nn.relu(dequantize(q, positive)), np.zeros(3, np.int8))
    )
    assert len(program.jaxpr.eqns) == 1


# -- integers in XLA ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_products_of_integers(seed):
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((17, 12), (12, 6), (6,)))
    program = prepared(lambda x: jax.nn.relu(x @ w + b), x).replace(calibration=[(x,)])
    simulated = PassManager("quantize{target=xla}").run(program)
    integers = PassManager("integer-products").run(simulated)
    assert "integer-products" in integers.history[-1]
    np.testing.assert_allclose(integers(x), simulated(x), atol=1e-5)


def test_a_pipeline_for_xla_that_promised_integers_fails_without(monkeypatch):
    monkeypatch.setattr("xlapass.passes.quantize.integer.FEWEST_ROWS", 10**9)
    x = drawn(17, 4)
    with pytest.raises(CompileError, match=r"1 products were quantized.*few rows(.|\n)*test_pass.py"):
        xlapass.compile(lambda x: x @ D, x, pipeline="cpu-int8", calibration_data=[(x,)])


def test_xla_multiplies_integers():
    """Read back from the module that XLA compiled: int8 where it was quantized, float32 where not."""
    x = drawn(17, 4)

    def fn(x):
        with jax.named_scope("one"):
            y = jax.nn.relu(x @ D + 1)
        return y @ drawn(5, 6), conv(y.reshape(1, 17, 5, 1), drawn(2, 2, 1, 3))

    artifact = xlapass.compile(fn, x, pipeline="cpu-int8", calibration_data=[(x,)])
    kernels = {kernel.name: kernel for kernel in artifact.kernels.kernels}
    assert len(kernels) == 3 and sum(kernel.is_integer for kernel in kernels.values()) == 2
    assert kernels["one/dot_general"].kernel == "dot s8 x s8"
    assert "2 of 3 products are integer kernels in XLA" in artifact.kernels.summary()
    assert artifact.description() is artifact.kernels
    assert xlapass.compile(fn, x, pipeline="cpu").description() is None


def test_the_report_says_which_products_stay_in_float_and_why():
    x = drawn(3, 4)
    for options, reason in (("target=xla", "3 rows faster in float"), ("target=onnx,keep=dot", "asked to stay float")):
        report = Report()
        program = prepared(lambda x: x @ D, x).replace(calibration=[(x,)])
        assert PassManager(f"quantize{{{options}}}", instruments=[report]).run(program) is program
        shown = " ".join(str(report).split())
        assert "products left in float" in shown and reason in shown
    report = Report()
    PassManager("quantize{target=onnx}", instruments=[report]).run(program)
    assert "left in float" not in str(report)
