"""jaxpr -> Graph -> jaxpr: the same object when nothing was edited, the same program when all was rebuilt."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import lax
from jax.experimental import io_callback
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend import core as jex_core
from jax.sharding import PartitionSpec
from programs import assert_identical, examples, programs
from xlapass.core.graph import Graph
from xlapass.core.instruments.structure import check_closed

X = np.asarray([[1.0, -2.0, 0.5], [np.nan, -0.0, np.inf]], np.float32)
N = np.asarray([3, -1, 0], np.int32)
TABLE = np.arange(6, dtype=np.float32).reshape(2, 3)


def rebuilt(closed):
    """``closed`` built anew from its graph: every region and every equation counts as edited."""
    graph = Graph(closed)
    for region in graph.walk():
        region._touch()
        for node in region.nodes():
            node._eqn = None
    assert graph.edited
    return graph.to_closed()


def assert_round_trip(closed, args=None):
    graph = Graph(closed)
    assert sum(1 for _ in graph.walk()) >= 1
    assert not graph.edited
    assert graph.to_closed() is closed
    result = rebuilt(closed)
    assert result is not closed
    check_closed(result)
    assert str(result) == str(closed)
    assert result.in_avals == closed.in_avals and result.out_avals == closed.out_avals
    assert result.jaxpr.effects == closed.jaxpr.effects
    assert result.jaxpr.debug_info == closed.jaxpr.debug_info
    assert_same_provenance(closed.jaxpr, result.jaxpr)
    if args is not None:
        flat = jax.tree_util.tree_leaves(args)
        assert_identical(jax.jit(jex_core.jaxpr_as_fun(result))(*flat), jax.jit(jex_core.jaxpr_as_fun(closed))(*flat))


def assert_same_provenance(before, after):
    """Source locations, name stacks and tracing contexts, bodies included."""
    for old, new in zip(before.eqns, after.eqns, strict=True):
        assert new is not old
        assert new.source_info is old.source_info and new.ctx is old.ctx
        inner = zip(jex_core.jaxprs_in_params(old.params), jex_core.jaxprs_in_params(new.params), strict=True)
        for a, b in inner:
            if a is not b:  # an attribute such as a reducer
                assert_same_provenance(a, b)


def nested_loops(x, n):
    """A scan in a while in a cond, each closing over values outside of it."""

    def branch(y):
        def body(state):
            i, z = state
            z, sums = lax.scan(lambda c, row: (c + row * x[0] + n[0], jnp.sum(c) * y[0, 0]), z, y)
            return i + 1, z + jnp.sum(sums)

        return lax.while_loop(lambda state: state[0] < n[1] + 3, body, (0, y[0]))[1] + TABLE

    return lax.cond(n[0] > 2, branch, lambda y: y * 2, x)


def switch_with_a_shared_branch(x, n):
    double = jax.jit(lambda y: y * 2)
    return lax.switch(n[0], [double, jnp.sin, double], x)


def custom_derivatives(x):
    @jax.custom_vjp
    def f(y):
        return jnp.sin(y) * x

    f.defvjp(lambda y: (f(y), y), lambda y, ct: (ct * jnp.cos(y),))
    return jax.nn.relu(f(x)) + jax.nn.silu(x), jax.grad(lambda y: f(y).sum() + jax.nn.relu(y).sum())(x)


def rematerialized(x):
    f = jax.checkpoint(lambda y: jnp.sin(jnp.cos(y)) @ TABLE.T, policy=jax.checkpoint_policies.dots_saveable)
    return jax.grad(lambda y: f(y).sum())(x)


def sharded(x):
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("i")
    summed = jax.shard_map(lambda y: lax.psum(jnp.sin(y), "i"), mesh=mesh, in_specs=spec, out_specs=PartitionSpec())
    return summed(x) * 2


def random_keys(x):
    key, inner = jax.random.split(jax.random.key(0))

    def step(k, _):
        k, use = jax.random.split(k)
        return k, jax.random.normal(use, (2,))

    key, draws = lax.scan(step, key, length=3)
    return jax.random.uniform(inner, x.shape) + x, draws, key


def mutable_reference(x):
    ref = jax.new_ref(jnp.zeros(3))

    def step(i, _):
        ref[...] += x[i % 2]
        return _

    lax.fori_loop(0, 3, step, 0)
    return ref[...]


def printing(x, n):
    jax.debug.print("x = {}", x)
    jax.debug.print("ordered {}", n, ordered=True)
    return lax.fori_loop(0, 2, lambda i, y: (jax.debug.print("{i}", i=i, ordered=True), y + i)[1], x)


def callbacks(x):
    spec = jax.ShapeDtypeStruct(x.shape, x.dtype)
    a = io_callback(lambda v: v, spec, x)
    b = io_callback(lambda v: v, spec, a, ordered=True)
    c = jax.pure_callback(lambda v: v, spec, x)
    io_callback(lambda v: None, None, x)
    return b + c


def small_dtypes(x):
    return [x.astype(d) for d in (jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.float16)] + [
        jnp.asarray([1, 2, -3], jnp.int4) + jnp.int4(1),
        x.astype(jnp.complex64) * 1j,
    ]


def placed(x):
    """Tracing contexts: metadata and scopes."""
    with set_xla_metadata(key="value"):
        y = jnp.sin(x)
    with jax.named_scope("outer"), jax.named_scope("inner"):
        return y + jnp.cos(x)


def mapped(x):
    @jax.custom_batching.custom_vmap
    def f(y):
        return jnp.sin(y)

    f.def_vmap(lambda size, batched, y: (jnp.sin(y), batched[0]))
    return f(x), jax.vmap(f)(x), lax.map(jnp.cos, x), lax.associative_scan(jnp.add, x)


def reducers(x, n):
    """Bodies that are attributes and stay as they are."""
    total = lax.reduce(x, np.float32(0), lambda a, b: a + b * 2, (0,))
    window = lax.reduce_window(x, np.float32(1), lambda a, b: a * b, (1, 2), (1, 1), "SAME")
    return total, window, x.at[0, n[2]].add(1.0), lax.sort((x, TABLE), num_keys=1)


CASES = {
    "nested loops": (nested_loops, X, N),
    "switch": (switch_with_a_shared_branch, X, N),
    "custom derivatives": (custom_derivatives, X),
    "remat": (rematerialized, X),
    "jit in jit": (lambda x: jax.jit(lambda y: jax.jit(jnp.sin)(y) + x)(x), X),
    "jit that donates": (lambda x: jax.jit(jnp.sin, donate_argnums=0)(x * 2), X),
    "shard_map": (sharded, X),
    "random keys": (random_keys, X),
    "a key as input": (lambda k: (jax.random.bits(k), jax.random.fold_in(k, 1)), jax.random.key(3)),
    "references": (mutable_reference, X),
    "printing": (printing, X, N),
    "callbacks": (callbacks, X),
    "small dtypes": (small_dtypes, X),
    "placement": (placed, X),
    "mapping": (mapped, X),
    "reducers": (reducers, X, N),
    "unused inputs": (lambda x, n: n + 1, X, N),
    "no operations": (lambda x, n: (n, x, n), X, N),
    "constant outputs": (lambda x: (TABLE, jnp.asarray(TABLE), 1.0, np.float32(2), x), X),
    "outputs twice": (lambda x: (lambda y: (y, y, x, y))(jnp.sin(x)), X),
    "one operand twice": (lambda x: jax.jit(lambda a, b: a * b)(x, x), X),
    "unused results": (lambda x: (jnp.cos(x), lax.top_k(x, 1)[1])[1], X),
    "weak types": (lambda x, s: (s * 2, s + 1.5, jnp.where(x > s, x, 0)), X, 3),
    "nothing at all": (lambda: (),),
    "no inputs": (lambda: jnp.arange(3) + 1,),
    "empty arrays": (lambda x: (jnp.concatenate([x, x]), x.sum(), jnp.dot(x, x.T)), X[:0]),
    "grad of scan": (jax.grad(lambda x: lax.scan(lambda c, r: (jnp.tanh(c * r), c), x[0], x)[0].sum()), X),
    "composite": (lambda x: lax.composite(lambda y, *, k: y * k, "my.scale")(x, k=2.0), X),
    "linearized": (lambda x: jax.jvp(nested_loops, (x, N), (x, np.zeros(N.shape, jax.dtypes.float0)))[1], X),
    "call without arguments": (lambda x: jax.jit(lambda: jnp.zeros(3))() + x, X),
}


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case, capfd):
    fn, *args = CASES[case]
    args = [jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    runs = case not in ("references", "linearized")
    assert_round_trip(jax.make_jaxpr(fn)(*args), args if runs else None)
    jax.effects_barrier()


@pytest.mark.parametrize("case", ["references", "linearized"])
def test_round_trip_runs_through_jit(case):
    fn, *args = CASES[case]
    closed = jax.make_jaxpr(fn)(*args)
    again = jax.jit(jex_core.jaxpr_as_fun(rebuilt(closed)))(*args)
    assert_identical(again, jax.tree_util.tree_leaves(jax.jit(fn)(*args)))


def test_ordered_effects_keep_their_order():
    seen = []

    def note(*values):
        seen.append(tuple(map(float, values)))
        return values[-1]

    def fn(x):
        for i in range(3):
            io_callback(note, x, i, x + i, ordered=True)
        step = lambda c, _: (io_callback(note, c, c, ordered=True) + 1, None)  # noqa: E731
        return lax.scan(step, x, length=2)

    closed = jax.make_jaxpr(fn)(0.5)
    jax.jit(jex_core.jaxpr_as_fun(rebuilt(closed)))(np.float32(0.5))
    jax.effects_barrier()
    assert seen == [(0, 0.5), (1, 1.5), (2, 2.5), (0.5,), (1.5,)]


def test_symbolic_sizes():
    batch, width = jax.export.symbolic_shape("batch, width")
    spec = jax.ShapeDtypeStruct((batch, width), np.float32)

    def fn(x):
        y = lax.scan(lambda c, r: (c + r, c), x[0], jnp.sin(x))[1]
        return jnp.concatenate([y, x]).reshape(-1), x.mean(axis=0), jnp.arange(x.shape[0])

    assert_round_trip(jax.make_jaxpr(fn)(spec))


def test_wide_types():
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(lambda x, n: (x * 2.0, n + 1, lax.fori_loop(0, n, lambda i, y: y * i, x)))(1.5, 3)
        assert [str(a.dtype) for a in closed.out_avals] == ["float64", "int64", "float64"]
        assert_round_trip(closed, [1.5, 3])


@pytest.mark.parametrize("case", ["nested loops", "custom derivatives", "random keys", "printing", "outputs twice"])
def test_under_the_checks_of_jax(case):
    """``jax_enable_checks`` checks every equation as it is made."""
    fn, *args = CASES[case]
    with jax.enable_checks(True):
        rebuilt(jax.make_jaxpr(fn)(*args))


def test_shared_bodies_stay_shared():
    body = jax.jit(lambda y: jnp.sin(y) + 1)
    closed = jax.make_jaxpr(lambda x: body(body(x)))(X)
    first, second = (eqn.params["jaxpr"] for eqn in closed.eqns)
    assert first is second
    graph = Graph(closed)
    a, b = graph.nodes()
    assert a.regions["jaxpr", None] is b.regions["jaxpr", None]
    assert sum(1 for _ in graph.walk()) == 2
    first, second = (eqn.params["jaxpr"] for eqn in rebuilt(closed).eqns)
    assert first is second


def test_an_unread_region_is_not_built():
    closed = jax.make_jaxpr(lambda x: jax.jit(jnp.sin)(x))(X)
    graph = Graph(closed)
    (node,) = graph.nodes()
    assert node._regions is None
    graph._touch()
    assert graph.to_closed().eqns[0].params["jaxpr"] is closed.eqns[0].params["jaxpr"]


@pytest.mark.parametrize("kind", ["plain", "x64", "symbolic", "effects"])
def test_drawn_programs(kind):
    keywords = {} if kind == "plain" else {kind: True}

    @given(programs(**keywords))
    def check(drawn):
        closed = drawn.jaxpr()
        with drawn.context():
            assert_round_trip(closed)

    check()


@settings(max_examples=examples(10))
@given(programs())
def test_drawn_programs_compute_the_same(drawn):
    assert_round_trip(drawn.jaxpr(), drawn.args)


@settings(max_examples=examples(15))
@given(programs())
def test_drawn_programs_under_the_checks_of_jax(drawn):
    closed = drawn.jaxpr()
    with jax.enable_checks(True):
        rebuilt(closed)


@settings(max_examples=examples(15))
@given(programs(effects=True))
def test_inlining_a_call_gives_the_program_itself(drawn):
    """Every node is made anew, and every body is shared with the original."""
    closed = drawn.jaxpr()
    fn = jex_core.jaxpr_as_fun(closed)
    called = jax.make_jaxpr(lambda *args: jax.jit(fn)(*args))(*closed.in_avals)
    graph = Graph(called)
    for node in graph.nodes():
        graph.inline(node, node.regions["jaxpr", None])
    inlined = graph.to_closed()
    check_closed(inlined)
    reference = jax.make_jaxpr(fn)(*closed.in_avals)
    assert [e.primitive for e in inlined.eqns] == [e.primitive for e in reference.eqns]
    assert inlined.out_avals == reference.out_avals
    assert inlined.jaxpr.effects == reference.jaxpr.effects


def test_partial_functions_are_traced_through():
    closed = jax.make_jaxpr(functools.partial(jnp.add, np.float32(1)))(X)
    assert_round_trip(closed, [X])
