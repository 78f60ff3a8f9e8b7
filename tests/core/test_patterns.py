"""Patterns: what they see through, and what they tell apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import lax
from programs import examples, programs
from xlapass.core.graph import Graph
from xlapass.core.patterns import (
    Attempt,
    Either,
    Number,
    Op,
    const,
    describe,
    number,
    op,
    same_value,
    scalar,
    scalar_of,
    through_broadcasts,
    through_no_ops,
    var,
)
from xlapass.core.rewrite import find

X = np.asarray([1.0, -2.0, 3.0], np.float32)
x, y, z = var("x"), var("y"), var("z")


def graph_of(fn, *args):
    return Graph(jax.make_jaxpr(fn)(*(args or (X,))))


def matches(pattern, fn, *args):
    """The bindings of the first match at the node that makes the first output, or None."""
    graph = graph_of(fn, *args)
    return next(pattern.matches(graph.outputs[0], {}, Attempt(), 0), None)


def reason(pattern, fn, *args):
    graph = graph_of(fn, *args)
    attempt = Attempt()
    assert next(pattern.matches(graph.outputs[0], {}, attempt, 0), None) is None
    return attempt.reason


# -- operations and variables ------------------------------------------------------------------------------------------


def test_variables_bind_values():
    graph = graph_of(lambda a, b: jnp.sin(a) - b, X, X)
    (match,) = find(graph, op.sub(op.sin(x), y))
    assert match["x"] is graph.inputs[0] and match["y"] is graph.inputs[1]
    assert match.root.name == "sub" and match.graph is graph


def test_find_looks_at_one_graph_and_every_node():
    graph = graph_of(lambda a: jnp.sin(a) + jnp.sin(jnp.sin(a)) + jax.jit(jnp.sin)(a))
    assert len(find(graph, op.sin(x))) == 3
    assert len(find(graph, op.sin(op.sin(x)))) == 1
    assert [m.root.name for m in find(graph, op.sin(x) | op.jit(x))] == ["sin", "sin", "sin", "jit"]


def test_operations_by_name():
    assert matches(op.and_(x, y), lambda a: (a > 0) & (a < 2)) is not None
    assert matches(Op(("scatter-add",)), lambda a: a.at[0].add(1.0)) is not None
    assert matches(op.concatenate(), lambda a: jnp.concatenate([a, a, a])) is not None
    assert matches(op.concatenate(x, y), lambda a: jnp.concatenate([a, a, a])) is None


def test_named_operations_conditions_and_outputs():
    last = op.top_k(x, where=lambda n: n.params["k"] == 2, name="top", output=1)
    bindings = matches(last, lambda a: lax.top_k(a, 2)[1])
    assert bindings["top"].params["k"] == 2
    assert matches(last, lambda a: lax.top_k(a, 2)[0]) is None
    assert reason(last, lambda a: lax.top_k(a, 1)[1]) == "the parameters of top_k do not fit"


def test_a_variable_that_stands_twice_must_match_one_value():
    square = op.mul(op.sin(x), op.sin(x))
    assert matches(square, lambda a: (lambda s: s * s)(jnp.sin(a))) is not None
    assert matches(square, lambda a: jnp.sin(a) * jnp.sin(a)) is not None
    assert matches(square, lambda a, b: jnp.sin(a) * jnp.sin(b), X, X) is None
    assert reason(op.sub(x, x), lambda a, b: a - b, X, X) == "x stands for two different values here"
    doubled = op.add(op.mul(x, scalar("c")), op.mul(y, scalar("c")))
    assert matches(doubled, lambda a, b: a * 2 + b * 2, X, X) is not None
    assert matches(doubled, lambda a, b: a * 2 + b * 3, X, X) is None


@pytest.mark.parametrize("fn", [lambda a: a * lax.logistic(a), lambda a: lax.logistic(a) * a])
def test_either_order_of_commutative_operands(fn):
    assert matches(op.mul(x, op.logistic(x)), fn) is not None
    assert matches(x * op.logistic(x), fn) is not None


def test_the_order_of_other_operands_counts():
    assert matches(op.sub(op.sin(x), y), lambda a: jnp.sin(a) - a) is not None
    assert matches(op.sub(op.sin(x), y), lambda a: a - jnp.sin(a)) is None


@pytest.mark.parametrize(
    ("pattern", "fn"),
    [
        (x + 1.0, lambda a: 1.0 + a),
        (1.0 + x, lambda a: a + 1.0),
        (x - 1.0, lambda a: a - 1.0),
        (1.0 - x, lambda a: 1.0 - a),
        (2.0 * x, lambda a: a * 2),
        (x / 2.0, lambda a: a / 2),
        (2.0 / x, lambda a: 2 / a),
        (-x, lambda a: -a),
        (-(x * 2.0) + y, lambda a: jnp.sin(a) + -(2 * a)),
    ],
    ids=["x + 1", "1 + x", "x - 1", "1 - x", "2 * x", "x / 2", "2 / x", "-x", "-(x * 2) + y"],
)
def test_arithmetic_on_patterns(pattern, fn):
    assert matches(pattern, fn)["x"].producer is None


def test_backtracking_over_orders_and_choices():
    """The first order that fits the first operand may not fit the second."""
    pattern = op.add(op.mul(x, y), op.mul(x, op.sin(z)))
    fn = lambda a, b, c: b * a + jnp.sin(c) * a  # noqa: E731
    bindings = matches(pattern, fn, X, X, X)
    assert bindings["x"].index == 0 and bindings["y"].index == 1
    either = op.mul(op.sin(x) | op.sin(op.cos(x)), x)
    assert matches(either, lambda a: jnp.sin(jnp.cos(a)) * a) is not None
    chain = op.add(op.add(op.add(x, y), op.exp(z)), op.log(z))
    assert matches(chain, lambda a, b: jnp.log(b) + (jnp.exp(b) + (a + a)), X, X) is not None


def test_every_way_to_match_is_given_once():
    graph = graph_of(lambda a, b: a + b, X, X)
    ways = list(op.add(x, y).matches(graph.outputs[0], {}, Attempt(), 0))
    assert [(w["x"].index, w["y"].index) for w in ways] == [(0, 1), (1, 0)]
    graph = graph_of(lambda a: a + a)
    assert len(list(op.add(x, y).matches(graph.outputs[0], {}, Attempt(), 0))) == 1


def test_choices():
    pattern = op.sin(x) | op.cos(x) | op.tan(op.exp(x))
    assert pattern.names == ("sin", "cos", "tan")
    for fn in (jnp.sin, jnp.cos, lambda a: jnp.tan(jnp.exp(a))):
        assert matches(pattern, fn) is not None
    assert matches(pattern, jnp.tan) is None
    with pytest.raises(TypeError, match="cannot be the root of a rule"):
        _ = Either((op.sin(x), x)).names


def test_operations_with_effects_do_not_match():
    def fn(a):
        return jax.experimental.io_callback(lambda v: v, jax.ShapeDtypeStruct(a.shape, a.dtype), a)

    assert matches(op.io_callback(), fn) is None
    pure = jax.make_jaxpr(lambda a: jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct(a.shape, a.dtype), a))(X)
    assert len(find(Graph(pure), op.pure_callback())) == 1


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("value", [0.5, 0.1, 0.044715, 1 / 3])
def test_numbers_are_compared_in_the_dtype_of_the_constant(dtype, value):
    array = jnp.ones(3, dtype)
    constant = np.asarray(value).astype(dtype)[()]
    assert matches(op.mul(x, value), lambda a: lax.mul(a, lax.full_like(a, constant)), array) is not None
    assert matches(op.mul(x, value * 1.5), lambda a: lax.mul(a, lax.full_like(a, constant)), array) is None


def test_numbers_of_integers_are_whole():
    n = np.asarray([1, 2], np.int32)
    assert matches(op.mul(x, 2), lambda a: a * 2, n) is not None
    assert matches(op.mul(x, 2.0), lambda a: a * 2, n) is not None
    assert matches(op.mul(x, 2.5), lambda a: a * 2, n) is None
    assert matches(op.mul(x, -1), lambda a: a * 255, n.astype(np.uint8)) is None
    assert matches(op.mul(x, 255), lambda a: a * 255, n.astype(np.uint8)) is not None


def test_numbers_beyond_the_range_of_the_dtype():
    half = X.astype(np.float16)
    assert matches(op.min(x, 1e10), lambda a: jnp.minimum(a, np.float16(np.inf)), half) is None
    assert matches(op.min(x, np.inf), lambda a: jnp.minimum(a, np.float16(np.inf)), half) is not None


def test_the_sign_of_zero_counts():
    assert matches(op.add(x, 0.0), lambda a: a + 0.0) is not None
    assert matches(op.add(x, 0.0), lambda a: a + -0.0) is None
    assert matches(op.add(x, -0.0), lambda a: a + -0.0) is not None
    assert matches(op.add(x, -0.0), lambda a: a + 0.0) is None
    assert matches(op.add(x, 0), lambda a: a + 0, np.asarray([1], np.int32)) is not None


def test_nan_matches_nothing():
    assert matches(op.mul(x, float("nan")), lambda a: a * float("nan")) is None


def test_tolerance():
    root = np.float32(np.sqrt(2.0)) * np.float32(1 + 3e-7)
    assert matches(op.mul(x, float(np.sqrt(2.0))), lambda a: a * root) is None
    assert matches(op.mul(x, number(float(np.sqrt(2.0)), tolerance=8)), lambda a: a * root) is not None
    assert matches(op.mul(x, number(1.5, tolerance=8)), lambda a: a * root) is None
    assert matches(op.mul(x, number(2, tolerance=8)), lambda a: a * 3, np.asarray([1], np.int32)) is None


def test_complex_numbers():
    array = X.astype(np.complex64)
    assert matches(op.mul(x, 2j), lambda a: a * 2j, array) is not None
    assert matches(op.mul(x, 2j), lambda a: a * 2, array) is None
    assert matches(op.mul(x, 2), lambda a: a * 2, array) is not None


def broadcast_number(a):
    return a * jnp.broadcast_to(jnp.float32(2), a.shape)


def full_array(a):
    return a * jnp.full(a.shape, 2.0)


def reshaped_number(a):
    return a * jnp.broadcast_to(jnp.reshape(jnp.asarray([[2.0]]), (1,)), a.shape)


def converted_number(a):
    return a * lax.convert_element_type(jnp.float32(2), np.float32)


def small_array(a):
    return a * np.asarray([2.0], np.float32)


@pytest.mark.parametrize("fn", [broadcast_number, full_array, reshaped_number, converted_number, small_array])
def test_numbers_behind_broadcasts(fn):
    assert matches(op.mul(x, 2.0), fn) is not None
    assert matches(op.mul(x, 3.0), fn) is None
    bound = matches(op.mul(x, scalar("c")), fn)["c"]
    assert bound.shape == () and bound.numpy() == 2 and bound.dtype == np.float32


def test_what_is_no_number():
    table = np.asarray([2.0, 2.0, 2.0], np.float32)
    assert reason(op.mul(x, 2.0), lambda a: a * table) == "expected the number 2 and found a constant float32[3]"
    assert (
        reason(op.mul(x, scalar("c")), lambda a: a * table)
        == "c should be a scalar constant and is a constant float32[3]"
    )
    assert "found sin float32[3]" in reason(op.sub(x, 2.0), lambda a: a - jnp.sin(a))
    assert "found an input float32[3]" in reason(op.sub(x, 2.0), lambda a: a - a)
    key = jax.random.key(0)
    graph = graph_of(lambda k: (k, key), key)
    assert scalar_of(graph.outputs[1]) is None and not list(Number(0).matches(graph.outputs[1], {}, Attempt(), 0))
    assert not list(scalar("c").matches(graph.outputs[1], {}, Attempt(), 0))


def test_constants():
    table = np.asarray([1.0, 2.0, 3.0], np.float32)
    bindings = matches(op.mul(x, const("w")), lambda a: a * table)
    assert np.shares_memory(bindings["w"].numpy(), table)
    assert np.shares_memory(matches(op.mul(const("w"), x), lambda a: a * table)["w"].numpy(), table)
    assert reason(op.sub(x, const("w")), lambda a: a - a) == "w should be a constant and is an input float32[3]"


def test_equal_constants():
    table = np.asarray([1.0, 2.0], np.float32)
    graph = graph_of(
        lambda a: (
            table,
            np.asarray(table),
            table.copy(),
            np.float32(1),
            np.float32(1),
            np.float32(-0.0),
            np.float32(0),
        )
    )
    one, again, copy, a, b, negative, positive = graph.outputs
    assert same_value(one, again) and not same_value(one, copy)
    assert same_value(a, b) and not same_value(negative, positive) and not same_value(a, one)


# -- what is looked through --------------------------------------------------------------------------------------------


def test_conversions_copies_and_reshapes_that_change_nothing():
    def fn(a, weak):
        b = lax.reshape_p.bind(jnp.sin(a), new_sizes=(3,), dimensions=None, sharding=None)
        return jnp.copy(b) * lax.convert_element_type(lax.exp(weak), np.float32)

    graph = graph_of(fn, X, 2.0)
    assert {"reshape", "copy", "convert_element_type"} <= {n.name for n in graph.nodes()}
    assert next(op.mul(op.sin(x), y).matches(graph.outputs[0], {}, Attempt(), 0), None) is not None
    copied, converted = graph.outputs[0].producer.inputs
    assert through_no_ops(copied).producer.name == "sin"
    assert through_broadcasts(copied).producer.name == "sin"
    assert through_broadcasts(converted).producer.name == "exp"


@pytest.mark.parametrize(
    "between",
    [
        lambda a: a.astype(np.float16),
        lambda a: a.reshape(3, 1),
        lambda a: jnp.broadcast_to(a, (2, 3)),
        lambda a: a[::-1],
    ],
)
def test_what_changes_something_is_not_looked_through(between):
    pattern = op.exp(op.sin(x))
    assert matches(pattern, lambda a: jnp.exp(between(jnp.sin(a)))) is None
    assert matches(pattern, lambda a: jnp.exp(jnp.sin(a))) is not None


def test_a_pattern_may_ask_for_what_is_looked_through():
    assert matches(op.exp(op.reshape(x)), lambda a: jnp.exp(a.reshape(3, 1))) is not None
    same = lambda a: jnp.exp(lax.reshape_p.bind(a, new_sizes=(3,), dimensions=None, sharding=None))  # noqa: E731
    assert matches(op.exp(op.reshape(x)), same) is not None


# -- near misses -------------------------------------------------------------------------------------------------------


def test_the_reason_of_the_furthest_attempt_is_kept():
    gelu = op.mul(op.mul(x, 0.5), op.erf(x) + 1.0)
    assert (
        reason(gelu, lambda a: (a * 0.5) * (lax.erf(a) + 2.0)) == "expected the number 1 and found a constant float32[]"
    )
    assert reason(gelu, lambda a: (a * 0.5) * (jnp.tanh(a) + 1.0)) == "expected erf and found tanh float32[3]"
    assert "expected mul and found add" in reason(gelu, lambda a: a + a)


def test_descriptions():
    graph = graph_of(lambda a: (jnp.sin(a), a, 1.0))
    assert [describe(v) for v in graph.outputs] == ["sin float32[3]", "an input float32[3]", "a constant float32[]"]


# -- the quick look ----------------------------------------------------------------------------------------------------

PATTERNS = {
    "add zero": x + 0.0,
    "mul": x * y,
    "scalar": op.mul(x, scalar("c")),
    "nested": op.mul(op.add(x, y), z) | op.sub(op.mul(x, 2.0), y),
    "chain": op.neg(op.neg(x)),
    "constant": op.add(x, const("w")),
    "convert": op.convert_element_type(op.convert_element_type(x)),
    "select": op.select_n(x, y, y),
    "reshape": op.reshape(op.reshape(x)),
    "max": op.max(op.min(x, scalar("high")), scalar("low")),
}


@settings(max_examples=examples(60))
@given(programs())
def test_the_quick_look_never_misses_a_match(drawn):
    graph = Graph(drawn.jaxpr())
    for region in graph.walk():
        for node in region.nodes():
            for name, pattern in PATTERNS.items():
                if node.name not in pattern.names:
                    continue
                found = next(pattern.matches_node(node, {}, Attempt(), 0), None)
                assert found is None or pattern.may_match(node), name


def test_conditions_of_a_choice_see_only_their_own_operations():
    pattern = op.tanh(x) | op.integer_pow(x, where=lambda node: node.params["y"] == 3)
    graph = Graph(jax.make_jaxpr(lambda x: (jnp.tanh(x), x**3, x**4))(1.0))
    assert [pattern.may_match(node) for node in graph.nodes()] == [True, True, False]
