"""The composite: found, replaced on the CPU, opened elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from xlapass.testing import assert_equal_results, assert_rewrites, assert_rule_does_not_fire
from xlapass_example.composites import SQUARED_RELU, squared_relu

X = jnp.linspace(-5.0, 5.0, 11)
CPU = xlapass.Target("cpu", "cpu")


@pytest.mark.parametrize("fn", [squared_relu, lambda x: jax.nn.relu(x) ** 2, lambda x: jax.nn.relu(x) * jax.nn.relu(x)])
def test_found_and_opened_again(fn):
    program = assert_equal_results("inline,fold-constants,fuse{only=squared-relu}", fn, X)
    assert [eqn.params["name"] for eqn in program.jaxpr.eqns] == ["example.squared_relu"]
    assert_rewrites(
        "lower-composites",
        SQUARED_RELU,
        X,
        expect="""
            program(a:f32[11]):
              b:f32[11] = max a 0.0:f32[]
              c:f32[11] = square b
              return c
        """,
    )


def test_not_found():
    assert_rule_does_not_fire("inline,fold-constants,fuse{only=squared-relu}", lambda x: jax.nn.relu(x) ** 3, X)


def test_the_cpu_has_a_kernel():
    program = xlapass.PassManager("lower-composites", target=CPU).run(xlapass.trace(SQUARED_RELU, X))
    assert [eqn.primitive.name for eqn in program.jaxpr.eqns] == ["abs", "mul", "max"]
    np.testing.assert_allclose(program(X), squared_relu(X), rtol=1e-6)


def test_the_kernel_declines_other_types():
    report = xlapass.Report()
    program = xlapass.trace(SQUARED_RELU, X.astype("bfloat16"))
    xlapass.PassManager("lower-composites", target=CPU, instruments=[report]).run(program)
    assert report.records[0].details["declined"] == {"example.squared_relu": {"it is for float32 only": 1}}


def test_the_cpu_pipeline_uses_it():
    artifact = xlapass.compile(squared_relu, X, pipeline="cpu")
    assert any(r.details.get("kernel of example") for r in artifact.report.records)
    np.testing.assert_allclose(artifact.executable()(X), squared_relu(X), rtol=1e-6)
