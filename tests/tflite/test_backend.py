"""The file itself: results, names, metadata, determinism, alignment, the executable, operators on request."""

from __future__ import annotations

import json

import flatbuffers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from jax import lax
from xlapass.backends.tflite import flatbuffer
from xlapass.backends.tflite.artifact import TfliteArtifact
from xlapass.backends.tflite.assembly import facts_of
from xlapass.backends.tflite.backend import TfliteBackend
from xlapass.backends.tflite.operators import operator
from xlapass.backends.tflite.report import operation_counts
from xlapass.core.errors import CompileError, UsageError

RNG = np.random.default_rng(0)
W = RNG.standard_normal((8, 4)).astype(np.float32)
X = RNG.standard_normal((3, 8)).astype(np.float32)


def model(x):
    return {"y": jax.nn.relu(x @ W), "s": lax.scan(lambda c, t: (c * 0.9 + t, c), jnp.zeros(8), x)[1]}


@pytest.fixture(scope="module")
def artifact(compiled):
    return compiled(model, X)


def test_a_file_that_other_tools_read(tmp_path, artifact):
    want = model(X)
    for threads in (0, 1):
        have = artifact.executable(num_threads=threads)(X)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), have, want)
    artifact.save(tmp_path / "model.tflite")
    runner = TfliteArtifact.load(tmp_path / "model.tflite").get_signature_runner()
    np.testing.assert_allclose(runner(x=X)["output.y"], want["y"], rtol=1e-5, atol=1e-6)


def test_the_program_before_any_pass_is_what_it_is_checked_against(artifact):
    assert artifact.program.traced is not None
    assert "LiteRT agrees with JAX on example inputs and drawn inputs" in artifact.notes()[0]


def test_names_come_from_the_structure(compiled):
    def fn(x, p):
        return {"a": x + p["w"], "b": (x, p["unused"] * 2)}

    p = {"w": X, "unused": X, "never": X}
    signature = compiled(fn, X, p).executable().interpreter.get_signature_list()["serving_default"]
    assert sorted(signature["inputs"]) == ["p.never", "p.unused", "p.w", "x"]
    assert sorted(signature["outputs"]) == ["output.a", "output.b.0", "output.b.1"]
    renamed = compiled(fn, X, p, signature="run", input_names=tuple("abcd"), output_names=tuple("xyz"))
    (name,) = renamed.executable().interpreter.get_signature_list()
    assert name == "run"
    details = renamed.executable().interpreter.get_input_details()
    assert [detail["name"] for detail in details] == ["a", "b", "c", "d"]
    have, want = renamed.executable()(X, p), fn(X, p)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), have, want)


def test_metadata_names_versions_and_passes(artifact):
    facts = facts_of(artifact.model)
    assert facts["jax"] == jax.__version__
    assert {"xlapass", "litert-converter"} <= set(facts)
    assert "inline" in facts["pipeline"]
    assert facts_of(flatbuffer.write(_without_metadata(artifact.model))) == {}


def _without_metadata(model):
    read = flatbuffer.read(model)
    read.metadata = []
    return read


def test_same_program_same_bytes(artifact, compiled):
    assert compiled(model, X).model == artifact.model


def test_constants_are_aligned(artifact):
    schema = flatbuffer.schema()
    file = schema.Model.GetRootAs(artifact.model, 0)
    for number in range(file.BuffersLength()):
        buffer = file.Buffers(number)
        if buffer.DataLength():
            offset = flatbuffers.number_types.UOffsetTFlags.py_type(buffer._tab.Offset(4))
            assert buffer._tab.Vector(offset) % 16 == 0


def test_weights_are_held_once(compiled):
    weights = RNG.standard_normal((64, 64)).astype(np.float32)
    artifact = compiled(lambda x: (x @ weights) @ weights + weights[0], np.ones((1, 64), np.float32))
    assert len(artifact.model) < 2 * weights.nbytes


def test_weights_in_branches_are_constants(compiled):
    weights = RNG.standard_normal((64, 64)).astype(np.float32)

    def step(i, c):
        return lax.switch(i, [lambda c: jnp.tanh(c @ weights), lambda c: jax.nn.relu(c @ weights + 1), jnp.sin], c)

    artifact = compiled(step, np.int32(1), np.ones((2, 64), np.float32))
    read = flatbuffer.read(artifact.model)
    products = [o for o in flatbuffer.operators(read) if flatbuffer.operator_name(read, o[1]) == "FULLY_CONNECTED"]
    assert len(products) == 2
    for subgraph, product in products:
        assert flatbuffer.data_of(read, subgraph.tensors[product.inputs[1]]) is not None
    assert len(artifact.model) < 2 * weights.nbytes


def test_loops_in_loops(compiled):
    def fn(x, n):
        def outer(c, row):
            inner = lax.fori_loop(0, n, lambda i, s: s * 0.5 + row @ W + lax.convert_element_type(i, jnp.float32), c)
            return lax.cond(inner.sum() > 0, lambda: inner, lambda: -inner), inner

        return lax.scan(outer, jnp.zeros(4), x)

    artifact = compiled(fn, X, np.int32(3))
    for n in (0, 3, 5):
        have, want = artifact.executable()(X, np.int32(n)), fn(X, np.int32(n))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), have, want)
    assert operation_counts(artifact.model)["WHILE"] >= 1


def test_infinities_stay(compiled):
    artifact = compiled(lambda x: jnp.where(x > 0, x, -jnp.inf), X)
    assert np.isneginf(artifact.executable()(X)).any()


def test_options_of_the_executable(artifact, tmp_path):
    with pytest.raises(UsageError, match="no option 'speed'"):
        artifact.executable(speed=11)
    with pytest.raises(UsageError, match="no stage 'hlo'"):
        artifact.stage("hlo")
    assert "stablehlo.dot_general" in artifact.stage("stablehlo")
    assert "scan" in artifact.stage("jaxpr") or "while" in artifact.stage("jaxpr")
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    with pytest.raises(UsageError, match="cannot load"):
        TfliteArtifact.load(tmp_path / "broken.tflite")
    with pytest.raises(UsageError, match="traced for"):
        artifact.executable()(X[:, :3])


def test_any_operator_on_request(compiled):
    def decomposition(x, *, block_size):
        n, h, w, c = x.shape
        x = x.reshape(n, h // block_size, block_size, w // block_size, block_size, c)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // block_size, w // block_size, -1)

    def fn(x):
        return operator("space_to_depth", decomposition)(x * 2, block_size=2) + 1

    x = RNG.standard_normal((1, 4, 6, 3)).astype(np.float32)
    artifact = compiled(fn, x)
    assert operation_counts(artifact.model) == {"MUL": 1, "SPACE_TO_DEPTH": 1, "ADD": 1}
    np.testing.assert_allclose(artifact.executable()(x), fn(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [("no_such", {}, "no TFLite operator NO_SUCH"), ("gelu", {"speed": 1}, "GELU has no option 'speed'")],
)
def test_operators_that_there_are_not(name, options, message, compiled):
    with pytest.raises(CompileError, match=message):
        compiled(lambda x: operator(name, lambda x, **_: jnp.tanh(x))(x, **options), X)


def test_options_have_a_text_form():
    backend = TfliteBackend(engine="litert", verify=False, input_names=("a", "b"))
    assert str(backend) == "tflite{engine=litert,verify=false,input-names=a+b}"
    assert json.loads(json.dumps(TfliteBackend.checks)) == ["edgetpu", "micro"]
    assert xlapass.plan("tflite").backend == TfliteBackend()
