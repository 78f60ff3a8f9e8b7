"""`mixed-precision`: what goes into the small type, and what stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support import operations
from xlapass.core.driver import optimize, plan
from xlapass.core.graph import Graph
from xlapass.core.instruments.report import Report
from xlapass.core.manager import PassManager
from xlapass.core.tracing import trace
from xlapass.testing import assert_equal_results, assert_idempotent, assert_rewrites, assert_unchanged

RNG = np.random.default_rng(0)
PASS = "mixed-precision"
HALF = "mixed-precision{dtype=float16}"


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def check(fn, *args, after, subject=PASS, **options):
    """The program after the pass reads as expected, computes the same within its tolerance, and has settled."""
    assert_rewrites(subject, fn, *args, expect=after, **options)
    assert_equal_results(subject, fn, *args, **options)
    return assert_idempotent(subject, fn, *args, **options)


def details(fn, *args, subject=PASS, **options):
    """What the pass has to say."""
    report = Report()
    PassManager(subject, instruments=[report]).run(trace(fn, *args, **options))
    return report.records[-1].details


def reasons(fn, *args, operation="dot_general", **options):
    return list(details(fn, *args, **options).get("kept", {}).get(operation, {}))


X, Y, W = draw(4, 3), draw(3, 5), draw(3, 5)


# -- what goes into the small type -------------------------------------------------------------------------------------


def test_product_of_inputs():
    check(
        lax.dot,
        X,
        Y,
        after="""
            program(a:f32[4,3], b:f32[3,5]):
              c:bf16[4,3] = convert_element_type[new_dtype=bfloat16] a
              d:bf16[3,5] = convert_element_type[new_dtype=bfloat16] b
              e:f32[4,5] = dot_general[dimension_numbers=(((1),(0)),((),())) preferred_element_type=float32] c d
              return e
        """,
    )


def test_product_with_a_constant_in_float16():
    check(
        lambda x: lax.dot(x, np.asarray([[0.5], [1.25]], np.float32)),
        draw(4, 2),
        subject=HALF,
        after="""
            program(a:f32[4,2]):
              const b:f16[2,1] = [[0.5], [1.25]]
              c:f16[4,2] = convert_element_type[new_dtype=float16] a
              d:f32[4,1] = dot_general[dimension_numbers=(((1),(0)),((),())) preferred_element_type=float32] c b
              return d
        """,
    )


def test_convolution():
    kernel = draw(2, 2, 3, 4)
    numbers = ("NHWC", "HWIO", "NHWC")
    program = assert_equal_results(
        PASS, lambda x: lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers), draw(2, 5, 5, 3)
    )
    (node,) = [n for n in Graph(program.jaxpr).nodes() if n.name == "conv_general_dilated"]
    assert [v.dtype for v in (*node.inputs, *node.outputs)] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    assert node.params["preferred_element_type"] == np.float32 and node.inputs[1].is_const


def test_ragged_product():
    sizes = np.asarray([3, 1], np.int32)
    program = assert_equal_results(PASS, lambda x, w: lax.ragged_dot(x, w, sizes), draw(4, 3), draw(2, 3, 5))
    assert "convert_element_type" in operations(program)


def test_the_rest_stays_in_float32():
    def model(x):
        y = x @ W
        return jax.nn.softmax(y) + jnp.exp(y).sum() + jax.lax.rsqrt(jnp.var(y, -1, keepdims=True) + 1e-5)

    program = assert_equal_results(PASS, model, X)
    small = [n.name for n in Graph(program.jaxpr).nodes() for v in n.outputs if v.dtype == jnp.bfloat16]
    assert small == ["convert_element_type"]


def test_only_one_operand_is_left_to_round():
    """JAX multiplies mixed types too."""
    dot = lambda x, w: lax.dot_general(x, w, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)  # noqa: E731
    check(
        dot,
        X.astype(jnp.bfloat16),
        W,
        after="""
            program(a:bf16[4,3], b:f32[3,5]):
              c:bf16[3,5] = convert_element_type[new_dtype=bfloat16] b
              d:f32[4,5] = dot_general[dimension_numbers=(((1),(0)),((),())) preferred_element_type=float32] a c
              return d
        """,
    )


@pytest.mark.parametrize(
    ("lhs", "rhs"),
    [("km", "knN"), ("bkm", "nbkN"), ("bkm", "knbN"), ("Bbkm", "bkBn"), ("mMk", "kn"), ("kKm", "knK"), ("m", "n")],
)
def test_orders_of_dimensions(lhs, rhs):
    """XLA:CPU stops on some of these when it gets them as they are, or with the transposes that stand before them."""
    sizes = {"b": 2, "B": 3, "m": 9, "M": 2, "k": 10, "K": 3, "n": 11, "N": 2}
    x, y = draw(*map(sizes.get, sorted(lhs))), draw(*map(sizes.get, sorted(rhs)))
    batch, result = [i for i in lhs if i in "bB"], [*(i for i in lhs if i not in "kK"), *(i for i in rhs if i in "nN")]
    equation = f"{lhs},{rhs}->{''.join([*batch, *(i for i in result if i not in batch)])}"

    def product(x, y):
        places = [[sorted(term).index(i) for i in term] for term in (lhs, rhs)]
        return jnp.einsum(equation, jnp.transpose(jnp.sin(x), places[0]), jnp.transpose(y, places[1]))

    program = trace(product, x, y)
    after = PassManager("inline,mixed-precision").run(program)
    assert "bfloat16" in str(after)
    np.testing.assert_allclose(after(x, y), program(x, y), atol=0.3)


def test_empty_and_scalar_operands():
    assert_equal_results(PASS, lax.dot, draw(0, 3), draw(3, 5))
    assert_equal_results(PASS, lax.dot, draw(4, 0), draw(0, 5))
    assert_equal_results(PASS, jnp.dot, draw(3), draw(3))
    assert_equal_results(PASS, lambda x, y: lax.dot_general(x, y, (((), ()), ((), ()))), draw(2), np.float32(2.5))


def test_symbolic_sizes():
    program = assert_equal_results(PASS, lambda x: jax.nn.relu(x @ W).T @ x, X, dynamic="batch, ...")
    assert operations(program).count("convert_element_type") == 2
    assert program(draw(7, 3)).shape == (5, 3)


# -- what stays --------------------------------------------------------------------------------------------------------


def test_prescribed_precision():
    highest = lambda x: jnp.dot(x, W, precision="highest")  # noqa: E731
    assert_unchanged(PASS, highest, X)
    assert "its precision (Precision.HIGHEST, Precision.HIGHEST) was asked for" in reasons(highest, X)
    with jax.default_matmul_precision("float32"):
        assert_unchanged(PASS, lambda x: x @ W, X)


def test_algorithm_asked_for():
    exact = lambda x: lax.dot(x, W, precision=lax.DotAlgorithmPreset.F32_F32_F32)  # noqa: E731
    assert_unchanged(PASS, exact, X)


def test_default_precision_is_no_wish():
    assert_equal_results(PASS, lambda x: lax.dot(x, W, precision="default"), X)
    assert not reasons(lambda x: lax.dot(x, W, precision="default"), X)


@pytest.mark.parametrize("dtype", ["float64", "int32", "int8", "complex64", "bfloat16", "float16", "bool"])
def test_other_types(dtype):
    with jax.enable_x64(True):
        x, y = (draw(3, 3) * 3).astype(dtype), (draw(3, 3) * 3).astype(dtype)
        assert_unchanged(PASS, lambda x, y: lax.dot_general(x, y, (((1,), (0,)), ((), ()))), x, y)


def test_float32_under_64_bit_types():
    with jax.enable_x64(True):
        program = assert_equal_results(PASS, lambda x, y: (x @ W) + y, X, np.ones(5))
    assert str(program.out_avals[0].dtype) == "float64" and "convert_element_type" in operations(program)


def test_result_in_float64():
    with jax.enable_x64(True):
        wide = lambda x: lax.dot(x, W, preferred_element_type=jnp.float64)  # noqa: E731
        assert_unchanged(PASS, wide, X)
        assert reasons(wide, X) == ["its types are float32, float64"]


def test_no_product():
    assert_unchanged(PASS, lambda x: jax.nn.softmax(x) * 2, X)


def test_kept_scopes():
    def model(x):
        with jax.named_scope("Body_0"):
            x = jnp.tanh(x @ W)
        with jax.named_scope("head"):
            return x @ W.T

    names = {"head": 1, "Body_*": 1, "hea": 2, "Body_?+head": 0, "nothing": 2}
    for scope, placed in names.items():
        told = details(model, X, subject=f"{PASS}{{keep={scope}}}")
        assert told.get("small", {}).get("dot_general", 0) == placed, scope
    assert "it stands in head" in details(model, X, subject=f"{PASS}{{keep=head}}")["kept"]["dot_general"]


# -- constants that do not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [7e4, -1e9, float(np.finfo(np.float32).max)])
def test_constant_that_overflows_float16(number):
    weights = W.copy()
    weights[1, 1] = number
    assert_unchanged(HALF, lambda x: x @ weights, X)
    (reason,) = reasons(lambda x: x @ weights, X, subject=HALF)
    assert reason == "a constant of it is beyond the largest float16, 65504"


def test_constant_that_overflows_bfloat16():
    weights = np.full((3, 5), np.finfo(np.float32).max)
    assert_unchanged(PASS, lambda x: x @ weights, X)


def test_infinity_and_nan_are_the_same_in_every_type():
    weights = W.copy()
    weights[0] = [np.inf, -np.inf, np.nan, 0, 1]
    assert not reasons(lambda x: x @ weights, X, subject=HALF)
    assert_equal_results(HALF, lambda x: x @ weights, X)


@pytest.mark.parametrize("scale", [1e-7, 1e-8, 1e-30])
def test_constant_that_vanishes_in_float16(scale):
    weights = W * np.float32(scale)
    assert_unchanged(HALF, lambda x: x @ weights, X)
    assert reasons(lambda x: x @ weights, X, subject=HALF) == ["a constant of it is too small for float16"]
    assert not reasons(lambda x: x @ weights, X)


def test_zeros_fit():
    assert not reasons(lambda x: x @ np.zeros((3, 5), np.float32), X, subject=HALF)


def test_constant_that_is_moved_first():
    weights = jnp.asarray((W * 1e6).T)
    assert reasons(lambda x: x @ weights.T, X, subject=HALF)
    assert reasons(lambda x: jnp.where(x > 0, x, 1e30) @ W, X, subject=f"inline,{HALF}")
    assert not reasons(lambda x: jnp.where(x > 0, x, 1e30) @ W, X, subject=f"inline,{PASS}")


def test_constant_of_a_loop():
    def model(x):
        return lax.scan(lambda c, w: (c @ w, None), x, np.stack([W, W * 1e6])[:, :, :3])[0]

    told = reasons(model, X, subject=HALF)
    assert told == ["a constant of it is beyond the largest float16, 65504"]


def test_mask_that_is_added_stays():
    """What is only added never sees the small type."""
    mask = np.where(np.tri(4, dtype=bool), 0, np.finfo(np.float32).min).astype(np.float32)
    attention = lambda q, k, v: jax.nn.softmax(q @ k.T + mask) @ v  # noqa: E731
    assert_equal_results(HALF, attention, X, X, X)
    assert not reasons(attention, X, X, X, subject=HALF)


# -- around it ---------------------------------------------------------------------------------------------------------


def test_report():
    told = details(lambda x: jnp.dot(x @ W, W.T, precision="highest"), X)
    assert told["policy"] == "products" and told["small"] == {"dot_general": 1}
    assert told["constant bytes"] == {"before": 60, "after": 30}
    assert list(told["kept"]) == ["dot_general"]


def test_exact_numerics_leave_it_out():
    chosen = plan("inline,mixed-precision{policy=products}")
    program = trace(lambda x: x @ W, X)
    for numerics in ("exact", "reassociating"):
        assert "convert_element_type" not in operations(optimize(chosen, program, numerics=numerics))
    assert "convert_element_type" in operations(optimize(chosen, program, numerics="lossy"))


def test_source_and_maker_are_recorded():
    program = PassManager(PASS).run(trace(lambda x: jnp.tanh(x @ W), X))
    made = [n for n in Graph(program.jaxpr).nodes() if n.name != "tanh"]
    assert all(program.provenance[n.outputs[0].var] == "mixed-precision" for n in made)
    assert all("test_mixed_precision.py" in n.where for n in made)
