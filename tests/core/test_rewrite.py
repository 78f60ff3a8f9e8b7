"""Rules and the driver: replacements, checks with reasons, near misses, termination, failures."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import lax
from jax.extend import core as jex_core
from programs import assert_identical, examples, programs
from xlapass.core.errors import PassError
from xlapass.core.graph import Graph
from xlapass.core.instruments.numerics import UNFUSED
from xlapass.core.instruments.structure import check_closed
from xlapass.core.patterns import op, scalar, var
from xlapass.core.rewrite import Build, Match, RewriteLog, Rule, RuleIndex, find, rewrite
from xlapass.core.text import canonical_text, program_text

X = np.asarray([1.0, -2.0, 3.0], np.float32)
x, y = var("x"), var("y")

double_negation = Rule("double-negation", op.neg(op.neg(x)), x)
scale_twice = Rule("scale-twice", op.mul(op.mul(x, scalar("a")), scalar("b")), lambda x, a, b: x * (a * b))


def apply(rules, fn, *args, explain=(), everywhere=False):
    """The graph of ``fn`` after the rules, whether it changed, and the log."""
    graph = fn if isinstance(fn, Graph) else Graph(jax.make_jaxpr(fn)(*(args or (X,))))
    log = RewriteLog(explain=frozenset(explain))
    index = RuleIndex(rules)
    regions = graph.walk() if everywhere else [graph]
    changed = any([rewrite(region, index, log) for region in regions])
    check_closed(graph.to_closed())
    return graph, changed, log


def assert_becomes(rules, fn, expect, *args, **keywords):
    graph, changed, log = apply(rules, fn, *args, **keywords)
    assert changed and graph.edited
    assert program_text(graph.to_closed()) == canonical_text(expect)
    return log


def assert_stays(rules, fn, *args, **keywords):
    graph, changed, log = apply(rules, fn, *args, **keywords)
    assert not changed and not graph.edited
    return log


# -- replacements ------------------------------------------------------------------------------------------------------


def test_a_variable_in_place_of_the_root():
    log = assert_becomes(
        [double_negation],
        lambda a: jnp.exp(lax.neg(lax.neg(a))),
        "program(a:f32[3]):\n b:f32[3] = exp a\n return b",
    )
    statistics = log.rules["double-negation"]
    assert (statistics.hits, log.hits) == (1, 1) and statistics.attempts >= 2 and statistics.seconds > 0


def test_plain_jax_in_place_of_the_root():
    def shifted_softplus(x):
        return jnp.logaddexp(x, 0.0) - 1

    rule = Rule("tanh", op.tanh(x), shifted_softplus)
    graph, _, _ = apply([rule], lambda a: jnp.tanh(a) * 2)
    assert {graph.made_by.get(n.outputs[0].var) for n in graph.nodes()[:-1]} == {"tanh"}
    result = jax.jit(jex_core.jaxpr_as_fun(graph.to_closed()))(X)[0]
    np.testing.assert_allclose(result, shifted_softplus(X) * 2, rtol=1e-6)


def test_a_replacement_may_ask_for_the_match():
    def halves(x, match):
        axis = match["sum"].params["axes"][0]
        assert isinstance(match, Match) and match.rule == "sum-in-halves"
        middle = x.shape[axis] // 2
        return jnp.max(lax.slice_in_dim(x, 0, middle, axis=axis)) + match.numpy("c")

    rule = Rule(
        "sum-in-halves", op.add(op.reduce_sum(x, name="sum"), scalar("c")), lambda x, c, match: halves(x, match)
    )
    assert_becomes(
        [rule],
        lambda a: jnp.sum(a) + 2.5,
        """
        program(a:f32[3]):
          b:f32[1] = slice[limit_indices=(1) start_indices=(0) strides=(1)] a
          c:f32[] = reduce_max[axes=(0)] b
          d:f32[] = add c 2.5:f32[]
          return d
        """,
    )


def test_several_results():
    rule = Rule(
        "top-as-sort", op.top_k(x, where=lambda n: n.params["k"] == 1), lambda x: (x[:1] * 2, jnp.zeros(1, int))
    )
    graph, changed, _ = apply([rule], lambda a: lax.top_k(a, 1))
    assert changed
    values, indices = jax.jit(jex_core.jaxpr_as_fun(graph.to_closed()))(X)
    assert values == 2 and indices == 0


def test_replacements_that_build_equations_themselves():
    def build(match):
        tripled = match.trace(lambda v, n: v * n, match["x"], static=(3.0,))
        return match.like(match.root, tripled)

    rule = Rule("cumsum", op.cumsum(x, where=lambda n: n.inputs[0].producer is None), Build(build))
    assert_becomes(
        [rule],
        jnp.cumsum,
        """
        program(a:f32[3]):
          b:f32[3] = jit[name=cumsum] a
            jaxpr(c:f32[3]):
              d:f32[3] = mul c 3.0:f32[]
              e:f32[3] = cumsum[axis=0] d
              return e
          return b
        """,
        everywhere=True,
    )


def test_new_nodes_take_the_place_of_the_root_and_its_scope():
    def fn(a):
        with jax.named_scope("layer"):
            return jnp.tanh(a)

    graph, _, _ = apply([Rule("tanh", op.tanh(x), lambda x: x / (1 + abs(x)))], fn)
    assert {str(n.source_info.name_stack) for n in graph.nodes()} == {"layer"}
    assert all(n.where.endswith("fn)") for n in graph.nodes())


def test_operands_that_nothing_else_needs_go_and_others_stay():
    assert_becomes(
        [double_negation],
        lambda a: (lambda b: (lax.neg(b), b))(lax.neg(a)),
        "program(a:f32[3]):\n b:f32[3] = neg a\n return a, b",
    )


def test_weak_types_stay():
    rule = Rule("twice", op.add(x, x), lambda x: (x * 2).astype(np.int32))
    graph, changed, _ = apply([rule], lambda n: n + n, 3)
    assert changed and graph.to_closed().out_avals[0].weak_type


# -- scalars, order, repetition ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn",
    [
        lambda a: a * lax.logistic(a),
        lambda a: lax.logistic(a) * a,
        lambda a: (lambda b: lax.logistic(b) * b)(jnp.copy(a)),
    ],
)
def test_one_spelling_finds_the_usual_ones(fn):
    silu = Rule("silu", op.mul(x, op.logistic(x)), lambda x: jnp.sin(x))
    _, changed, _ = apply([silu], fn)
    assert changed


def test_scalars_of_any_shape_keep_the_shape_of_the_result():
    one_by_one = np.asarray([[2.0]], np.float32)

    def fn(a):
        return a * jnp.squeeze(one_by_one) * jnp.broadcast_to(jnp.reshape(one_by_one, (1,)), a.shape)

    graph, changed, _ = apply([scale_twice], fn)
    assert changed
    assert_identical(jax.jit(jex_core.jaxpr_as_fun(graph.to_closed()))(X), [jnp.asarray(X * 4)])


def test_a_repeated_variable_declines_two_values():
    same = Rule("same", op.sub(x, x), lambda x: x * 0)
    assert_stays([same], lambda a, b: a - b, X, X)
    assert apply([same], lambda a: a - a)[1]


def test_the_first_of_several_rules_wins():
    first, second = Rule("first", op.sin(x), lambda x: jnp.cos(x)), Rule("second", op.sin(x), lambda x: jnp.tan(x))
    log = assert_becomes([first, second], jnp.sin, "program(a:f32[3]):\n b:f32[3] = cos a\n return b")
    assert {name: s.hits for name, s in log.rules.items()} == {"first": 1}
    log = assert_becomes([second, first], jnp.sin, "program(a:f32[3]):\n b:f32[3] = tan a\n return b")


def test_a_root_may_be_a_choice():
    rule = Rule("waves", op.sin(x) | op.cos(x), lambda x: x + 1)
    assert apply([rule], jnp.sin)[1] and apply([rule], jnp.cos)[1] and not apply([rule], jnp.tan)[1]


# -- checks ------------------------------------------------------------------------------------------------------------


def only_vectors(match):
    return None if len(match["x"].shape) == 1 else f"{match['x'].aval.str_short()} is no vector"


guarded = Rule("guarded", op.sin(x), lambda x: jnp.cos(x), check=only_vectors)


def test_a_check_declines_with_a_reason():
    log = assert_stays([guarded], jnp.sin, X[:, None])
    assert dict(log.rules["guarded"].declined) == {"float32[3,1] is no vector": 1}
    assert log.near_misses == []
    assert apply([guarded], jnp.sin)[1]


def test_another_way_to_match_is_tried_when_the_check_declines():
    def sine_first(match):
        producer = match["x"].producer
        return None if producer is not None and producer.name == "sin" else "the first operand is no sine"

    rule = Rule("sum", op.add(x, y), lambda x, y: lax.sub(x, y), check=sine_first)
    for fn in (lambda a: jnp.sin(a) + a, lambda a: a + jnp.sin(a)):
        assert_becomes([rule], fn, "program(a:f32[3]):\n b:f32[3] = sin a\n c:f32[3] = sub b a\n return c")


def test_near_misses_are_kept_when_asked_for():
    rules = [guarded, Rule("deep", op.mul(op.exp(op.sin(x)), 2.0), lambda x: x)]

    def fn(a):
        return jnp.exp(jnp.sin(a)) * 3.0

    log = assert_stays(rules, fn, X[:, None], explain=["guarded", "deep"])
    by_rule = {miss.rule: miss for miss in log.near_misses}
    assert by_rule["guarded"].matched and by_rule["guarded"].reason == "float32[3,1] is no vector"
    assert by_rule["guarded"].operation == "sin" and by_rule["guarded"].where.endswith("fn)")
    assert not by_rule["deep"].matched
    assert by_rule["deep"].reason == "expected the number 2 and found a constant float32[]"
    assert by_rule["deep"].operation == "mul" and by_rule["deep"].depth > 0
    assert assert_stays(rules, fn, X[:, None], explain=["deep"]).near_misses == [by_rule["deep"]]


# -- until nothing applies ---------------------------------------------------------------------------------------------


def test_rewrites_enable_each_other():
    def fn(a):
        for _ in range(8):
            a = lax.neg(lax.neg(a))
        return a * 2 * 4

    graph, changed, log = apply([double_negation, scale_twice], fn)
    assert changed and log.rules["double-negation"].hits == 8 and log.rules["scale-twice"].hits == 1
    assert_identical(jax.jit(jex_core.jaxpr_as_fun(graph.to_closed()))(X), [jnp.asarray(X * 8)])
    assert "neg" not in {n.name for n in graph.nodes()}


def test_a_pattern_sees_what_a_rewrite_changed_far_below_its_root():
    """The root of the last rule is not a direct user of what the rewrites before it made."""
    rules = [
        Rule("tan-to-neg", op.tan(x), lambda x: -x),
        Rule("neg-to-cos", op.neg(x), lambda x: jnp.cos(x)),
        Rule("far", op.exp(op.abs(op.sign(op.cos(x)))), lambda x: x * 5),
    ]
    assert_becomes(
        rules,
        lambda a: jnp.exp(jnp.abs(jnp.sign(jnp.tan(a)))),
        "program(a:f32[3]):\n b:f32[3] = mul a 5.0:f32[]\n return b",
    )


def test_what_a_pattern_looks_through_adds_no_distance():
    rules = [
        Rule("tan-to-neg", op.tan(x), lambda x: -x),
        Rule("neg-to-cos", op.neg(x), lambda x: jnp.cos(x)),
        Rule("far", op.exp(op.cos(x)), lambda x: x * 5),
    ]

    def fn(a):
        b = jnp.copy(jnp.copy(jnp.copy(jnp.tan(a))))
        return jnp.exp(lax.reshape_p.bind(b, new_sizes=(3,), dimensions=None, sharding=None))

    assert_becomes(rules, fn, "program(a:f32[3]):\n b:f32[3] = mul a 5.0:f32[]\n return b")


def test_running_again_changes_nothing():
    graph, changed, _ = apply([double_negation, scale_twice], lambda a: lax.neg(lax.neg(a)) * 2 * 3)
    assert changed
    again, changed, _ = apply([double_negation, scale_twice], Graph(graph.to_closed()))
    assert not changed and not again.edited


def test_rules_that_undo_each_other_are_an_error():
    there = Rule("there", op.sin(x), lambda x: jnp.cos(x))
    back = Rule("back", op.cos(x), lambda x: jnp.sin(x))
    with pytest.raises(PassError, match=r"without end; the busiest is '(there|back)'"):
        apply([there, back], jnp.sin)


def test_a_rule_that_grows_without_end_is_an_error():
    with pytest.raises(PassError, match="without end; the busiest is 'grow'"):
        apply([Rule("grow", op.sin(x), lambda x: jnp.sin(x) + 1)], jnp.sin)


# -- failures ----------------------------------------------------------------------------------------------------------


def raises(x):
    raise KeyError("no such table")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule("bad", op.sin(x), raises), r"KeyError: 'no such table'"),
        (Rule("bad", op.sin(x), lambda x: x[:1]), r"a replacement has type float32\[1\] where float32\[3\] was"),
        (Rule("bad", op.sin(x), lambda x: x.astype(np.float16)), r"float16\[3\] where float32\[3\] was"),
        (Rule("bad", op.sin(x), lambda x: (x, x)), r"the replacement returned 2 values for 1 results"),
        (Rule("bad", op.sin(x), lambda x: ()), r"the replacement returned 0 values for 1 results"),
        (Rule("bad", op.sin(x), lambda x: "text"), r"TypeError"),
        (Rule("bad", op.sin(x), lambda w: w), r"KeyError: .*the pattern binds 'x', and no 'w'"),
        (Rule("bad", op.sin(x), var("w")), r"KeyError: .*the pattern binds 'x', and no 'w'"),
        (
            Rule("bad", op.sin(x), lambda x: x, check=lambda match: match["w"]),
            r"KeyError: .*the pattern binds 'x', and no 'w'",
        ),
        (Rule("bad", op.sin(x, where=lambda n: n.params["k"]), lambda x: x), r"KeyError: 'k'"),
        (Rule("bad", op.sin(x), Build(lambda match: None)), r"NoneType"),
        (Rule("bad", op.sin(x), lambda x: x, check=lambda match: True), r"the check answered True"),
    ],
    ids=lambda p: "" if isinstance(p, Rule) else p,
)
def test_a_rule_that_fails_is_named_with_its_place_and_the_users(rule, message):
    def fn(a):
        return jnp.sin(a)

    with pytest.raises(PassError, match=message) as failure:
        apply([rule], fn)
    assert "rule 'bad'" in failure.value.message and "test_rewrite.py:" in failure.value.message
    assert "on sin" in failure.value.message
    assert failure.value.where.endswith("fn)")


def test_rules_know_where_they_are_defined():
    first = Rule("one", op.sin(x), x)
    second = Rule("two", op.sin(x), x)
    assert first.where.startswith(f"{__file__}:")
    assert int(second.where.split(":")[-1]) == int(first.where.split(":")[-1]) + 1
    assert dataclasses.replace(first, name="three").where == first.where


def test_the_index_finds_rules_by_root():
    index = RuleIndex([double_negation, scale_twice, Rule("waves", op.sin(x) | op.cos(x), x)])
    graph = Graph(jax.make_jaxpr(lambda a: jnp.cos(a) * 2)(X))
    cos, mul = graph.nodes()
    assert [r.name for r in index.at(cos)] == ["waves"] and [r.name for r in index.at(mul)] == ["scale-twice"]
    assert list(index.at(graph.terminator)) == []


def test_finding_changes_nothing():
    graph = Graph(jax.make_jaxpr(lambda a: lax.neg(lax.neg(a)))(X))
    assert len(find(graph, double_negation.pattern)) == 1 and not graph.edited


# -- regions and drawn programs ----------------------------------------------------------------------------------------


def test_rules_apply_in_bodies():
    def fn(a):
        return lax.cond(
            a[0] > 0, lambda v: lax.scan(lambda c, _: (lax.neg(lax.neg(c)), None), v, length=2)[0], jnp.sin, a
        )

    graph, changed, log = apply([double_negation], fn, everywhere=True)
    assert changed and log.hits == 1
    assert "neg" not in {n.name for region in graph.walk() for n in region.nodes()}


EXACT_RULES = [
    double_negation,
    Rule("not-not", op.not_(op.not_(x)), x),
    Rule("max-same", op.max(x, x), x),
    Rule("times-one", op.mul(x, 1), x, check=lambda m: None if m["x"].aval == m.root.outputs[0].aval else "it spreads"),
    Rule("select-same", op.select_n(x, y, y), y),
    Rule("sign-of-sign", op.sign(op.sign(x)), lambda x: lax.sign(x)),
]  # fmt: skip


@settings(max_examples=examples(20))
@given(programs())
def test_exact_rules_on_drawn_programs(drawn):
    closed = drawn.jaxpr()
    graph, changed, _ = apply(EXACT_RULES, Graph(closed), everywhere=True)
    edited = graph.to_closed()
    assert edited.out_avals == closed.out_avals
    assert changed == (edited is not closed)
    if changed:
        results, expected = (
            jax.jit(jex_core.jaxpr_as_fun(c)).lower(*drawn.args).compile(dict(UNFUSED))(*drawn.args)
            for c in (edited, closed)
        )
        assert_identical(results, expected)
        assert not apply(EXACT_RULES, Graph(edited), everywhere=True)[1]
