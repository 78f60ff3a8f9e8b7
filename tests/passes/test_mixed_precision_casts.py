"""`mixed-precision`: where the casts end up. Moving them is exact; one test a rule, then bodies."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex_core
from support import operations
from xlapass.core.graph import Graph
from xlapass.core.instruments.numerics import compare_programs
from xlapass.core.manager import PassManager
from xlapass.core.tracing import trace
from xlapass.testing import assert_equal_results, assert_idempotent, assert_rewrites, assert_unchanged

RNG = np.random.default_rng(0)
PASS = "inline,mixed-precision,dead-code"
B16 = jnp.bfloat16


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


X, W, SQUARE = draw(4, 3), draw(3, 5), draw(3, 3)
STACK = draw(2, 3, 3)


def to16(x):
    return lax.convert_element_type(x, B16)


def moves(fn, *args, after, **options):
    """Casts that are there already move; bit for bit the same results, and nothing more to do the next time."""
    assert_rewrites("mixed-precision", fn, *args, expect=after, **options)
    program = trace(fn, *args, **options)
    moved = assert_idempotent("mixed-precision", fn, *args, **options)
    found = compare_programs(program, moved, "exact")
    assert found is None, found
    return moved


def casts(program, *, inside=None):
    """Shapes of the casts to bfloat16, those in bodies included, or only those in bodies of one primitive."""
    graph = Graph(program.jaxpr)
    regions = list(graph.walk())
    if inside is not None:
        regions = [r for g in graph.walk() for n in g.nodes() if n.name == inside for r in n.regions.values()]
    nodes = [n for region in regions for n in region.nodes() if n.name == "convert_element_type"]
    return sorted(n.outputs[0].shape for n in nodes if n.outputs[0].dtype == B16 and n.inputs[0].dtype == np.float32)


# -- one value ---------------------------------------------------------------------------------------------------------


def test_constants_are_rounded_now():
    numbers = np.asarray([1.0, 1.001953125], np.float32)
    moves(
        lambda x: to16(lax.concatenate([x, numbers], 0)),
        np.ones(2, np.float32),
        after="""
            program(a:f32[2]):
              const b:bf16[2] = [1.0, 1.0]
              c:bf16[2] = convert_element_type[new_dtype=bfloat16] a
              d:bf16[4] = concatenate[dimension=0] c b
              return d
        """,
    )


def test_one_cast_for_each_value():
    moves(
        lambda x: (to16(x), jnp.sin(x), to16(x)),
        X,
        after="""
            program(a:f32[4,3]):
              b:bf16[4,3] = convert_element_type[new_dtype=bfloat16] a
              c:f32[4,3] = sin a
              return b, c, b
        """,
    )


def test_narrowing_undoes_widening():
    moves(
        lambda x: to16(x.astype(jnp.float32)) * 2,
        np.ones(2, B16),
        after="""
            program(a:bf16[2]):
              b:bf16[2] = mul a 2.0:bf16[]
              return b
        """,
    )


def test_widening_does_not_undo_narrowing():
    assert_unchanged("mixed-precision", lambda x: to16(x).astype(jnp.float32), X)
    assert_unchanged("mixed-precision", lambda x: to16(x.astype(jnp.float16).astype(jnp.float32)), X)


def test_through_what_moves():
    moves(
        lambda x: to16(x.T.reshape(2, 6)),
        X,
        after="""
            program(a:f32[4,3]):
              b:bf16[4,3] = convert_element_type[new_dtype=bfloat16] a
              c:bf16[3,4] = transpose[permutation=(1,0)] b
              d:bf16[2,6] = reshape[new_sizes=(2,6)] c
              return d
        """,
    )


def test_through_what_picks():
    moves(
        lambda x, y: to16(jnp.concatenate([lax.max(-x, np.float32(0)), y])),
        X,
        X,
        after="""
            program(a:f32[4,3], b:f32[4,3]):
              c:bf16[4,3] = convert_element_type[new_dtype=bfloat16] a
              d:bf16[4,3] = neg c
              e:bf16[4,3] = max d 0.0:bf16[]
              f:bf16[4,3] = convert_element_type[new_dtype=bfloat16] b
              g:bf16[8,3] = concatenate[dimension=0] e f
              return g
        """,
    )


def test_not_where_it_is_wanted_in_float32_too():
    def both(x):
        y = x.T
        return to16(y), y

    assert_unchanged("mixed-precision", both, X)


def test_not_where_more_would_be_rounded():
    assert_unchanged("mixed-precision", lambda x: to16(x[:2]), X)
    assert_unchanged("mixed-precision", lambda x, i: to16(x[i]), X, np.asarray([0, 1]))
    assert_unchanged("mixed-precision", lambda x, y: to16(lax.max(x, y)), X, X)


def test_but_through_what_takes_a_piece_of_a_constant():
    moved = moves(
        lambda i: to16(lax.dynamic_slice(W, (i, 0), (1, 5))),
        np.int32(1),
        after="""
            program(a:i32[]):
              const b:bf16[3,5]
              c:bool[] = lt a 0:i32[]
              d:i32[] = add a 3:i32[]
              e:i32[] = select_n c a d
              f:bf16[1,5] = dynamic_slice[slice_sizes=(1,5)] b e 0:i32[]
              return f
        """,
    )
    assert moved.constant_bytes == W.size * 2


def test_not_through_arithmetic():
    assert_unchanged("mixed-precision", lambda x: to16(x + 1), X)
    assert_unchanged("mixed-precision", lambda x: to16(jnp.max(x, 0)), X)
    assert_unchanged("mixed-precision", lambda x: to16(lax.reduce_precision(x, 8, 10)), X)


def test_weak_types_stay():
    assert_unchanged("mixed-precision", lambda x: lax.convert_element_type_p.bind(
        x, new_dtype=np.dtype(B16), weak_type=True, sharding=None), X)  # fmt: skip


def test_tied_embedding():
    """The table is read in float32 and multiplied in bfloat16; each copy is made once."""
    table = jnp.asarray(draw(7, 3))
    program = assert_equal_results(PASS, lambda i: jnp.tanh(table[i]) @ table.T, np.asarray([1, 2, 5]))
    kinds = sorted(str(c.dtype) for c in program.consts)
    assert kinds == ["bfloat16", "float32"] and casts(program) == [(3, 3)]


def test_weight_read_by_many():
    program = assert_equal_results(PASS, lambda x: jnp.tanh(jnp.tanh(x @ SQUARE) @ SQUARE) @ SQUARE.T, X)
    small = [c for c in program.consts if c.dtype == B16]
    assert len(small) == len(program.consts) and casts(program) == [(4, 3)] * 3


# -- bodies ------------------------------------------------------------------------------------------------------------


def test_weights_of_a_scan():
    def model(x):
        return lax.scan(lambda c, _: (jnp.tanh(c @ SQUARE), None), x, None, length=3)[0]

    assert_rewrites(
        "mixed-precision",
        model,
        X,
        expect="""
            program(a:f32[4,3]):
              const b:bf16[3,3]
              c:f32[4,3] = scan[length=3 num_carry=1 num_consts=1] b a
                jaxpr(d:bf16[3,3], e:f32[4,3]):
                  f:bf16[4,3] = convert_element_type[new_dtype=bfloat16] e
                  g:f32[4,3] = dot_general[dimension_numbers=(((1),(0)),((),())) preferred_element_type=float32] f d
                  h:f32[4,3] = tanh g
                  return h
              return c
        """,
    )
    assert_equal_results(PASS, model, X)
    assert_idempotent("mixed-precision", model, X)


def test_layers_of_a_scan():
    def model(x, layers):
        return lax.scan(lambda c, w: (jnp.tanh(c @ w), c.sum()), x, layers)

    program = assert_equal_results(PASS, model, X, STACK)
    assert casts(program) == [(2, 3, 3), (4, 3)] and casts(program, inside="scan") == [(4, 3)]


def test_layers_picked_in_a_loop():
    def model(x):
        return lax.fori_loop(0, 2, lambda i, c: jnp.tanh(c @ jnp.asarray(STACK)[i]), x)

    program = assert_equal_results(PASS, model, X)
    assert [c.dtype for c in program.consts] == [B16] and casts(program) == [(4, 3)]


def test_while_with_weights_in_both_bodies():
    def model(x):
        return lax.while_loop(lambda c: (c @ W).sum() < 100, lambda c: c @ SQUARE + 1, x)

    program = PassManager(PASS).run(trace(model, X))
    assert casts(program, inside="while") == [(4, 3), (4, 3)]
    np.testing.assert_allclose(program(X), model(X), rtol=0.05, atol=0.5)


def test_branches():
    def model(i, x):
        return lax.switch(i, [lambda w: x @ w, lambda w: x @ w.T, lambda w: x * 2], jnp.asarray(SQUARE))

    program = assert_equal_results(PASS, model, np.int32(1), X)
    assert casts(program, inside="cond") == [(4, 3), (4, 3)] and [c.dtype for c in program.consts] == [B16]


def test_branch_that_wants_float32():
    def model(i, x):
        return lax.cond(i > 0, lambda w: x @ w, lambda w: x * w.sum(), jnp.asarray(SQUARE))

    program = assert_equal_results(PASS, model, np.int32(1), X)
    assert casts(program, inside="cond") == [(3, 3), (4, 3)] and [c.dtype for c in program.consts] == [np.float32]


def test_branch_shared_by_two():
    """The body is one; what one place wants of its operand, the other one gets."""
    body = jax.make_jaxpr(lambda x, w: (x @ w,))(X, SQUARE)
    other = jax.make_jaxpr(lambda x, w: (x + w.sum(),))(X, SQUARE)
    cond = jex_core.primitives.cond_p

    def model(i, x, w, v):
        first = cond.bind(i, x, w, branches=(body, body))[0]
        second = cond.bind(i, x, v, branches=(body, other))[0]
        return first, second

    args = (np.int32(0), X, SQUARE, SQUARE)
    program = assert_equal_results(PASS, model, *args)
    assert casts(program, inside="cond")[-1] == (4, 3)
    assert_idempotent("mixed-precision", model, *args)


def test_call_shared_by_two():
    body = jax.jit(lambda x, w: jnp.tanh(x @ w))
    program = assert_equal_results("mixed-precision", lambda x, y: body(x, y) + body(y, x), SQUARE, SQUARE)
    assert casts(program) == [(3, 3), (3, 3)] and casts(program, inside="jit") == []


def test_carry_stays_in_float32():
    def model(x):
        return lax.scan(lambda c, _: (c + 1, c @ SQUARE), x, None, length=2)[1]

    program = assert_equal_results(PASS, model, X)
    (scan,) = [n for n in Graph(program.jaxpr).nodes() if n.name == "scan"]
    consts, carry = scan.inputs
    assert (consts.dtype, carry.dtype) == (B16, np.float32) and casts(program, inside="scan") == [(4, 3)]


def test_nested_loops():
    def model(x):
        def outer(c, w):
            return lax.fori_loop(0, 2, lambda i, d: jnp.tanh(d @ w @ SQUARE), c), None

        return lax.scan(outer, x, STACK)[0]

    program = assert_equal_results(PASS, model, X)
    assert all(c.dtype == B16 for c in program.consts) and set(casts(program)) == {(4, 3)}


def test_gradient_with_checkpoint():
    layer = jax.checkpoint(lambda x, w: jnp.tanh(x @ w))

    def step(w, x):
        loss, gradient = jax.value_and_grad(lambda w: jnp.sum(layer(layer(x, w), w) ** 2))(w)
        return w - 0.1 * gradient, loss

    program = assert_equal_results(PASS, step, SQUARE, X)
    assert program.out_avals[0].dtype == np.float32


def test_custom_derivatives_keep_the_types_of_their_operands():
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))
    program = assert_equal_results("mixed-precision", product, X, W)
    (call,) = Graph(program.jaxpr).nodes()
    assert call.name == "custom_vjp_call" and [v.dtype for v in call.inputs] == [np.float32] * 2
    assert casts(program) == [(3, 5), (4, 3)]


def test_composites_of_others_keep_the_types_of_their_operands():
    linear = lax.composite(lambda x, w: x @ w, "mine.linear")
    program = assert_equal_results("mixed-precision", lambda x: linear(x, W), X)
    assert operations(program) == ["composite", "convert_element_type", "convert_element_type", "dot_general"]


def test_attention_takes_and_gives_the_small_type():
    mask = np.where(np.tri(4, dtype=bool), 0, -1e9).astype(np.float32)
    attention = lambda q, k, v: jax.nn.softmax(q @ k.T / 2 + mask) @ v  # noqa: E731
    before = "inline,fixpoint(simplify,fold-constants),fuse"
    program = assert_equal_results(f"{before},mixed-precision", attention, X, X * 2, X * 3)
    (node,) = [n for n in Graph(program.jaxpr).nodes() if n.name == "composite"]
    assert node.params["name"] == "xlapass.attention"
    assert [v.dtype for v in node.inputs] == [B16, B16, B16, np.float32] and node.outputs[0].dtype == B16
    dots = [n for n in node.body.nodes() if n.name == "dot_general"]
    assert [[v.dtype for v in n.inputs] for n in dots] == [[B16, B16]] * 2
    inner = [n.outputs[0].dtype for n in node.body.nodes() if n.name in ("exp", "reduce_sum", "div", "add", "sub")]
    assert set(inner) == {np.dtype(np.float32)}
    assert_equal_results(f"{before},mixed-precision,lower-composites", attention, X, X * 2, X * 3)
