"""The composite: found, replaced on the CPU, opened elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from xlapass.testing import assert_equal_results, assert_rewrites, assert_rule_does_not_fire
from xlapass_example.composites import HARD_SWISH

X = jnp.linspace(-5.0, 5.0, 11)
CPU = xlapass.Target("cpu", "cpu")


@pytest.mark.parametrize("fn", [jax.nn.hard_swish, lambda x: x * jnp.clip(x + 3, 0, 6) / 6])
def test_found_and_opened_again(fn):
    program = assert_equal_results("inline,fold-constants,fuse{only=hard-swish}", fn, X)
    assert [eqn.params["name"] for eqn in program.jaxpr.eqns] == ["example.hard_swish"]
    assert_rewrites(
        "lower-composites",
        HARD_SWISH,
        X,
        expect="""
            program(a:f32[11]):
              b:f32[11] = add a 3.0:f32[]
              c:f32[11] = max b 0.0:f32[]
              d:f32[11] = min c 6.0:f32[]
              e:f32[11] = mul a d
              f:f32[11] = div e 6.0:f32[]
              return f
        """,
    )


def test_not_found():
    assert_rule_does_not_fire("inline,fold-constants,fuse{only=hard-swish}", lambda x: x * jnp.clip(x + 3, 0, 5) / 6, X)


def test_the_cpu_has_a_kernel():
    program = xlapass.PassManager("lower-composites", target=CPU).run(xlapass.trace(HARD_SWISH, X))
    assert "div" not in [eqn.primitive.name for eqn in program.jaxpr.eqns]
    np.testing.assert_allclose(program(X), jax.nn.hard_swish(X), rtol=1e-6)


def test_the_kernel_declines_other_types():
    report = xlapass.Report()
    program = xlapass.trace(HARD_SWISH, X.astype("bfloat16"))
    xlapass.PassManager("lower-composites", target=CPU, instruments=[report]).run(program)
    assert report.records[0].details["declined"] == {"example.hard_swish": {"it is for float32 only": 1}}


def test_the_cpu_pipeline_uses_it():
    artifact = xlapass.compile(jax.nn.hard_swish, X, pipeline="cpu")
    assert any(r.details.get("kernel of example") for r in artifact.report.records)
    np.testing.assert_allclose(artifact.executable()(X), jax.nn.hard_swish(X), rtol=1e-6)
