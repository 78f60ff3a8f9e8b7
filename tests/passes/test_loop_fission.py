"""`loop-fission`: products leave scans when no step waits for them, and nothing else does."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from support import check, operations
from xlapass.core.driver import plan
from xlapass.core.instruments.report import Report
from xlapass.core.manager import PassManager
from xlapass.core.program import Program
from xlapass.core.tracing import trace


def weights(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[0]), jnp.float32)


INPUT, STATE, OUTPUT = weights(6, 8), weights(8, 8, seed=1), weights(8, 3, seed=2)
SEQUENCE = weights(5, 2, 6, seed=3)


def split(fn: Any, *args: Any, options: str = "", x64: bool = False) -> tuple[Program, list[dict[str, Any]]]:
    """The program after the pass, its results compared with the function's, and what was moved."""
    report = Report()
    with jax.enable_x64(x64):
        passes = f"inline,loop-fission{options},dead-code"
        program = PassManager(passes, instruments=[report]).run(trace(fn, *args))
        expected = jax.tree.leaves(jax.jit(fn)(*args))
        for have, want in zip(jax.tree.leaves(program(*args)), expected, strict=True):
            assert have.dtype == want.dtype
            np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)
    (scans,) = (one.details["scans"] for one in report.records if "scans" in one.details)
    return program, scans


def in_loops(program: Program, name: str = "dot_general") -> int:
    """How many operations of that name are in bodies."""
    top = [eqn.primitive.name for eqn in program.jaxpr.jaxpr.eqns]
    return operations(program).count(name) - top.count(name)


def test_before_and_behind() -> None:
    def recurrent(x: Any, w: Any, u: Any, v: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = jnp.tanh(x @ w + h @ u)
            return h, h @ v

        return lax.scan(step, jnp.zeros((2, 8)), x)

    check(
        "loop-fission",
        recurrent,
        SEQUENCE,
        INPUT,
        STATE,
        OUTPUT,
        before="""
        program(a:f32[5,2,6], b:f32[6,8], c:f32[8,8], d:f32[8,3]):
          e:f32[2,8] = broadcast_in_dim[shape=(2,8)] 0.0:f32[]
          f:f32[2,8], g:f32[5,2,3] = scan[length=5 num_carry=1 num_consts=3] b c d e a
            jaxpr(h:f32[6,8], i:f32[8,8], j:f32[8,3], k:f32[2,8], l:f32[2,6]):
              m:f32[2,8] = dot_general[dimension_numbers=(((1),(0)),((),())) preferred_element_type=float32] l h
              n:f32[2,8] = dot_general[dimension_numbers=(((1),(0)),((),())) preferred_element_type=float32] k i
              o:f32[2,8] = add m n
              p:f32[2,8] = tanh o
              q:f32[2,3] = dot_general[dimension_numbers=(((1),(0)),((),())) preferred_element_type=float32] p j
              return p, q
          return f, g
        """,
        after="""
        program(a:f32[5,2,6], b:f32[6,8], c:f32[8,8], d:f32[8,3]):
          e:f32[2,8] = broadcast_in_dim[shape=(2,8)] 0.0:f32[]
          f:f32[5,2,8] = dot_general[dimension_numbers=(((2),(0)),((),())) preferred_element_type=float32] a b
          g:f32[2,8], h:f32[5,2,8] = scan[length=5 num_carry=1 num_consts=1] c e f
            jaxpr(i:f32[8,8], j:f32[2,8], k:f32[2,8]):
              l:f32[2,8] = dot_general[dimension_numbers=(((1),(0)),((),())) preferred_element_type=float32] j i
              m:f32[2,8] = add k l
              n:f32[2,8] = tanh m
              return n, n
          o:f32[5,2,3] = dot_general[dimension_numbers=(((2),(0)),((),())) preferred_element_type=float32] h d
          return g, o
        """,
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("unroll", [1, 2])
def test_direction_and_unrolling(reverse: bool, unroll: int) -> None:
    def fn(x: jax.Array) -> Any:
        def step(h: jax.Array, x: jax.Array) -> Any:
            h = jnp.tanh(x @ INPUT + h @ STATE)
            return h, (h @ OUTPUT, x, 2.0, h, jnp.sin(INPUT[0]))

        return lax.scan(step, jnp.ones((2, 8)), x, reverse=reverse, unroll=unroll)

    program, scans = split(fn, SEQUENCE)
    assert [(one["before"], one["behind"]) for one in scans] == [(1, 1)] and in_loops(program) == 1
    (scan,) = (eqn for eqn in program.jaxpr.jaxpr.eqns if eqn.primitive.name == "scan")
    assert scan.params["reverse"] == reverse and scan.params["unroll"] == unroll


def test_what_follows_a_product_goes_with_it() -> None:
    bias = weights(8, seed=4)

    def fn(x: jax.Array) -> Any:
        def step(h: jax.Array, x: jax.Array) -> Any:
            z = jax.nn.relu((x * 2.0) @ (INPUT + 1.0) + bias)
            return h * 0.5 + z, None

        return lax.scan(step, jnp.zeros((2, 8)), x)[0]

    program, _ = split(fn, SEQUENCE)
    (scan,) = (eqn for eqn in program.jaxpr.jaxpr.eqns if eqn.primitive.name == "scan")
    assert [eqn.primitive.name for eqn in scan.params["jaxpr"].jaxpr.eqns] == ["mul", "add"]


def test_a_carry_that_is_the_last_input() -> None:
    def fn(x: jax.Array) -> Any:
        return lax.scan(lambda h, x: (x @ INPUT, h + 1.0), jnp.zeros((2, 8)), x)

    program, scans = split(fn, SEQUENCE)
    assert len(scans) == 1 and in_loops(program) == 0


def test_convolutions() -> None:
    kernel = weights(3, 3, 2, 4, seed=5)
    images = weights(3, 1, 4, 4, 2, seed=6)

    def fn(x: jax.Array) -> Any:
        def step(h: jax.Array, x: jax.Array) -> Any:
            y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            return h * 0.5 + y, None

        return lax.scan(step, jnp.zeros((1, 4, 4, 4)), x)[0]

    program, scans = split(fn, images)
    assert len(scans) == 1 and in_loops(program, "conv_general_dilated") == 0


@pytest.mark.parametrize("cell", [nn.OptimizedLSTMCell, nn.LSTMCell, nn.GRUCell, nn.SimpleCell, nn.MGUCell])
@pytest.mark.parametrize("differentiated", [False, True])
def test_recurrent_layers(cell: Any, differentiated: bool) -> None:
    module = nn.RNN(cell(8))
    x = weights(2, 7, 6, seed=7)
    variables = module.init(jax.random.key(0), x)

    def fn(x: jax.Array) -> Any:
        return module.apply(variables, x)

    def gradient(x: jax.Array) -> Any:
        return jax.grad(lambda x: (fn(x) ** 2).sum())(x)

    plain = trace(fn, x)
    program, scans = split(gradient if differentiated else fn, x)
    assert all(one["before"] or one["behind"] for one in scans) and scans
    if not differentiated:
        assert in_loops(program) < in_loops(PassManager("inline").run(plain))


def test_other_types() -> None:
    def fn(x: jax.Array) -> Any:
        return lax.scan(lambda h, x: (h + x @ INPUT.astype(x.dtype), h), jnp.zeros((2, 8), x.dtype), x)

    for dtype, x64 in (("float64", True), ("float16", False), ("bfloat16", False), ("int32", False)):
        with jax.enable_x64(x64):
            x = (4 * SEQUENCE).astype(dtype)
        report = Report()
        with jax.enable_x64(x64):
            program = PassManager("inline,loop-fission,dead-code", instruments=[report]).run(trace(fn, x))
            want = jax.jit(fn)(x)
        assert in_loops(program) == 0
        for have, expected in zip(jax.tree.leaves(program(x)), jax.tree.leaves(want), strict=True):
            tolerance = 0 if dtype == "int32" else 64 * float(jnp.finfo(dtype).eps)
            a, b = (np.asarray(one, np.float64) for one in (have, expected))
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_random_keys_and_effects_stay() -> None:
    seen = []

    def fn(x: jax.Array, keys: jax.Array) -> Any:
        def step(h: jax.Array, one: Any) -> Any:
            x, key = one
            noise = jax.random.normal(key, h.shape)
            jax.debug.callback(lambda h: seen.append(float(h.sum())), h, ordered=True)
            return jnp.tanh(x @ INPUT + h @ STATE) + noise, h @ OUTPUT

        return lax.scan(step, jnp.zeros((2, 8)), (x, keys))

    keys = jax.random.split(jax.random.key(0), 5)
    program, scans = split(fn, SEQUENCE, keys)
    jax.effects_barrier()
    assert len(scans) == 1 and in_loops(program) == 1
    assert len(seen) == 10 and seen[:5] == pytest.approx(seen[5:], rel=1e-4, abs=1e-5)


class TestDeclines:
    """Scans that stay as they are."""

    @pytest.mark.parametrize(
        ("start", "step"),
        [
            ((2, 8), lambda h, x: (jnp.tanh(h @ STATE), None)),
            ((2, 6), lambda h, x: (h + x.sum(), x * 2)),
            ((6, 6), lambda h, x: (h + x.T @ x, None)),
            ((2, 6), lambda h, x: (h + 1.0, h @ x.T)),
        ],
        ids=["waits", "no-product", "both-change", "weights-change"],
    )
    def test_nothing_to_gain(self, start: tuple[int, int], step: Any) -> None:
        _, scans = split(lambda x: lax.scan(step, jnp.ones(start), x), SEQUENCE)
        assert scans == []

    def test_many_rows(self) -> None:
        def fn(x: jax.Array) -> Any:
            return lax.scan(lambda h, x: (h + x @ INPUT, None), jnp.zeros((100, 8)), x)[0]

        assert split(fn, weights(3, 100, 6))[1] == []

    def test_memory(self) -> None:
        def fn(x: jax.Array) -> Any:
            return lax.scan(lambda h, x: (h + x @ INPUT, h @ OUTPUT), jnp.zeros((2, 8)), x)

        assert split(fn, SEQUENCE, options="{max-bytes=100}")[1] == []
        assert len(split(fn, SEQUENCE, options="{max-bytes=1000}")[1]) == 1

    def test_symbolic_length(self) -> None:
        def fn(x: jax.Array) -> Any:
            return lax.scan(lambda h, x: (h + x @ INPUT, None), jnp.zeros((2, 8)), x)[0]

        program = trace(fn, SEQUENCE, dynamic="n, ...")
        assert PassManager("inline,loop-fission").run(program).jaxpr is PassManager("inline").run(program).jaxpr


@settings(max_examples=25)
@given(st.data())
def test_drawn_bodies(data: st.DataObject) -> None:
    """Bodies of random operations over the state, the inputs and weights, whose results are carried or stacked."""
    length, rows = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 3))
    steps = data.draw(st.lists(st.tuples(st.sampled_from("wuatm"), st.integers(0, 9), st.integers(0, 9)), max_size=8))
    carried, stacked = data.draw(st.integers(0, 9)), data.draw(st.lists(st.integers(0, 9), max_size=3))
    square = [weights(4, 4, seed=8), weights(4, 4, seed=9)]

    def body(h: Any, x: Any) -> Any:
        values = [h, x, jnp.ones((rows, 4))]
        for kind, i, j in steps:
            a, b = values[i % len(values)], values[j % len(values)]
            made = {
                "w": lambda a=a: a @ square[0],
                "u": lambda a=a: square[1].T @ a.T,
                "a": lambda a=a, b=b: a + b,
                "t": lambda a=a: jnp.tanh(a),
                "m": lambda a=a: jnp.max(a, axis=0, keepdims=True) - a,
            }[kind]()
            values.append(made.T if kind == "u" else made)
        return values[carried % len(values)], [values[i % len(values)] for i in stacked]

    x = weights(length, rows, 4, seed=10)
    reverse = data.draw(st.booleans())
    split(lambda x: lax.scan(body, jnp.full((rows, 4), 0.5), x, reverse=reverse), x)


def test_xlapass_jit_takes_part() -> None:
    module = nn.RNN(nn.OptimizedLSTMCell(8))
    x = weights(2, 7, 6, seed=7)
    variables = module.init(jax.random.key(0), x)
    plain = PassManager("inline").run(trace(lambda x: module.apply(variables, x), x))
    program = PassManager("cpu").run(trace(lambda x: module.apply(variables, x), x))
    assert in_loops(program) < in_loops(plain)


@pytest.mark.parametrize("pipeline", ["cpu", "gpu", "onnx", "tflite", "cpu-bf16"])
def test_pipelines_take_part(pipeline: str) -> None:
    """Files gain most: each step of a loop costs their runtimes more than XLA."""
    names = [one.pass_.name for one in plan(pipeline).pipeline.steps()]
    assert "loop-fission" in names


def test_sizes_that_are_not_known() -> None:
    def fn(x: jax.Array) -> Any:
        return lax.scan(lambda h, x: (h + x @ INPUT, None), jnp.zeros((x.shape[1], 8)), x)[0]

    (batch,) = jax.export.symbolic_shape("b")
    program = trace(fn, jax.ShapeDtypeStruct((5, batch, 6), jnp.float32))
    assert PassManager("inline,loop-fission").run(program).jaxpr is PassManager("inline").run(program).jaxpr
