import jax
import jax.numpy as jnp
import numpy as np
import pytest
from xlapass.core.errors import CompileError, UsageError
from xlapass.core.manager import PassManager
from xlapass.core.tracing import trace
from xlapass.passes.mlir import Mlir
from xlapass.testing import assert_equal_results, program_text

X = jnp.asarray([-1.5, 0.0, 2.0], jnp.float32)


def repeated(x):
    return jnp.sin(x) + jnp.sin(x), jax.jit(jnp.cos)(x)


def test_before_and_after():
    lowered = PassManager([Mlir("symbol-dce")]).run(trace(repeated, X))
    program = PassManager("mlir{pipeline=cse}").run(trace(repeated, X))
    assert program_text(lowered).count("stablehlo.sine") == 2
    assert program_text(program).count("stablehlo.sine") == 1


def test_results_stay():
    assert_equal_results("mlir", repeated, X)
    program = PassManager("inline,mlir{pipeline=canonicalize}").run(trace(repeated, X))
    np.testing.assert_allclose(program(X)[0], 2 * np.sin(X), rtol=1e-6)


def test_nothing_to_do():
    once = PassManager("mlir").run(trace(repeated, X))
    assert PassManager("mlir").run(once) is once


def test_weights_stay_arguments():
    w = jnp.ones((64, 64))
    program = PassManager("mlir").run(trace(lambda x: x @ w, jnp.ones((1, 64))))
    assert [c is w for c in program.consts] == [True]
    assert program(jnp.ones((1, 64))).shape == (1, 64)


def test_symbolic_sizes():
    program = PassManager("mlir").run(trace(lambda x: jnp.sin(x) * jnp.sin(x), jnp.ones((2, 3)), dynamic="b, ..."))
    assert program(jnp.ones((5, 3))).shape == (5, 3)


def test_the_text_form():
    assert str(Mlir()) == "mlir"
    assert str(Mlir("cse")) == "mlir{pipeline=cse}"
    assert str(Mlir("inline,func.func(cse)")) == 'mlir{pipeline="inline,func.func(cse)"}'
    (step,) = PassManager('mlir{pipeline="inline,func.func(cse)"}').pipeline.steps()
    assert step.pass_ == Mlir("inline,func.func(cse)")


def test_a_pipeline_that_mlir_does_not_know():
    with pytest.raises(UsageError, match="no-such-pass"):
        PassManager("mlir{pipeline=no-such-pass}")


def test_a_pass_that_breaks_the_module_is_refused():
    pipeline = PassManager('mlir{pipeline="stablehlo-legalize-to-vhlo"}')
    with pytest.raises(CompileError, match="callers expect"):
        pipeline.run(trace(repeated, X))
