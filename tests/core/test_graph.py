"""Editing: what `Graph` promises about splices, replacements, constants, regions and use-lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import lax
from jax.extend import core as jex_core
from programs import assert_identical, examples, programs
from xlapass.core.errors import PassError, UnsupportedError
from xlapass.core.graph import Graph
from xlapass.core.instruments.numerics import UNFUSED
from xlapass.core.instruments.structure import check_closed
from xlapass.core.text import canonical_text, program_text

X = np.asarray([1.0, -2.0, 3.0], np.float32)
TABLE = jnp.asarray([10.0, 20.0, 30.0])


def graph_of(fn, *args):
    return Graph(jax.make_jaxpr(fn)(*args))


def node_named(graph, name):
    (node,) = [n for region in graph.walk() for n in region.nodes() if n.name == name]
    return node


def assert_text(graph, expect):
    assert_consistent(graph)
    closed = graph.to_closed()
    check_closed(closed)
    assert program_text(closed) == canonical_text(expect)


def assert_consistent(graph):
    """Links, use-lists and owners agree everywhere."""
    for region in graph.walk():
        nodes = region.nodes()
        assert [n._next for n in nodes] == [*nodes[1:], None][: len(nodes)]
        assert [n._prev for n in nodes] == [None, *nodes[:-1]][: len(nodes)]
        for node in [*nodes, region.terminator]:
            assert node.graph is region
            for index, value in enumerate(node.inputs):
                assert (node, index) in value.uses
            for index, value in enumerate(node.outputs):
                assert value.producer is node and value.index == index
                for user, position in value.uses:
                    assert user.alive and user.inputs[position] is value


def run(graph, *args):
    return jax.jit(jex_core.jaxpr_as_fun(graph.to_closed()))(*args)


def replace_by(graph, node, fn, *values, rule=None):
    for old, new in zip(node.outputs, graph.splice(fn, *values, before=node, rule=rule), strict=True):
        graph.replace(old, new)
    graph.erase(node)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_values_and_nodes_say_what_they_are():
    def fn(x, n):
        y = jnp.sin(x) + TABLE
        return y * y * 2.0, n

    graph = graph_of(fn, X, 3)
    sin, add, square, double = graph.nodes()
    assert [n.name for n in graph.nodes()] == ["sin", "add", "mul", "mul"]
    assert sin.inputs == [graph.inputs[0]] and graph.inputs[0].producer is None
    assert add.inputs[1].is_const and add.inputs[1].const is TABLE and not add.inputs[1].is_literal
    assert add.outputs[0].users == [square]
    assert list(add.outputs[0].uses) == [(square, 0), (square, 1)]
    assert double.inputs[1].is_literal and double.inputs[1].numpy() == np.float32(2)
    assert graph.outputs == [double.outputs[0], graph.inputs[1]]
    assert double.outputs[0].users == [graph.terminator] and graph.terminator.name == "return"
    assert add.outputs[0].shape == (3,) and add.outputs[0].dtype == np.float32
    assert "test_graph.py:" in sin.where and sin.where.endswith("fn)")
    assert repr(sin.outputs[0]) == "Value(sin:float32[3])"
    assert len(graph.nodes()) == 4
    assert graph.constants == [add.inputs[1]]
    with pytest.raises(ValueError, match="not a constant"):
        sin.outputs[0].numpy()
    assert_consistent(graph)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int4", "float8_e4m3fn", "bool", "uint32", "complex64"])
def test_constants_of_every_dtype_as_numpy(dtype):
    array = jnp.asarray([1, 0, 1]).astype(dtype)
    scalar = np.asarray(1).astype(dtype)
    graph = graph_of(lambda x: (x * array, x * scalar, np.asarray(array)), array)
    constants = [v for n in [*graph.nodes(), graph.terminator] for v in n.inputs if v.is_const]
    assert len(constants) == 3
    for value in constants:
        assert value.numpy().dtype == jnp.dtype(dtype)
        assert value.numpy().astype(np.complex64).ravel()[0] == 1


def test_walk_visits_inner_regions_first_and_shared_ones_once():
    body = jax.jit(jnp.sin)

    def fn(x):
        return lax.cond(x[0] > 0, lambda v: lax.scan(lambda c, _: (body(c), None), body(v), length=2)[0], jnp.cos, x)

    graph = graph_of(fn, X)
    seen = [[n.name for n in region.nodes()] for region in graph.walk()]
    assert seen == [
        ["cos"],
        ["sin"],
        ["jit"],
        ["jit", "scan"],
        ["slice", "squeeze", "gt", "convert_element_type", "cond"],
    ]


# -- splicing ----------------------------------------------------------------------------------------------------------


def test_a_splice_takes_over_place_and_names():
    def fn(x):
        with jax.named_scope("block"):
            y = jnp.tanh(x)
        return y + 1

    graph = graph_of(fn, X)
    tanh = graph.nodes()[0]
    where, info = tanh.where, tanh.source_info
    replace_by(graph, tanh, lambda v: jnp.sinh(v) / jnp.cosh(v), tanh.inputs[0], rule="tanh-as-quotient")
    assert_text(
        graph,
        """
        program(a:f32[3]):
          b:f32[3] = sinh a
          c:f32[3] = cosh a
          d:f32[3] = div b c
          e:f32[3] = add d 1.0:f32[]
          return e
        """,
    )
    new = graph.nodes()[:3]
    assert [n.where for n in new] == [where] * 3 and all(n.source_info is info for n in new)
    assert {graph.made_by[n.outputs[0].var] for n in new} == {"tanh-as-quotient"}
    assert graph.nodes()[3].outputs[0].var not in graph.made_by
    assert_identical(run(graph, X), [jnp.sinh(X) / jnp.cosh(X) + 1])


def test_provenance_goes_on_to_the_next_graph():
    graph = graph_of(jnp.tanh, X)
    replace_by(graph, graph.nodes()[0], jnp.sin, graph.inputs[0], rule="first")
    again = Graph(graph.to_closed(), provenance=graph.made_by)
    replace_by(again, again.nodes()[0], lambda v: jnp.sin(v) * 2, again.inputs[0], rule="second")
    names = [again.made_by[n.outputs[0].var] for n in again.nodes()]
    assert names == ["second", "second"]


def test_a_splice_may_return_its_operands_constants_and_trees():
    graph = graph_of(jnp.sin, X)
    end = graph.terminator
    same, const, literal, computed = graph.splice(
        lambda v: {"a": v, "b": (TABLE, 2.0), "c": -v}, graph.inputs[0], before=end
    )
    assert same is graph.inputs[0]
    assert const.const is TABLE and literal.is_literal and literal.aval.weak_type
    assert computed.producer.name == "neg"
    assert_consistent(graph)


def test_a_splice_with_static_arguments_is_traced_once():
    traced = []

    def scaled(v, factor):
        traced.append(factor)
        return v * factor

    graph = graph_of(lambda x: jnp.sin(x) + jnp.cos(x), X)
    for factor in (2.0, 2.0, 3.0):
        graph.splice(scaled, graph.inputs[0], before=graph.terminator, static=(factor,))
    assert traced == [2.0, 3.0]
    assert [n.inputs[1].numpy() for n in graph.nodes()[3:]] == [2.0, 2.0, 3.0]


def test_a_splice_of_control_flow_random_numbers_and_effects():
    graph = graph_of(jnp.sin, X)

    def body(v):
        jax.debug.callback(lambda _: None, v)
        noise = jax.random.uniform(jax.random.key(0), v.shape)
        return lax.fori_loop(0, 2, lambda i, c: c * TABLE, v) + noise

    replace_by(graph, graph.nodes()[0], body, graph.inputs[0])
    closed = graph.to_closed()
    check_closed(closed)
    assert len(closed.effects) == 1
    assert_identical(run(graph, X), jax.tree_util.tree_leaves(jax.jit(body)(X)))


def test_a_splice_at_symbolic_sizes():
    (rows,) = jax.export.symbolic_shape("rows")
    graph = graph_of(lambda x: jnp.sin(x), jax.ShapeDtypeStruct((rows, 2), np.float32))
    replace_by(graph, graph.nodes()[0], lambda v: jnp.concatenate([v, v])[: v.shape[0]], graph.inputs[0])
    closed = graph.to_closed()
    check_closed(closed)
    assert closed.out_avals[0].shape == (rows, 2)


def test_what_a_splice_raises_passes_through():
    graph = graph_of(jnp.sin, X)
    with pytest.raises(ZeroDivisionError):
        graph.splice(lambda v: v * (1 // 0), graph.inputs[0], before=graph.terminator)
    assert not graph.edited


def test_emit_inserts_one_equation():
    graph = graph_of(lambda x: jnp.cumsum(x) * 2, X)
    cumsum, mul = graph.nodes()[0], graph.nodes()[-1]
    (again,) = graph.emit(cumsum.primitive, mul.inputs[:1], cumsum.params, before=mul, rule="twice")
    graph.set_operand(mul, 0, again)
    assert graph.made_by[again.var] == "twice"
    check_closed(graph.to_closed())
    assert_identical(run(graph, X), [jnp.cumsum(jnp.cumsum(X)) * 2])


# -- replacing and erasing ---------------------------------------------------------------------------------------------


def test_replacing_keeps_weak_types_as_they_were():
    graph = graph_of(lambda n: (n + 1) * 2, 3)
    add = graph.nodes()[0]
    assert add.outputs[0].aval.weak_type
    (strong,) = graph.splice(lambda n: n.astype(np.int32) + np.int32(1), add.inputs[0], before=add)
    assert not strong.aval.weak_type
    graph.replace(add.outputs[0], strong)
    graph.erase(add)
    closed = graph.to_closed()
    check_closed(closed)
    assert closed.out_avals[0].weak_type
    assert_identical(run(graph, 3), [jnp.asarray(8)])


def test_replacing_an_output_by_an_input_of_another_weak_type():
    graph = graph_of(lambda x, s: x * s, np.float32(2), 3.0)
    graph.replace(graph.nodes()[0].outputs[0], graph.inputs[1])
    graph.erase_dead(graph.nodes()[-1])
    closed = graph.to_closed()
    check_closed(closed)
    assert not closed.out_avals[0].weak_type


def test_replacing_by_a_literal_of_another_weak_type_needs_no_conversion():
    graph = graph_of(lambda x: x * 2.0, np.float32(2))
    (weak,) = graph.splice(lambda: 3.0, before=graph.terminator)
    assert weak.aval.weak_type
    graph.replace(graph.outputs[0], weak)
    assert_text(graph, "program(a:f32[]):\n _:f32[] = mul a 2.0:f32[]\n return 3.0:f32[]")
    assert not graph.to_closed().out_avals[0].weak_type


@pytest.mark.parametrize("other", [np.ones(4, np.float32), np.ones(3, np.int32), np.ones((3, 1), np.float32)])
def test_replacing_by_another_type_is_refused(other):
    graph = graph_of(lambda x, y: jnp.sin(x), X, other)
    with pytest.raises(PassError, match=r"a replacement has type .* where float32\[3\] was"):
        graph.replace(graph.nodes()[0].outputs[0], graph.inputs[1])
    assert not graph.edited


def test_replacing_every_use_outputs_included():
    graph = graph_of(lambda x: (lambda y: (y, y * y, y))(jnp.sin(x)), X)
    sin = graph.nodes()[0]
    graph.replace(sin.outputs[0], graph.inputs[0])
    assert not sin.outputs[0].uses
    assert graph.erase_dead(sin) == 1
    assert_text(graph, "program(a:f32[3]):\n b:f32[3] = mul a a\n return a, b, a")


def test_replacing_a_value_by_itself_changes_nothing():
    graph = graph_of(jnp.sin, X)
    graph.replace(graph.outputs[0], graph.outputs[0])
    assert not graph.edited and graph.outputs[0].uses


def test_a_used_node_cannot_be_erased():
    graph = graph_of(lambda x: jnp.cos(jnp.sin(x)), X)
    with pytest.raises(PassError, match="cannot erase sin: its result is still used") as failure:
        graph.erase(graph.nodes()[0])
    assert "test_graph.py" in failure.value.where


def test_erasing_what_nothing_needs_stops_at_effects_and_users():
    def fn(x):
        y = jnp.sin(x)
        jax.debug.callback(lambda _: None, y)
        z = jnp.cos(y) * jnp.exp(y)
        return y, z

    graph = graph_of(fn, X)
    graph.set_operand(graph.terminator, 1, graph.inputs[0])
    assert graph.erase_dead(node_named(graph, "mul")) == 3
    assert graph.erase_dead(node_named(graph, "debug_callback")) == 0
    assert [n.name for n in graph.nodes()] == ["sin", "debug_callback"]
    assert_consistent(graph)


def test_operands_and_parameters():
    graph = graph_of(lambda x, y: jnp.sum(x - x) + y[0], X, X)
    sub = node_named(graph, "sub")
    graph.set_operand(sub, 1, graph.inputs[1])
    assert graph.inputs[0].users == [sub] and (sub, 1) in graph.inputs[1].uses
    total = node_named(graph, "reduce_sum")
    old = total.params
    graph.set_params(total, axes=(0,), out_sharding=None)
    assert total.params is not old and total.params == old
    assert_identical(run(graph, X, X * 2), [jnp.sum(X - X * 2) + X[0] * 2])


def test_a_dropped_result_can_be_used_again():
    closed = jax.make_jaxpr(lambda x: jax.jit(lambda v: (jnp.sin(v), jnp.cos(v)))(x)[0])(X)
    eqn = closed.eqns[0]
    dropped = [eqn.outvars[0], jex_core.DropVar(eqn.outvars[1].aval)]
    jaxpr = closed.jaxpr.replace(eqns=[eqn.replace(outvars=dropped)])
    closed = jex_core.ClosedJaxpr(jaxpr, closed.consts)
    graph = Graph(closed)
    assert graph.to_closed() is closed
    graph.set_operand(graph.terminator, 0, graph.nodes()[0].outputs[1])
    check_closed(graph.to_closed())
    assert_identical(run(graph, X), [jax.jit(jnp.cos)(X)])


# -- constants ---------------------------------------------------------------------------------------------------------


def test_constants_are_held_by_reference_and_once():
    graph = graph_of(lambda x: x + TABLE, X)
    assert graph.constant(TABLE) is graph.nodes()[0].inputs[1]
    other = np.ones(3, np.float32)
    value = graph.constant(other)
    assert graph.constant(other) is value and value.const is other
    (total,) = graph.splice(lambda a, b: a * b, graph.outputs[0], value, before=graph.terminator)
    graph.set_operand(graph.terminator, 0, total)
    closed = graph.to_closed()
    assert [c is d for c, d in zip(closed.consts, [TABLE, other], strict=True)] == [True, True]


def test_scalars_become_literals():
    graph = graph_of(jnp.sin, X)
    value = graph.constant(np.float32(2), weak_type=True)
    assert value.is_literal and value.aval.weak_type and value.shape == ()
    assert graph.constant(jnp.asarray(2.0, jnp.bfloat16)).dtype == jnp.bfloat16


def test_one_array_with_two_weak_types():
    graph = graph_of(jnp.sin, X)
    strong, weak = graph.constant(TABLE), graph.constant(TABLE, weak_type=True)
    assert strong is not weak and strong.var is not weak.var


def test_constants_that_nothing_reads_are_dropped():
    graph = graph_of(lambda x: x + TABLE, X)
    graph.set_operand(graph.terminator, 0, graph.inputs[0])
    graph.erase_dead(graph.nodes()[0])
    assert graph.to_closed().consts == []
    graph.drop_unused_constants()
    assert graph.constants == []
    assert graph.constant(TABLE).const is TABLE


def in_jit(x):
    return jax.jit(jnp.sin)(x)


def in_scan(x):
    return lax.scan(lambda c, _: (jnp.sin(c), None), x, length=2)[0]


def in_while_condition(x):
    return lax.while_loop(lambda s: jnp.sum(jnp.sin(s[1])) + s[0] < 9.0, lambda s: (s[0] + 5, s[1]), (0.0, x))[1] * x


def in_while_body(x):
    return lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, jnp.sin(s[1])), (0, x))[1]


def in_cond(x):
    return lax.cond(x[0] > 0, jnp.sin, jnp.cos, x)


def in_remat(x):
    return jax.checkpoint(jnp.sin)(x)


def in_custom_jvp(x):
    f = jax.custom_jvp(jnp.sin)
    f.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))
    return f(x)


def in_custom_vjp(x):
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda v: (f(v), None), lambda _, ct: (ct,))
    return f(x)


def in_composite(x):
    return lax.composite(jnp.sin, "test.sine")(x)


BODIES = [
    in_jit,
    in_scan,
    in_while_condition,
    in_while_body,
    in_cond,
    in_remat,
    in_custom_jvp,
    in_custom_vjp,
    in_composite,
]


@pytest.mark.parametrize("fn", BODIES, ids=lambda f: f.__name__)
def test_arrays_and_scalars_spliced_into_a_body(fn):
    """A body may close over an array; it runs, also mapped and, where it can be, differentiated."""

    def other(v):
        return jnp.sin(v) * TABLE * 2 - np.asarray([1, 2, 3], np.float32)

    graph = graph_of(fn, X)
    sin = node_named(graph, "sin")
    region = sin.graph
    replace_by(region, sin, other, sin.inputs[0])
    closed = graph.to_closed()
    check_closed(closed)
    assert_consistent(graph)
    expected = jax.jit(fn_with(fn, other))
    function = jex_core.jaxpr_as_fun(closed)
    np.testing.assert_allclose(jax.jit(function)(X)[0], expected(X), rtol=1e-6)
    if fn is in_composite:  # JAX neither maps nor differentiates composites
        return
    batch = np.stack([X, X * 0.5])
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(batch)[0], [expected(r) for r in batch], rtol=1e-5)
    if fn not in (in_while_condition, in_while_body, in_custom_jvp, in_custom_vjp):
        gradient = jax.jit(jax.grad(lambda v: function(v)[0].sum()))(X)
        np.testing.assert_allclose(gradient, jax.grad(lambda v: fn_with(fn, other)(v).sum())(X), rtol=1e-5)


def fn_with(fn, other):
    """``fn`` with ``jnp.sin`` replaced by ``other``."""

    def call(x):
        with pytest.MonkeyPatch.context() as patch:
            original = jnp.sin
            patch.setattr(jnp, "sin", lambda v: other_with(original, other, v))
            return fn(x)

    return call


def other_with(original, other, v):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jnp, "sin", original)
        return other(v)


def test_a_random_key_as_a_constant():
    key = jax.random.key(5)
    graph = graph_of(jnp.sin, X)
    (bits,) = graph.splice(lambda v: v + jax.random.uniform(key, v.shape), graph.inputs[0], before=graph.terminator)
    graph.set_operand(graph.terminator, 0, bits)
    assert_identical(run(graph, X), [jax.jit(lambda v: v + jax.random.uniform(key, v.shape))(X)])


def test_a_random_key_cannot_be_a_constant_of_a_body_that_closes_over_nothing():
    key = jax.random.key(5)
    graph = graph_of(in_remat, X)
    sin = node_named(graph, "sin")
    with pytest.raises(UnsupportedError, match="a random key is none"):
        replace_by(sin.graph, sin, lambda v: v + jax.random.uniform(key, v.shape), sin.inputs[0])


# -- regions -----------------------------------------------------------------------------------------------------------


def test_editing_a_shared_region_changes_every_call():
    body = jax.jit(lambda v: jnp.sin(v) + 1)
    graph = graph_of(lambda x: body(body(x)), X)
    sin = node_named(graph, "sin")
    replace_by(sin.graph, sin, jnp.cos, sin.inputs[0])
    assert graph.edited
    closed = graph.to_closed()
    first, second = (eqn.params["jaxpr"] for eqn in closed.eqns)
    assert first is second
    assert_identical(run(graph, X), [jax.jit(lambda x: jnp.cos(jnp.cos(x) + 1) + 1)(X)])


def test_bodies_that_were_not_edited_stay_the_same_objects():
    def fn(x):
        return lax.cond(x[0] > 0, lambda v: jnp.sin(jnp.exp(v)), lambda v: jnp.cos(v), x)

    closed = jax.make_jaxpr(fn)(X)
    graph = Graph(closed)
    cos = node_named(graph, "cos")
    replace_by(cos.graph, cos, jnp.tanh, cos.inputs[0])
    before, after = closed.eqns[-1], graph.to_closed().eqns[-1]
    assert after.params["branches"][1] is before.params["branches"][1]
    assert after.params["branches"][0] is not before.params["branches"][0]
    assert all(a is b for a, b in zip(closed.eqns[:-1], graph.to_closed().eqns[:-1], strict=True))


def test_replacing_a_body_builds_its_region_anew():
    graph = graph_of(in_jit, X)
    (call,) = graph.nodes()
    assert call.regions["jaxpr", None].nodes()[0].name == "sin"
    graph.set_params(call, jaxpr=jax.make_jaxpr(jnp.cos)(X))
    assert call.regions["jaxpr", None].nodes()[0].name == "cos"
    assert_identical(run(graph, X), [jax.jit(jnp.cos)(X)])


def test_bodies_over_references_are_not_entered():
    def fn(x):
        ref = jax.new_ref(x)

        def step(i, _):
            ref[0] = ref[0] + 1.0

        lax.fori_loop(0, 3, step, None)
        return ref[...]

    graph = graph_of(fn, X)
    assert [r for r in graph.walk() if any("get" in n.name or "swap" in n.name for n in r.nodes())] == [graph]


def test_the_only_body_of_a_node():
    for fn in (in_jit, in_scan, in_remat, in_custom_jvp, in_composite):
        (node,) = [n for n in graph_of(fn, X).nodes() if n.regions]
        assert node.body.nodes()[-1].name in ("sin", "jit")
    with pytest.raises(ValueError, match="too many values"):
        _ = node_named(graph_of(in_cond, X), "cond").body


# -- inlining ----------------------------------------------------------------------------------------------------------


def test_inlining_keeps_names_locations_and_constants():
    def inner(v):
        with jax.named_scope("inner"):
            return jnp.sin(v) + TABLE, v, 3.0

    def fn(x):
        with jax.named_scope("outer"):
            a, b, c = jax.jit(inner)(x)
        return (a + b) * c

    graph = graph_of(fn, X)
    call = node_named(graph, "jit")
    made = graph.inline(call, call.regions["jaxpr", None])
    assert [n.name for n in made] == ["sin", "add"] and not call.alive
    assert made[0].where.endswith("inner)")
    assert str(made[0].source_info.name_stack) == "outer/inner"
    assert graph.to_closed().consts[0] is TABLE
    assert_text(
        graph,
        """
        program(x:f32[3]):
          const t:f32[3] = [10.0, 20.0, 30.0]
          a:f32[3] = sin x
          b:f32[3] = add a t
          c:f32[3] = add b x
          strong:f32[] = convert_element_type[new_dtype=float32] 3.0:f32[]
          d:f32[3] = mul c strong
          return d
        """,
    )


def test_inlining_operands_that_are_literals_or_twice_the_same():
    graph = graph_of(lambda x: jax.jit(lambda a, b, c: a * b + c)(x, x, 2.0), X)
    call = node_named(graph, "jit")
    graph.inline(call, call.regions["jaxpr", None])
    assert_consistent(graph)
    assert_identical(run(graph, X), [jax.jit(lambda x: x * x + 2.0)(X)])


def test_inlining_in_a_body():
    graph = graph_of(lambda x: lax.scan(lambda c, _: (jax.jit(lambda v: v * TABLE)(c), None), x, length=2)[0], X)
    call = node_named(graph, "jit")
    call.graph.inline(call, call.regions["jaxpr", None])
    check_closed(graph.to_closed())
    assert_identical(run(graph, X), [jax.jit(lambda x: x * TABLE * TABLE)(X)])


def test_inlining_one_of_two_calls_of_a_shared_body():
    body = jax.jit(lambda v: jnp.sin(v) + 1)
    graph = graph_of(lambda x: body(body(x)), X)
    first, second = graph.nodes()
    graph.inline(first, first.regions["jaxpr", None])
    assert [n.name for n in graph.nodes()] == ["sin", "add", "jit"]
    graph.inline(second, second.regions["jaxpr", None])
    assert_text(
        graph,
        """
        program(a:f32[3]):
          b:f32[3] = sin a
          c:f32[3] = add b 1.0:f32[]
          d:f32[3] = sin c
          e:f32[3] = add d 1.0:f32[]
          return e
        """,
    )


# -- drawn programs ----------------------------------------------------------------------------------------------------


def double_every_result(closed):
    """Puts ``max(x, x)``, which is ``x``, behind every result everywhere."""
    graph = Graph(closed)
    for region in graph.walk():
        for node in region.nodes():
            after = node._next or region.terminator
            for value in node.outputs:
                if not isinstance(value.aval, jax.core.ShapedArray) or not isinstance(value.dtype, np.dtype):
                    continue
                users = list(value.uses)
                (new,) = region.splice(lambda v: lax.max(v, v), value, before=after)
                for user, index in users:
                    region.set_operand(user, index, new)
    return graph


@pytest.mark.parametrize("kind", ["plain", "x64", "symbolic", "effects"])
def test_edits_everywhere_in_drawn_programs(kind):
    @settings(max_examples=examples(10))
    @given(programs(**({} if kind == "plain" else {kind: True})))
    def check(drawn):
        closed = drawn.jaxpr()
        with drawn.context():
            graph = double_every_result(closed)
            assert_consistent(graph)
            edited = graph.to_closed()
            check_closed(edited)
            assert edited.out_avals == closed.out_avals
            assert edited.jaxpr.effects == closed.jaxpr.effects

    check()


@settings(max_examples=examples(8))
@given(programs())
def test_edited_drawn_programs_compute_the_same(drawn):
    closed = drawn.jaxpr()
    edited = double_every_result(closed).to_closed()
    assert_identical(run_unfused(edited, drawn.args), run_unfused(closed, drawn.args))


def run_unfused(closed, args):
    """Without fusion, which rounds differently around every change."""
    return jax.jit(jex_core.jaxpr_as_fun(closed)).lower(*args).compile(dict(UNFUSED))(*args)
