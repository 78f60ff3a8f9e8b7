"""Fusing and lowering whole programs drawn by hypothesis."""

import jax
import jax.numpy as jnp
from hypothesis import given, settings
from programs import programs
from support import operations
from xlapass.core.tracing import trace
from xlapass.testing import assert_equal_results, assert_idempotent


def with_activations(fn):
    """The function with softmax of GELU or SiLU behind every float result."""

    def wrapped(*args):
        return [activated(result, index) for index, result in enumerate(fn(*args))]

    return wrapped


def activated(result, index):
    if not jnp.issubdtype(result.dtype, jnp.floating):
        return result
    active = jax.nn.silu(result) if index % 2 else jax.nn.gelu(result, approximate=index % 4 == 0)
    return jax.nn.softmax(active) if result.ndim and result.shape[-1] else active


@settings(max_examples=settings.default.max_examples // 5)  # each compiles several programs
@given(programs(most_steps=5))
def test_fusing_and_lowering_change_no_bit(registry_with, drawn):
    registry = registry_with()
    with drawn.context():
        program = trace(with_activations(drawn.fn), *drawn.args)
    fused = assert_equal_results("inline,fuse", program, registry=registry)
    assert_idempotent("fuse", fused, registry=registry)
    lowered = assert_equal_results("lower-composites", fused, registry=registry)
    assert "composite" not in operations(lowered)


@given(programs(symbolic=True))
def test_symbolic_programs(run, drawn):
    with drawn.context():
        program = trace(with_activations(drawn.fn), *drawn.args, dynamic=drawn.dynamic)
    lowered = run("inline,fuse,lower-composites", program)
    assert "composite" not in operations(lowered)


@given(programs(x64=True, effects=True))
def test_programs_with_effects_and_64_bits(run, drawn):
    with drawn.context():
        program = trace(with_activations(drawn.fn), *drawn.args)
    fused = run("inline,fuse", program)
    assert run("fuse", fused).jaxpr is fused.jaxpr
    assert run("lower-composites", fused).jaxpr.effects == program.jaxpr.effects
