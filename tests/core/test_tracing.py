"""`trace`: whatever can be called becomes a `Program` that gives what the original gives."""

import collections
import dataclasses
import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from programs import assert_identical, examples, programs
from xlapass.core.errors import UsageError
from xlapass.core.tracing import trace

X = np.asarray([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]], np.float32)
WEIGHTS = jnp.asarray(np.arange(6.0, dtype=np.float32).reshape(3, 2))


def affine(x, scale, shift=1.0):
    return x * scale + shift


def assert_same(program, fn, *args):
    """The program's result has the structure, the types and the values of ``jax.jit(fn)``."""
    results, tree = jax.tree_util.tree_flatten(program(*args))
    expected, expected_tree = jax.tree_util.tree_flatten(jax.jit(fn)(*args))
    assert tree == expected_tree
    assert_identical(results, expected)


# -- what can be traced ------------------------------------------------------------------------------------------------


def test_functions():
    program = trace(affine, X, 2.0)
    assert program.name == "affine"
    assert program.input_names == ("x", "scale")
    assert program.output_names == ("output",)
    assert program.level == "jaxpr" and not program.is_symbolic and not program.x64
    assert_same(program, affine, X, 2.0)


def test_partial_functions_lambdas_and_bound_methods():
    partial = functools.partial(affine, shift=3.0)
    program = trace(partial, X, 2.0)
    assert program.name == "affine" and program.input_names == ("x", "scale")
    assert_same(program, partial, X, 2.0)
    first = trace(functools.partial(functools.partial(affine, X), shift=np.float32(1)), 2.0)
    assert first.name == "affine" and first.input_names == ("scale",)

    class Model:
        def predict(self, x):
            return x @ WEIGHTS

    program = trace(Model().predict, X)
    assert program.name == "predict" and program.input_names == ("x",)
    assert program.consts[0] is WEIGHTS
    assert trace(lambda x: x, X).name == "<lambda>"


def test_jitted_functions_and_builtins():
    assert_same(trace(jax.jit(affine), X, 2.0), affine, X, 2.0)
    assert trace(jnp.add, X, X).input_names[1] in ("y", "arg1")
    assert trace(abs, X).name == "abs"


def test_callable_objects():
    class Scale:
        def __call__(self, x, *rest):
            return x * 2 + sum(rest)

    program = trace(Scale(), X, X, X)
    assert program.name == "Scale" and program.input_names == ("x", "arg1", "arg2")
    assert_same(program, Scale(), X, X, X)


class Perceptron(nn.Module):
    @nn.compact
    def __call__(self, images, train: bool = False):
        hidden = nn.relu(nn.Dense(4)(images))
        hidden = nn.BatchNorm(use_running_average=not train)(hidden)
        return {"logits": nn.Dense(2)(hidden)}


def test_linen_pairs():
    module = Perceptron()
    variables = module.init(jax.random.key(0), X)
    program = trace((module, variables), X)
    assert program.name == "Perceptron"
    assert program.input_names == ("images",) and program.output_names == ("output.logits",)
    leaves = {id(leaf) for leaf in jax.tree_util.tree_leaves(variables)}
    assert {id(c) for c in program.consts} <= leaves and len(program.consts) >= 4
    assert_same(program, lambda x: module.apply(variables, x), X)


class Counting(nnx.Module):
    """Changes its own state in every call."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.calls = nnx.Variable(jnp.asarray(0))

    def __call__(self, x):
        self.calls[...] += 1
        return self.dropout(self.norm(self.linear(x)))


def test_nnx_modules_are_left_as_they_are():
    model = Counting(nnx.Rngs(0))
    model.eval()
    before = jax.tree_util.tree_leaves(nnx.state(model))
    program = trace(model, X)
    after = jax.tree_util.tree_leaves(nnx.state(model))
    assert all(a is b for a, b in zip(before, after, strict=True))
    assert program.name == "Counting" and program.input_names == ("x",)
    assert_identical([program(X)], [model(X)])
    model.train()
    before = int(model.calls[...])
    assert trace(model, X)(X).shape == (2, 2)
    assert int(model.calls[...]) == before


def test_a_changed_module_is_traced_anew():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    first = trace(model, X)(X)
    model.kernel[...] *= 2
    assert not np.array_equal(first, trace(model, X)(X))


class Stack(eqx.Module):
    layers: list
    activation: callable = eqx.field(static=True)

    def __call__(self, x):
        for layer in self.layers:
            x = self.activation(layer(x))
        return x


def test_equinox_modules():
    keys = jax.random.split(jax.random.key(0))
    model = Stack([eqx.nn.Linear(3, 4, key=keys[0]), eqx.nn.LayerNorm(4)], jax.nn.gelu)
    program = trace(model, X[0])
    assert program.name == "Stack" and program.input_names == ("x",)
    assert len(program.consts) == 4
    assert_same(program, lambda x: model(x), X[0])
    assert_same(trace(jax.vmap(model), X), jax.vmap(model), X)


def test_frozen_parameters():
    def apply(params, x):
        return x @ params["w"] + params["b"]

    params = {"w": WEIGHTS, "b": np.float32(1)}
    program = trace(apply, X, params=params)
    assert program.input_names == ("x",)
    assert program.consts[0] is WEIGHTS
    assert_same(program, functools.partial(apply, params), X)
    free = trace(apply, params, X)
    assert free.input_names == ("params.b", "params.w", "x")
    assert free.consts == []


@pytest.mark.parametrize("thing", [3, "model", None, {"a": 1}, (1, 2)])
def test_what_cannot_be_called(thing):
    with pytest.raises(UsageError, match="it is not callable"):
        trace(thing, X)


def test_what_the_function_raises_passes_through():
    def broken(x):
        raise LookupError("no such layer")

    with pytest.raises(LookupError, match="no such layer"):
        trace(broken, X)


# -- structures, names, types ------------------------------------------------------------------------------------------


@dataclasses.dataclass
class State:
    mean: object
    count: object


jax.tree_util.register_dataclass(State, ["mean", "count"], [])
Pair = collections.namedtuple("Pair", "left right")


def test_any_pytree():
    def update(state, batch, *, factor=2.0):
        new = State(state.mean * factor, state.count + 1)
        return new, Pair(batch["x"][0], None), [batch["x"][1], {}], ()

    args = (State(X, 3), {"x": (X, X[0]), "unused": None})
    program = trace(update, *args)
    assert program.input_names == ("state.mean", "state.count", "batch.x.0", "batch.x.1")
    assert program.output_names == ("output.0.mean", "output.0.count", "output.1.left", "output.2.0")
    assert_same(program, update, *args)
    again = jax.tree_util.tree_map(lambda leaf: leaf * 2, args)
    assert_same(program, update, *again)


def test_no_arguments_and_no_results():
    assert trace(lambda: 1.5)() == 1.5
    assert trace(lambda x: None, X)(X) is None


def test_names_stay_unique():
    tree = {"a": {"b": X}, "a.b": X}
    assert trace(lambda t: t, tree).input_names == ("t.a.b", "t.a.b#1")
    program = trace(lambda x, y: {"a": {"b": x}, "a.b": y}, X, X)
    assert program.output_names == ("output.a.b", "output.a.b#1")


def test_shapes_without_arrays():
    spec = jax.ShapeDtypeStruct((2, 3), np.float32)
    program = trace(affine, spec, 2.0)
    assert program.examples is None
    assert_same(program, affine, X, 2.0)


def test_examples_are_kept():
    program = trace(affine, X, 2.0)
    assert program.examples[0] is X and program.examples[1] == 2.0


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4", "int8", "bool", "complex64"]
)
def test_small_dtypes(dtype):
    x = jnp.asarray([[1, 0, 1]]).astype(dtype)
    fn = lambda v: (v, jnp.concatenate([v, v]), v.astype(jnp.float32 if dtype != "complex64" else dtype) * 2)  # noqa: E731
    program = trace(fn, x)
    assert program.in_avals[0].dtype == jnp.dtype(dtype)
    results = program(x)
    assert results[0].dtype == jnp.dtype(dtype)
    for have, want in zip(results, jax.jit(fn)(x), strict=True):
        assert (np.asarray(have).astype(np.complex64) == np.asarray(want).astype(np.complex64)).all()


def test_wide_types():
    x = np.asarray([1.0, 2.0])
    assert trace(lambda v: v * 2, x).in_avals[0].dtype == np.float32
    with jax.enable_x64(True):
        program = trace(lambda v, n: (v / 3, n + 1, jnp.arange(n.size)), x, np.asarray([2**40]))
    assert program.x64 and program.in_avals[0].dtype == np.float64
    quotient, total, _ = program(x, np.asarray([2**40]))
    assert quotient.dtype == np.float64
    assert np.asarray(quotient)[0] == 1 / 3 and np.asarray(total)[0] == 2**40 + 1


def test_random_keys():
    def noisy(key, x):
        key, use = jax.random.split(key)
        return key, x + jax.random.normal(use, x.shape)

    key = jax.random.key(7)
    assert_same(trace(noisy, key, X), noisy, key, X)
    assert_same(trace(noisy, jax.random.PRNGKey(7), X), noisy, jax.random.PRNGKey(7), X)
    closed = trace(lambda x: noisy(key, x), X)
    assert_same(closed, lambda x: noisy(key, x), X)


def test_unused_and_repeated_inputs_and_outputs():
    def fn(a, b, c):
        y = a + b
        return y, y, a, 1.0, WEIGHTS

    assert_same(trace(fn, X, X, X), fn, X, X, X)


def test_effects_happen_once_per_call(capfd):
    def fn(x):
        jax.debug.print("seen {}", x[0, 0])
        return x

    program = trace(fn, X)
    program(X)
    program(X * 2)
    jax.effects_barrier()
    assert capfd.readouterr().out.splitlines() == ["seen 1.0", "seen 2.0"]


# -- donation ----------------------------------------------------------------------------------------------------------


def test_donated_arguments():
    def step(params, x):
        return {"w": params["w"] + x, "b": params["b"]}

    params = {"w": X, "b": X}
    assert trace(step, params, X).donated == (False, False, False)
    assert trace(step, params, X, donate_argnums=0).donated == (True, True, False)
    assert trace(step, params, X, donate_argnums=(-1,)).donated == (False, False, True)
    with pytest.raises(UsageError, match="names an argument that is not there"):
        trace(step, params, X, donate_argnums=2)
    with pytest.raises(UsageError, match="names an argument that is not there"):
        trace(step, params, X, donate_argnums=-3)


def test_calling_a_program_never_consumes_its_arguments():
    x = jnp.asarray(X)
    program = trace(lambda v: v + 1, x, donate_argnums=0)
    program(x)
    assert not x.is_deleted()


# -- symbolic sizes ----------------------------------------------------------------------------------------------------


def test_symbolic_sizes_by_text():
    program = trace(lambda x: x @ WEIGHTS, X, dynamic="batch, ...")
    assert program.is_symbolic
    assert [str(d) for d in program.in_avals[0].shape] == ["batch", "3"]
    assert [str(d) for d in program.out_avals[0].shape] == ["batch", "2"]
    for rows in (1, 2, 5):
        x = np.resize(X, (rows, 3))
        assert_same(program, lambda v: v @ WEIGHTS, x)
    assert program.examples[0] is X


def test_symbolic_sizes_for_some_arguments():
    def fn(tree, table):
        return tree["a"] + tree["b"] * table[0]

    args = ({"a": X, "b": X}, X[:, 0])
    program = trace(fn, *args, dynamic=({"a": "n, 3", "b": "n, 3"}, None))
    assert [str(a.shape[0]) for a in program.in_avals] == ["n", "n", "2"]
    assert_same(program, fn, {"a": X[:1], "b": X[:1]}, X[:, 0])


def test_symbolic_sizes_in_specifications():
    rows, cols = jax.export.symbolic_shape("rows, cols")
    program = trace(jnp.transpose, jax.ShapeDtypeStruct((rows, cols), np.float32))
    assert [str(d) for d in program.out_avals[0].shape] == ["cols", "rows"]
    assert_same(program, jnp.transpose, X)


@pytest.mark.parametrize("dynamic", ["batch, channels, extra", "n, 4", ("n, ...", "m"), ("2 +", None), 7])
def test_symbolic_sizes_that_do_not_fit(dynamic):
    with pytest.raises(UsageError, match="dynamic="):
        trace(lambda x: x, X, dynamic=dynamic)


# -- calling a program wrongly -----------------------------------------------------------------------------------------


def test_the_structure_must_fit():
    program = trace(lambda d: d["a"], {"a": X})
    with pytest.raises(UsageError, match="was traced for arguments of structure"):
        program({"b": X})
    with pytest.raises(UsageError, match="was traced for arguments of structure"):
        program({"a": X}, X)


@pytest.mark.parametrize("wrong", [X.T, X[0], np.float32(1), X[:, :2]])
def test_shapes_must_fit(wrong):
    program = trace(lambda image: image * 2, X)
    with pytest.raises(UsageError, match=r"input 'image' of <lambda> has shape .* traced for float32\[2,3\]"):
        program(wrong)


def test_known_sizes_of_symbolic_programs_must_fit():
    program = trace(lambda x: x * 2, X, dynamic="n, 3")
    with pytest.raises(UsageError, match="has shape"):
        program(X[:, :2])


@pytest.mark.parametrize("wrong", [X.astype(np.int32), X.astype(np.float16), X > 0])
def test_dtypes_must_fit(wrong):
    program = trace(lambda image: image * 2, X)
    with pytest.raises(UsageError, match=r"input 'image' of <lambda> has dtype .* traced for float32\[2,3\]"):
        program(wrong)


def test_python_scalars_fit_any_number():
    program = trace(lambda x: x * 2, np.float32(1))
    assert program(3).dtype == np.float32 and program(3) == 6
    weak = trace(lambda x: x * 2, 1.5)(3)
    assert weak.dtype == np.float32 and weak.weak_type and weak == 6
    with pytest.raises(UsageError, match="has dtype float32"):
        trace(lambda x: x * 2, 3)(1.5)


def test_wide_arrays_are_narrowed_as_jax_does():
    assert trace(lambda x: x * 2, X)(X.astype(np.float64)).dtype == np.float32


# -- drawn programs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "x64", "symbolic"])
def test_drawn_programs(kind):
    @settings(max_examples=examples(10))
    @given(programs(**({} if kind == "plain" else {kind: True})))
    def check(drawn):
        with drawn.context():
            program = trace(drawn.fn, *drawn.args, dynamic=drawn.dynamic)
            args = drawn.args_for(3)
            expected = jax.jit(drawn.fn)(*args)
        if kind == "symbolic":
            assert [r.shape for r in program(*args)] == [e.shape for e in expected]
        else:
            assert_identical(program(*args), expected)

    check()
