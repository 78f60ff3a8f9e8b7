"""Fingerprints: equal for equal programs in every process, different for different ones."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import lax
from programs import examples, programs
from xlapass.core.lowering import lower_to_stablehlo
from xlapass.core.program import operation_count
from xlapass.core.tracing import trace

X = np.asarray([1.0, -2.0], np.float32)


def fingerprint(fn, *args, **keywords):
    return trace(fn, *(args or (X,)), **keywords).fingerprint


def model(x, table=(1.0, 2.0)):
    y = jax.nn.gelu(x) * jnp.asarray(table)
    y = lax.scan(lambda c, r: (jnp.tanh(c + r), c), y, jnp.stack([y, y]))[0]
    y = jax.checkpoint(jnp.sin)(lax.cond(y[0] > 0, jax.jit(jnp.cos), jnp.exp, y))
    jax.debug.callback(print, y)
    return {"y": y, "noise": jax.random.uniform(jax.random.key(3), (2,))}


def test_the_same_in_every_process():
    code = textwrap.dedent(f"""
        import sys
        sys.path[:0] = {[os.path.dirname(__file__)]!r}
        import numpy as np, jax
        from test_fingerprint import X, model
        from xlapass.core.tracing import trace
        print(trace(model, X, dynamic=None).fingerprint)
    """)
    seen = set()
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"}
        environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(os.path.dirname(__file__))])
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout.strip())
    assert seen == {fingerprint(model)}


def test_another_trace_of_the_same():
    assert fingerprint(model) == fingerprint(model)
    assert fingerprint(lambda x: x * 2) == fingerprint(lambda y: y * 2)
    assert (
        fingerprint(lambda x: x * X) == fingerprint(lambda x: x * jnp.asarray(X)) == fingerprint(lambda x: x * X.copy())
    )


def noting(number):
    def note(_):
        return number

    return lambda x: jax.debug.callback(note, x)


def pure(function, x):
    return jax.pure_callback(function, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def loop(length, body, x):
    return lax.fori_loop(0, length, lambda _, c: body(c), x)


def double(v):
    return v * 2


def triple(v):
    return v * 3


DIFFERENT = {
    "operation": (lambda x: jnp.sin(x), lambda x: jnp.cos(x)),
    "literal": (lambda x: x * 2.0, lambda x: x * 3.0),
    "sign of a literal": (lambda x: x + 0.0, lambda x: x + -0.0),
    "constant": (lambda x: x * X, lambda x: x * (X + 1)),
    "sign of a constant": (lambda x: x * np.zeros(2, np.float32), lambda x: x * -np.zeros(2, np.float32)),
    "dtype of a constant": (lambda x: x * X, lambda x: x * X.astype(np.float16)),
    "shape of a constant": (lambda x: x * X, lambda x: x * X[None][0:1].reshape(1, 2)),
    "parameter": (lambda x: jnp.cumsum(x), lambda x: jnp.cumsum(x)[::-1]),
    "operands": (lambda x: x - jnp.sin(x), lambda x: jnp.sin(x) - x),
    "outputs": (lambda x: (x, x * 2), lambda x: (x * 2, x)),
    "an output more": (lambda x: x * 2, lambda x: (x * 2, x)),
    "structure": (lambda x: (x, x), lambda x: [x, x]),
    "body": (lambda x: loop(3, double, x), lambda x: loop(3, triple, x)),
    "constant in a body": (lambda x: jax.jit(lambda v: v * X)(x), lambda x: jax.jit(lambda v: v * (X + 1))(x)),
    "length": (lambda x: loop(3, double, x), lambda x: loop(4, double, x)),
    "branches": (lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), lambda x: lax.cond(x[0] > 0, jnp.cos, jnp.sin, x)),
    "key": (lambda x: (x, jax.random.key(0)), lambda x: (x, jax.random.key(1))),
    "callback": (lambda x: jax.debug.callback(print, x), lambda x: jax.debug.callback(repr, x)),
    "closure of a callback": (noting(1), noting(2)),
    "function of a callback": (lambda x: pure(double, x), lambda x: pure(triple, x)),
    "weak type": (lambda x: jnp.asarray(2.0), lambda x: jnp.asarray(2.0, jnp.float32)),
}  # fmt: skip


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_differs(what):
    first, second = DIFFERENT[what]
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint(first) == fingerprint(first)


def test_types_donation_and_width():
    base = fingerprint(lambda x: x)
    assert fingerprint(lambda x: x, X[:1]) != base
    assert fingerprint(lambda x: x, X.astype(np.float16)) != base
    assert fingerprint(lambda x: x, X, donate_argnums=0) != base
    assert fingerprint(lambda x: x, X, dynamic="n") != base
    assert fingerprint(lambda x: x, X, dynamic="n") == fingerprint(lambda x: x, X, dynamic="n")
    with jax.enable_x64(True):
        assert fingerprint(lambda x: x) != base


def test_names_examples_and_history_do_not_count():
    program = trace(lambda x: x * 2, X)
    same = program.replace(name="other", examples=None, history=("simplify",), provenance={1: "rule"})
    assert same.fingerprint == program.fingerprint


def test_the_level_counts():
    program = trace(lambda x: x * 2, X)
    assert lower_to_stablehlo(program).fingerprint != program.fingerprint


@settings(max_examples=examples(15))
@given(programs(effects=True))
def test_drawn_programs(drawn):
    first, second = trace(drawn.fn, *drawn.args), trace(drawn.fn, *drawn.args)
    assert first.fingerprint == second.fingerprint
    assert operation_count(first.jaxpr) == operation_count(second.jaxpr)
