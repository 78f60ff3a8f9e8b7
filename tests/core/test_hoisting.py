"""`hoist_constants`: arrays in the bodies of loops and branches become constants of the program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from jax import lax
from jax.extend import core as jex_core
from xlapass.core.graph import Graph
from xlapass.core.hoisting import hoist_constants, nested_constants
from xlapass.core.program import Program
from xlapass.core.resident import Weights
from xlapass.core.tracing import trace

RNG = np.random.default_rng(0)
W = RNG.standard_normal((40, 40)).astype(np.float32) / 6
V = RNG.standard_normal((40, 40)).astype(np.float32) / 6
SMALL = np.ones(3, np.float32)
X = RNG.standard_normal((4, 40)).astype(np.float32)


def placed(fn: Any, *args: Any) -> Program:
    """The program of ``fn`` in which each `sin` of a body is a product with `W`, and each `cos` one with `V`."""
    program = trace(fn, *args)
    graph = Graph(program.jaxpr)
    for region in graph.walk():
        for node in region.nodes():
            if region is not graph and node.name in ("sin", "cos"):
                matrix = {"sin": W, "cos": V}[node.name]
                new = region.splice(lambda x, m=matrix: x @ m + jnp.asarray(SMALL)[0], *node.inputs, before=node)
                region.replace(node.outputs[0], new[0])
                region.erase(node)
    return program.replace(jaxpr=graph.to_closed())


def scan(x: Any) -> Any:
    return lax.scan(lambda c, _: (jnp.tanh(jnp.sin(c)), jnp.cos(c).sum()), x, None, length=3)


def loop(x: Any) -> Any:
    return lax.while_loop(lambda c: jnp.cos(c[1]).sum() < 1e9 + c[0], lambda c: (c[0] + 1e9, jnp.sin(c[1])), (0.0, x))


def cond(x: Any) -> Any:
    return lax.cond(x[0, 0] > 0, lambda x, y: jnp.sin(x) + y, lambda x, y: jnp.cos(x) * y, x, x * 2)


def nested(x: Any) -> Any:
    return lax.scan(lambda c, _: (cond(c) / 9, loop(c)[1].sum()), x, None, length=2)


PROGRAMS = [scan, loop, cond, nested]


@pytest.mark.parametrize("fn", PROGRAMS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_program_stays_what_it_is(fn: Any, sign: int) -> None:
    program = placed(fn, X)
    large = [const for const in nested_constants(program.jaxpr.jaxpr) if const.nbytes > 4096]
    assert large
    hoisted = program.replace(jaxpr=hoist_constants(program.jaxpr))
    jex_core.check_jaxpr(hoisted.jaxpr.jaxpr)
    assert not [const for const in nested_constants(hoisted.jaxpr.jaxpr) if const.nbytes > 4096]
    assert {id(const) for const in hoisted.consts} >= {id(const) for const in large}
    for want, have in zip(program.evaluate_flat([sign * X]), hoisted.evaluate_flat([sign * X]), strict=True):
        np.testing.assert_array_equal(want, have)


def test_an_array_is_brought_up_once() -> None:
    program = placed(lambda x: (scan(x), scan(x * 2)), X)
    assert len(hoist_constants(program.jaxpr).consts) == 2


def test_a_program_without_such_constants_is_the_same_object() -> None:
    program = trace(scan, X)
    assert hoist_constants(program.jaxpr) is program.jaxpr
    assert program.constant_bytes == 0


def test_they_are_counted_and_no_literals_of_the_executable() -> None:
    program = placed(scan, X)
    assert program.constant_bytes == W.nbytes + V.nbytes + SMALL.nbytes
    executable = xlapass.compile(program, pipeline="").executable()
    assert "tensor<40x40xf32>" in executable.lowered().as_text()
    assert 'dense<"0x' not in executable.lowered().as_text()
    for want, have in zip(program.evaluate_flat([X]), executable.run_flat([X]), strict=True):
        np.testing.assert_allclose(want, have, rtol=1e-6)


def test_weights_are_put_on_the_device_once() -> None:
    weights = Weights()
    first = weights.put([W, SMALL, np.float32(1)], None)
    again = weights.put([W, W.copy(), V, np.ones(1, np.float32), SMALL.astype(np.float16)], None)
    assert again[0] is again[1] is first[0]
    assert [a.shape for a in again] == [(40, 40), (40, 40), (40, 40), (1,), (3,)]
    for array, constant in zip([*first, *again], [W, SMALL, np.float32(1), W, W, V, [1], SMALL], strict=True):
        np.testing.assert_array_equal(array, constant)
    (key,) = weights.put([jax.random.key(0)], None)
    assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
