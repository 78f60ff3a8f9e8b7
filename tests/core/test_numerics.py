"""Numerical verification: wrong passes are found and named, right ones are left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xlapass.core.errors import VerificationError
from xlapass.core.instruments.evaluation import runs_unsimplified
from xlapass.core.instruments.numerics import NumericalVerifier, compare_programs, difference
from xlapass.core.manager import PassManager
from xlapass.core.pass_ import RewritePass
from xlapass.core.patterns import op, var
from xlapass.core.rewrite import Rule
from xlapass.core.tracing import trace

x, y = var("x"), var("y")


def pass_of(pattern, replacement, numerics="exact", check=None):
    class Made(RewritePass):
        """Holds one rule."""

        name = "made"

        @classmethod
        def own_rules(cls):
            return [Rule("made-rule", pattern, replacement, check=check, numerics=numerics)]

    return Made()


def verify(subject, fn, *args):
    return PassManager([subject], instruments=[NumericalVerifier()]).run(trace(fn, *args))


def test_a_wrong_pass_is_named_with_rule_operation_and_line():
    wrong = pass_of(op.sin(x), lambda x: jnp.cos(x))
    with pytest.raises(VerificationError) as caught:
        verify(wrong, lambda v: jnp.tanh(jnp.sin(v) + 1.0), jnp.ones(3))
    message = str(caught.value)
    assert "pass 'made'" in message and "operation 'sin'" in message and "rule 'made-rule'" in message
    assert "test_numerics.py" in message and "'exact'" in message


def test_wrong_only_on_special_values():
    """What the example inputs do not show: zero times infinity."""
    wrong = pass_of(op.mul(x, 0.0), lambda x: jnp.zeros_like(x))
    with pytest.raises(VerificationError, match="special inputs"):
        verify(wrong, lambda v: v * v * 0.0, jnp.ones(3))


def test_wrong_only_by_the_sign_of_zero():
    wrong = pass_of(op.neg(x), lambda x: 0 - x)
    with pytest.raises(VerificationError):
        verify(wrong, lambda v: -v, jnp.ones(3))


def test_another_order_of_a_sum_needs_the_declaration():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1000).astype(np.float32)
    pattern = op.reduce_sum(x)
    is_long = lambda match: None if match["x"].shape == (1000,) else "it is not the long sum"  # noqa: E731
    halves = lambda x: jnp.sum(x[::2]) + jnp.sum(x[1::2])  # noqa: E731
    verify(pass_of(pattern, halves, "reassociating", is_long), lambda v: jnp.sum(v), values)
    with pytest.raises(VerificationError):
        verify(pass_of(pattern, halves, "exact", is_long), lambda v: jnp.sum(v), values)


def test_cancellation_is_no_fault_of_a_reassociating_pass():
    """The variance of a constant row is rounding error alone; another order of the sum gives other errors."""
    bias = np.full((4, 1000), 0.1, np.float32)
    is_long = lambda match: None if match["x"].shape == (4, 1000) else "it is not the long sum"  # noqa: E731
    subject = pass_of(
        op.reduce_sum(x), lambda x: x[:, ::2].sum(1) + x[:, 1::2].sum(1), numerics="reassociating", check=is_long
    )

    def centred(v):
        shifted = v + bias
        return shifted - jnp.sum(shifted, axis=1, keepdims=True) / 1000

    before, after = trace(centred, np.zeros((4, 1000), np.float32)), None
    after = verify(subject, centred, np.zeros((4, 1000), np.float32))
    assert after.history and compare_programs(before, after, "reassociating") is None
    assert compare_programs(before, after, "exact") is not None


def test_sensitivity_does_not_excuse_a_wrong_factor():
    subject = pass_of(op.reduce_sum(x), lambda x: jnp.sum(x) * 1.01, "reassociating", once)
    with pytest.raises(VerificationError, match="made-rule"):
        verify(subject, lambda v: jnp.sum(v + 1), np.linspace(0, 1, 100, dtype=np.float32))


def once(match, mark="mul"):
    """Declines where the rule has been: its own result is scaled, or its own operand negated."""
    near = [user.name for user in match.root.outputs[0].users]
    near += [value.producer.name for value in match.root.inputs if value.producer]
    return "it was rewritten" if mark in near else None


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "complex64", "int32", "bool", "uint8"])
@pytest.mark.parametrize("numerics", ["exact", "reassociating", "lossy"])
def test_equal_arrays_never_differ(dtype, numerics):
    value = jnp.asarray(np.arange(6).reshape(2, 3)).astype(dtype)
    assert difference(value, value, numerics)[0] == 0
    empty = jnp.zeros((0, 3), dtype)
    assert difference(empty, empty, numerics) == (0, 0)


def test_keys_are_compared():
    a, b = jax.random.key(0), jax.random.key(1)
    assert difference(a, a, "exact")[0] == 0 and difference(a, b, "exact")[0] > 0


@pytest.mark.parametrize("numerics", ["exact", "reassociating", "lossy"])
@given(
    st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=5),
    st.integers(0, 4),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e30]),
)
def test_a_wild_element_is_seen_at_any_numerics(numerics, values, position, put):
    want = np.asarray(values, np.float32)
    have = want.copy()
    have[position % len(values)] = put
    error, allowed = difference(want, have, numerics)
    assert error > allowed


@pytest.mark.parametrize("numerics", ["exact", "reassociating", "lossy"])
def test_infinities_of_either_sign_are_told_apart(numerics):
    want = np.asarray([np.inf, 1.0], np.float32)
    error, allowed = difference(want, np.asarray([-np.inf, 1.0], np.float32), numerics)
    assert error > allowed
    assert difference(want, want, numerics)[0] == 0


def test_without_its_simplifier_xla_is_asked_only_what_it_can_answer():
    whole = trace(lambda v: jax.lax.scan(lambda c, x: (jax.lax.slice(c, (0,), (2,)) + x, x), v[0], v), jnp.ones((3, 2)))
    assert not runs_unsimplified(whole.jaxpr.jaxpr)
    assert not runs_unsimplified(trace(lambda v: v.at[()].add(1.0), jnp.ones(())).jaxpr.jaxpr)
    assert runs_unsimplified(trace(lambda v: v[1:] / 3.0, jnp.ones(3)).jaxpr.jaxpr)


def test_exact_division_by_constants():
    """XLA's simplifier turns a division by a constant into a product, and one by a variable not."""
    subject = pass_of(op.div(x, y), lambda x, y: -((-x) / y), check=lambda m: once(m, "neg"))
    values = np.linspace(0.1, 9.7, 50, dtype=np.float32)
    assert verify(subject, lambda v: v / 7.3, values).history


@pytest.mark.parametrize(("factor", "rounding", "found"), [
    (1.05, None, False), (1.05, "bfloat16", False), (1.05, "float16", True), (1.004, "float16", False),
    (1.2, "bfloat16", True), (1.2, None, True),
])  # fmt: skip
def test_rounding_allows_what_the_dtype_explains(factor, rounding, found):
    v = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    before, after = trace(lambda v: v + 0.0, v), trace(lambda v: v * factor, v)
    assert (compare_programs(before, after, "lossy", rounding=rounding) is not None) == found


def test_rounding_where_large_numbers_cancel():
    """The difference is all rounding, and so is what is left of it when inputs are rounded."""
    v = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    before = trace(lambda v: (v + 1000.0) - 1000.0, v)
    after = trace(lambda v: ((v + 1000.0).astype(jnp.bfloat16).astype(jnp.float32)) - 1000.0, v)
    assert compare_programs(before, after, "lossy", rounding="bfloat16") is not None
    w = v + 1000
    before = trace(lambda v, w: jnp.sum(v * w, -1) - jnp.sum(v, -1) * 1000, v, w)
    after = trace(lambda v, w: jnp.sum(v * w.astype(jnp.bfloat16), -1) - jnp.sum(v, -1) * 1000, v, w)
    assert compare_programs(before, after, "lossy") is not None
    assert compare_programs(before, after, "lossy", rounding="bfloat16") is None
