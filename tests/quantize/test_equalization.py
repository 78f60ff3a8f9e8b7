"""Cross-layer equalization, bias correction and balanced rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from xlapass.core.manager import PassManager
from xlapass.passes.quantize.weights import balanced, per_channel

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def conv(x, w, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers, **options)


SCALES = np.logspace(-2, 2, 8).astype(np.float32)
A, B, D = drawn(3, 3, 4, 8) * SCALES, drawn(3, 3, 8, 5) / SCALES[:, None], drawn(3, 3, 1, 8) / SCALES
M, N = drawn(6, 8) * SCALES, drawn(8, 5) / SCALES[:, None]
BIAS = drawn(8) * SCALES

CHAINS = {
    "convolutions": (lambda x: conv(jax.nn.relu(conv(x, A) + BIAS), B), (2, 6, 6, 4)),
    "without activation": (lambda x: conv(conv(x, A), B), (2, 6, 6, 4)),
    "depthwise": (lambda x: conv(jax.nn.relu(conv(x, A) + BIAS), D, feature_group_count=8), (2, 6, 6, 4)),
    "dense": (lambda x: jax.nn.relu(x @ M + BIAS) @ N, (3, 6)),
    "three": (lambda x: jax.nn.relu(jax.nn.relu(x @ M + BIAS) @ N) @ drawn(5, 4), (3, 6)),
}


def prepared(fn, x):
    return PassManager("inline,simplify,fold-constants").run(xlapass.trace(fn, x))


def noise(want, have):
    want, have = np.asarray(want, np.float64), np.asarray(have, np.float64)
    return 10 * np.log10((want**2).sum() / max(((want - have) ** 2).sum(), 1e-30))


@pytest.mark.parametrize("name", sorted(CHAINS))
def test_equalizing_changes_no_result_and_helps(name):
    fn, shape = CHAINS[name]
    x = drawn(*shape)
    program = prepared(fn, x)
    equal = PassManager("equalize").run(program)
    assert equal is not program
    np.testing.assert_allclose(equal(x), program(x), rtol=2e-3, atol=2e-3)
    noises = []
    for one in (program, equal):
        one = one.replace(calibration=[(x,)])
        quantized = PassManager("quantize{target=simulated,per-channel=false}").run(one)
        noises.append(noise(program(x), quantized(x)))
    assert noises[1] > noises[0] + 5


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jax.nn.relu6(x @ M) @ N,
        lambda x: jnp.tanh(x @ M) @ N,
        lambda x: (lambda y: y @ N + y.sum())(jax.nn.relu(x @ M)),
        lambda x: x @ M,
    ],
    ids=["relu6", "tanh", "used elsewhere", "one"],
)
def test_what_cannot_be_equalized(fn):
    program = prepared(fn, drawn(3, 6))
    assert PassManager("equalize").run(program) is program


@pytest.mark.parametrize("name", ["convolutions", "depthwise", "dense"])
def test_bias_correction_keeps_the_means(name):
    fn, shape = CHAINS[name]
    x = np.abs(drawn(*shape)) + 1  # with a mean, which errors of the weights add up with
    program = prepared(fn, x).replace(calibration=[(x,)])
    errors = []
    for option in ("false", "true"):
        quantized = PassManager(
            f"equalize,quantize{{target=simulated,per-channel=false,bias-correction={option}}}"
        ).run(program)
        errors.append(np.abs((np.asarray(quantized(x)) - program(x)).mean(tuple(range(x.ndim - 1)))).max())
    assert errors[1] < errors[0]


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_balanced_rounding(axis, dtype):
    w = drawn(7, 8, 9) + 0.3
    p = per_channel(w, axis, dtype=dtype)
    others = tuple(k for k in range(3) if k != axis)
    exact = w / np.expand_dims(p.scale, others)
    numbers = balanced(w, p, axis).astype(float)
    assert np.abs(numbers - exact).max() <= 1 and np.abs((numbers - exact).sum(others)).max() <= 0.5 + 1e-6
    assert (np.abs(numbers) <= p.limits[1]).all()


def test_balanced_rounding_helps_where_activations_have_a_mean():
    w, x = drawn(256, 32), np.abs(drawn(50, 256)) + 1
    program = prepared(lambda x: x @ w, x)
    noises = [
        noise(program(x), PassManager(f"quantize{{scheme=weight-only,bits=4,group=256,rounding={r}}}").run(program)(x))
        for r in ("nearest", "balanced")
    ]
    assert noises[1] > noises[0] + 3
