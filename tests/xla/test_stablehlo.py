"""Rewriting the StableHLO module of an exported function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.extend.mlir import ir
from xlapass.core.driver import compile
from xlapass.core.errors import CompileError, UsageError
from xlapass.core.lowering import lower_to_stablehlo
from xlapass.core.stablehlo import check_pipeline, operation_count, parse, run_mlir_pipeline, with_module
from xlapass.core.tracing import trace

SIMPLIFY = "inline,canonicalize,cse"


def exported(function, *args, **options):
    return export.export(jax.jit(function, **options))(*args)


def spec(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def twice_sine(x):
    return jnp.sin(x) + jnp.sin(x)


def test_before_and_after():
    before = exported(twice_sine, spec(4))
    after = run_mlir_pipeline(before, "canonicalize,cse")
    assert str(parse(before)).count("stablehlo.sine") == 2
    assert str(parse(after)).count("stablehlo.sine") == 1
    assert (operation_count(before), operation_count(after)) == (3, 2)
    x = jnp.arange(4.0)
    np.testing.assert_array_equal(after.call(x), before.call(x))


def test_the_original_is_untouched():
    before = exported(twice_sine, spec(4))
    data = before.mlir_module_serialized
    run_mlir_pipeline(before, SIMPLIFY)
    assert before.mlir_module_serialized == data


def test_unchanged_is_the_very_same_object():
    before = exported(jnp.sin, spec(4))
    assert run_mlir_pipeline(before, "canonicalize,cse") is before
    assert with_module(before, parse(before)) is before


def test_a_second_run_changes_nothing():
    once = run_mlir_pipeline(exported(jax.random.normal, jax.random.key(0)), SIMPLIFY)
    assert run_mlir_pipeline(once, SIMPLIFY) is once


def test_survives_serialization_and_composes_with_jit():
    after = run_mlir_pipeline(exported(twice_sine, spec(4)), SIMPLIFY)
    loaded = export.deserialize(after.serialize())
    x = jnp.arange(4.0)
    np.testing.assert_allclose(jax.jit(lambda x: loaded.call(x) * 2)(x), 4 * np.sin(x), rtol=1e-6)


def test_the_gradient_is_the_original_functions():
    after = run_mlir_pipeline(exported(twice_sine, spec(4)), SIMPLIFY)
    x = jnp.arange(4.0)
    np.testing.assert_allclose(jax.grad(lambda x: after.call(x).sum())(x), 2 * np.cos(x), rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_symbolic_dimensions(size):
    (n,) = export.symbolic_shape("n")
    before = exported(lambda x: jnp.concatenate([x, x]) + jnp.sin(x).sum() + jnp.sin(x).sum(), spec(n, 3))
    after = run_mlir_pipeline(before, SIMPLIFY)
    assert after is not before
    x = jnp.arange(3.0 * size).reshape(size, 3)
    np.testing.assert_array_equal(after.call(x), before.call(x))
    assert after.in_avals == before.in_avals


def test_constants_as_leading_arguments():
    weights = jnp.arange(12.0).reshape(3, 4)
    before = exported(lambda w, x: (x @ w) * 1 + (x @ w), weights, spec(2, 3))
    after = run_mlir_pipeline(before, SIMPLIFY)
    assert operation_count(after) < operation_count(before)
    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(after.call(weights, x), before.call(weights, x))


def test_unused_arguments_stay_unused():
    before = exported(lambda used, unused: twice_sine(used), spec(4), spec(2))
    after = run_mlir_pipeline(before, SIMPLIFY)
    assert after.module_kept_var_idx == (0,)
    np.testing.assert_array_equal(after.call(jnp.ones(4), jnp.ones(2)), before.call(jnp.ones(4), jnp.ones(2)))


def test_an_argument_that_becomes_unused_stays():
    before = exported(lambda x, y: x * 2 + jnp.zeros_like(y) * 0, spec(4), spec(4))
    after = run_mlir_pipeline(before, SIMPLIFY)
    np.testing.assert_array_equal(after.call(jnp.ones(4), jnp.ones(4)), [2, 2, 2, 2])


def test_random_keys():
    before = exported(lambda key: jax.random.normal(key, (5,)), jax.random.key(0))
    after = run_mlir_pipeline(before, SIMPLIFY)
    assert after is not before
    np.testing.assert_array_equal(after.call(jax.random.key(3)), before.call(jax.random.key(3)))


def test_donated_inputs_stay_donated():
    before = exported(lambda x: twice_sine(x), spec(4), donate_argnums=0)
    after = run_mlir_pipeline(before, SIMPLIFY)
    assert "tf.aliasing_output = 0" in str(parse(before))
    assert "tf.aliasing_output = 0" in str(parse(after))


def test_several_platforms():
    before = export.export(jax.jit(twice_sine), platforms=["cpu", "cuda"])(spec(4))
    after = run_mlir_pipeline(before, SIMPLIFY)
    assert after.platforms == ("cpu", "cuda")
    np.testing.assert_array_equal(after.call(jnp.ones(4)), before.call(jnp.ones(4)))


def test_control_flow_and_pytrees():
    def loop(state):
        def step(_, s):
            return {"x": s["x"] * 1 + jnp.sin(s["y"]) + jnp.sin(s["y"]), "y": s["y"] + 1}

        return jax.lax.fori_loop(0, 3, step, state)

    state = {"x": jnp.ones(3), "y": jnp.arange(3.0)}
    before = exported(loop, state)
    after = run_mlir_pipeline(before, SIMPLIFY)
    assert operation_count(after) < operation_count(before)
    jax.tree.map(np.testing.assert_array_equal, after.call(state), before.call(state))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float8_e4m3fn, jnp.int4, jnp.uint8, jnp.bool_, jnp.complex64])
def test_types(dtype):
    before = exported(lambda x: (x.reshape(2, 3), x.reshape(2, 3)), spec(6, dtype=dtype))
    after = run_mlir_pipeline(before, SIMPLIFY)
    x = jnp.zeros(6, dtype)
    assert [y.dtype for y in after.call(x)] == [dtype, dtype]


def test_host_callbacks_cannot_be_exported():
    # So no module with a callback's effect ever reaches these functions; JAX's refusal is the reason.
    def talkative(x):
        jax.debug.print("{}", x, ordered=True)
        return x

    with pytest.raises(NotImplementedError, match="host_callbacks"):
        exported(talkative, spec(4))


def prints(x):
    jax.debug.print("{}", x)
    return x * 2.0


def asks(x):
    return jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


@pytest.mark.parametrize(("fn", "primitive"), [(prints, "debug"), (asks, "pure_callback"), (jax.jit(asks), "pure")])
def test_where_a_callback_stands_is_said(fn, primitive, tmp_path):
    program = trace(fn, np.ones(4, np.float32))
    wanted = rf"calls back into Python \({primitive}"
    with pytest.raises(CompileError, match=wanted) as failure:
        lower_to_stablehlo(program)
    assert failure.value.where is not None and "test_stablehlo.py" in failure.value.where
    assert failure.value.hint is not None and "leave out the callback" in failure.value.hint
    with pytest.raises(CompileError, match=wanted):
        compile(program, pipeline="cpu").save(tmp_path / "model.jax_export")
    assert not list(tmp_path.iterdir())
    with pytest.raises(CompileError, match=wanted):
        compile(program, pipeline="mlir{pipeline=canonicalize}")


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("canonicalise", "does not refer to a registered pass"),
        ("cse(", "unbalanced parentheses"),
        ("cse{no=1}", "no such option no"),
        ("func.func(nothing)", "does not refer to a registered pass"),
        ("chlo-legalize-to-stablehlo", "did you intend to nest"),
        ("builtin.module(cse", "not an MLIR pipeline"),
    ],
)
def test_bad_pipelines(pipeline, message, capfd):
    with pytest.raises(UsageError, match=message) as caught:
        run_mlir_pipeline(exported(jnp.sin, spec(4)), pipeline)
    assert repr(pipeline) in str(caught.value)
    with pytest.raises(UsageError, match=message):
        check_pipeline(pipeline)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("pipeline", ["cse", " cse , canonicalize ", "builtin.module(func.func(cse))", ""])
def test_good_pipelines(pipeline):
    check_pipeline(pipeline)


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("stablehlo-refine-arguments{types=tensor<3xf32>}", "refinement dimension sizes must match"),
        ("stablehlo-legalize-to-linalg", "no longer a portable StableHLO program"),
    ],
)
def test_a_pass_that_fails(pipeline, message, capfd):
    with pytest.raises(CompileError, match=message) as caught:
        run_mlir_pipeline(exported(twice_sine, spec(4)), pipeline)
    assert "twice_sine" in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_module_of_another_type_is_refused():
    before = exported(jnp.sin, spec(4))
    with pytest.raises(CompileError, match="callers expect"):
        with_module(before, parse(exported(jnp.sin, spec(5))))


def test_a_module_without_main_is_refused():
    before = exported(jnp.sin, spec(4))
    module = parse(before)
    ir.SymbolTable(module.operation)["main"].attributes["sym_name"] = ir.StringAttr.get("other", module.context)
    with pytest.raises(CompileError, match="no such function"):
        with_module(before, module)


def test_an_invalid_module_is_refused(capfd):
    before = exported(jnp.sin, spec(4))
    module = parse(before)
    list(ir.SymbolTable(module.operation)["main"].regions[0].blocks[0].operations)[-1].erase()  # its return
    with pytest.raises(CompileError, match="invalid"):
        with_module(before, module)
    assert capfd.readouterr() == ("", "")


def test_long_diagnostics_are_cut():
    def long(x):
        for _ in range(300):
            x = jnp.sin(x)
        return x

    with pytest.raises(CompileError) as caught:
        run_mlir_pipeline(exported(long, spec(4)), "stablehlo-refine-arguments{types=tensor<3xf32>}")
    assert len(str(caught.value)) < 3000
