"""The file itself: names, metadata, dynamic axes, opsets, refusals, sharing, determinism, saving."""

import os

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import xlapass
from jax import lax
from xlapass.backends.onnx import runtime
from xlapass.backends.onnx.artifact import OnnxArtifact
from xlapass.backends.onnx.backend import OnnxBackend
from xlapass.backends.onnx.check import compare
from xlapass.backends.onnx.export import ExportOptions, export
from xlapass.backends.onnx.kernels import TYPES
from xlapass.backends.onnx.registry import table
from xlapass.core.errors import CompileError, UnsupportedError, UsageError
from xlapass.core.target import Target

X = np.ones((2, 3), np.float32)
TARGET = Target("onnx", "onnx")


def artifact(fn, *args, **options):
    return OnnxBackend(**options).emit(xlapass.trace(fn, *args), TARGET)


def test_names_come_from_the_structure():
    made = artifact(lambda x, p: {"y": x @ p["w"], "z": p["b"]}, X, {"w": np.ones((3, 4), np.float32), "b": X})
    assert [v.name for v in made.model.graph.inputs] == ["x", "p.b", "p.w"]
    assert [v.name for v in made.model.graph.outputs] == ["output.y", "output.z"]
    renamed = artifact(lambda x: x + 1, X, input_names=("image",), output_names=("scores",))
    assert [v.name for v in renamed.model.graph.inputs] == ["image"]
    assert [v.name for v in renamed.model.graph.outputs] == ["scores"]


def test_wrong_names_are_refused():
    with pytest.raises(UsageError, match="2 input names for 1 inputs"):
        artifact(lambda x: x, X, input_names=("a", "b"))
    with pytest.raises(UsageError, match="one name"):
        artifact(lambda x, y: x + y, X, X, input_names=("a", "a"))


def test_nodes_say_where_they_come_from():
    @jax.named_scope("Block_0")
    def block(x):
        return jnp.tanh(x)

    (node,) = artifact(lambda x: block(x), X).model.graph
    assert node.name == "Block_0/Tanh"
    assert "test_model.py:" in node.metadata_props["source"]


def test_metadata_names_versions_and_passes():
    model = xlapass.compile(
        lambda x: jax.jit(jnp.sin)(x), X, pipeline="inline", backend=OnnxBackend(), target=TARGET
    ).model
    assert model.producer_name == "xlapass"
    assert model.metadata_props["jax"] == jax.__version__
    assert "inline" in model.metadata_props["pipeline"]


def test_same_program_same_bytes():
    def fn(x):
        return lax.scan(lambda c, a: (c + jnp.sin(a), c), jnp.zeros(3), x)

    assert artifact(fn, X).serialized == artifact(fn, X).serialized


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool"])
def test_large_weights_are_written_as_protobuf_would(dtype):
    """In parts, straight from their arrays: of one megabyte, of one that lies across, and with an empty one beside."""
    rng = np.random.default_rng(0)
    large, turned = (jnp.asarray(rng.integers(0, 2, shape), dtype) for shape in ((1024, 1024), (512, 300)))
    across = np.asarray(turned).T
    fn = lambda x: (x + large, across + x[:300, :512], jnp.zeros((0, 3), dtype) + x[:0, :3])  # noqa: E731
    made = artifact(fn, jnp.zeros((1024, 1024), dtype))
    read = onnx.load_from_string(made.serialized)
    whole = ir.to_proto(made.model)
    tensors = {tensor.name: tensor for tensor in whole.graph.initializer}
    assert {tensor.name for tensor in read.graph.initializer} == set(tensors)
    for tensor in read.graph.initializer:
        assert tensor == tensors[tensor.name]
    for proto in (read, whole):
        del proto.graph.initializer[:], proto.graph.value_info[:]  # onnx-ir repeats the types of initializers there
    assert read == whole


def test_weights_are_held_once(operators):
    w = jnp.asarray(np.random.default_rng(0).standard_normal((300, 300)), jnp.float32)
    model = export(jax.make_jaxpr(lambda x: (x @ w) @ w + w[0])(np.ones((2, 300), np.float32)))
    assert sum(v.const_value.nbytes > 1000 for v in model.graph.initializers.values()) <= 2
    tied = export(jax.make_jaxpr(lambda i: w[i] @ w.T)(np.array([1, 2], np.int32)))
    assert sum(v.const_value.nbytes > 1000 for v in tied.graph.initializers.values()) == 1


def test_a_tied_embedding_is_held_once():
    """Also where a pass transposed it."""
    w = jnp.asarray(np.random.default_rng(0).standard_normal((300, 64)), jnp.float32)
    made = xlapass.compile(lambda i: jnp.dot(w[i] * 2, w.T), np.array([[1, 2]], np.int32), pipeline="onnx")
    assert made.weight_bytes < 1.1 * w.nbytes
    assert "agrees with JAX" in made.verification


@pytest.mark.parametrize("sizes", [(2, 5), (3, 1), (1, 7)])
def test_dynamic_axes(sizes):
    """One file for every size: shape arithmetic is done by the file."""
    b, t = jax.export.symbolic_shape("b, t")

    def fn(x):
        n = x.shape[0]
        flat = x.reshape(-1, 4)
        mask = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        scores = jnp.where(mask, jnp.einsum("btd,bsd->bts", x, x), -1e9)
        return (
            flat.sum(1), jax.nn.softmax(scores), x.mean(0) * n, jnp.concatenate([x, x], 1), jnp.arange(n * 2),
            jnp.pad(x, ((0, 0), (1, 2), (0, 0))), lax.scan(lambda c, a: (c + a, c), jnp.zeros((x.shape[1], 4)), x)[0],
            x[:, -1], jnp.cumsum(x, 1), jnp.broadcast_to(x[:1], x.shape), x.reshape(n, -1), jnp.sort(x, 1),
        )  # fmt: skip

    closed = jax.make_jaxpr(fn)(jax.ShapeDtypeStruct((b, t, 4), jnp.float32))
    model = export(closed)
    assert [str(d) for d in model.graph.inputs[0].shape] == ["b", "t", "4"]
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((*sizes, 4)).astype(np.float32)
    for want, have in zip(fn(x), session.run(None, {"x0": x}), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


def test_all_that_is_unsupported_is_listed_at_once():
    def fn(x):
        y = jax.pure_callback(lambda v: v, x, x)
        return lax.linalg.schur(x[:2, :2])[0], y

    with pytest.raises(UnsupportedError) as caught:
        artifact(fn, X)
    text = str(caught.value)
    assert "2 operations" in text
    assert "pure_callback at" in text
    assert "schur at" in text
    assert text.count("test_model.py:") == 2


def test_dead_operations_do_not_matter():
    assert artifact(lambda x: (jax.pure_callback(lambda v: v, x, x), x + 1)[1], X).model.graph.num_nodes() == 1


def test_opset_follows_need_and_choice():
    assert artifact(lambda x: x + 1, X).model.opset_imports[""] == 23
    assert artifact(lambda x: lax.bitcast_convert_type(x, np.int32), X).model.opset_imports[""] == 26
    assert artifact(lambda x: x + 1, X, opset=21).model.opset_imports[""] == 21
    with pytest.raises(UnsupportedError, match="BitCast needs opset 26"):
        artifact(lambda x: lax.bitcast_convert_type(x, np.int32), X, opset=23)
    with pytest.raises(UsageError, match="opset 5 is not offered"):
        artifact(lambda x: x, X, opset=5)


@pytest.mark.parametrize("opset", [20, 23, 26])
def test_every_opset_runs(agrees, opset):
    def fn(x):
        return (
            jax.nn.softmax(x),
            jnp.max(x, 0),
            jnp.cumprod(x, 1),
            jnp.sort(x, 1),
            x.at[0].add(1.0),
            jnp.fft.rfft(x).real,
        )

    agrees(fn, np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32), opset=opset)


def test_saving_and_running(tmp_path):
    made = artifact(lambda x, n: {"a": x * n, "k": x.sum()}, X, np.int32(3))
    made.save(tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    assert [i.name for i in OnnxArtifact.load(tmp_path / "model.onnx").get_inputs()] == ["x", "n"]
    result = made.executable(threads=1)(X, np.int32(3))
    np.testing.assert_array_equal(result["a"], X * 3)
    assert "agrees with JAX" in made.notes()[0]


def test_external_data(tmp_path):
    w = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    made = artifact(lambda x: x @ w, np.ones((1, 64), np.float32), external_data="always")
    made.save(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size >= w.nbytes
    assert (tmp_path / "model.onnx").stat().st_size < w.nbytes
    session = OnnxArtifact.load(tmp_path / "model.onnx")
    np.testing.assert_allclose(session.run(None, {"x": np.ones((1, 64), np.float32)})[0][0], w.sum(0), rtol=1e-4)


def test_weights_beyond_the_limit_of_protobuf(tmp_path, monkeypatch):
    """The limit is lowered here: two gigabytes would take minutes."""
    monkeypatch.setattr(runtime, "PROTOBUF_LIMIT", 10_000)
    w = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    made = artifact(lambda x: x @ w, np.ones((1, 64), np.float32))
    made.save(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size >= w.nbytes
    np.testing.assert_allclose(made.executable()(np.ones((1, 64), np.float32))[0], w.sum(0), rtol=1e-4)
    with pytest.raises(UsageError, match="more than one protobuf message can hold"):
        artifact(lambda x: x @ w, np.ones((1, 64), np.float32), external_data="never").save(tmp_path / "one.onnx")


@pytest.mark.parametrize("external_data", ["never", "always"])
@pytest.mark.parametrize("step", [1, 2])
def test_an_interrupted_write_leaves_no_file(tmp_path, monkeypatch, external_data, step):
    replaced = []

    def interrupted(source, target, replace=os.replace):
        replaced.append(target)
        if len(replaced) >= step or external_data == "never":
            raise KeyboardInterrupt
        replace(source, target)

    w = np.ones((64, 64), np.float32)
    made = artifact(lambda x: x @ w, np.ones((1, 64), np.float32), external_data=external_data)
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.save(tmp_path / "model.onnx")
    assert replaced
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_failed_write(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        artifact(lambda x: x + 1, X).save(tmp_path / "missing" / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_result_is_named():
    with pytest.raises(CompileError, match="'scores'"):
        compare([np.ones(3, np.float32)], [np.full(3, 1.1, np.float32)], ["scores"])
    with pytest.raises(CompileError, match="1 of 3 values differ"):
        compare([np.arange(3)], [np.array([0, 1, 3])], ["scores"])


def test_types_without_arrays_in_the_runtime():
    """bfloat16 goes in and comes out through the executable."""
    x = np.asarray([[1.5, -2.0]], ml_dtypes.bfloat16)
    run = artifact(lambda a: (a * 2, a.sum()), x).executable()
    double, total = run(x)
    assert double.dtype == ml_dtypes.bfloat16
    assert float(total) == -0.5


def test_keys_and_complex_numbers_at_the_interface():
    run = artifact(
        lambda k, z: (jax.random.fold_in(k, 1), z * 2), jax.random.key(3), np.ones(2, np.complex64)
    ).executable()
    key, z = run(jax.random.key(3), np.ones(2, np.complex64))
    assert jnp.array_equal(jax.random.key_data(key), jax.random.key_data(jax.random.fold_in(jax.random.key(3), 1)))
    np.testing.assert_array_equal(z, np.full(2, 2, np.complex64))


def test_unknown_provider_and_option_are_refused():
    made = artifact(lambda x: x + 1, X)
    with pytest.raises(UsageError, match="no provider 'Abacus'"):
        made.executable(providers=["Abacus"])
    with pytest.raises(UsageError, match="no option 'speed'"):
        made.executable(speed=2)


COMPOSITES = [
    ("gelu", {"approximate": True}, "Gelu", jax.nn.gelu),
    ("gelu", {"approximate": False}, "Gelu", lambda x: jax.nn.gelu(x, approximate=False)),
    ("softmax", {"axis": 1}, "Softmax", jax.nn.softmax),
    ("log_softmax", {"axis": 1}, "LogSoftmax", jax.nn.log_softmax),
    ("softplus", {}, "Softplus", jax.nn.softplus),
    ("mish", {}, "Mish", jax.nn.mish),
    ("hard_swish", {}, "HardSwish", jax.nn.hard_swish),
    ("hard_sigmoid", {}, "HardSigmoid", jax.nn.hard_sigmoid),
    ("elu", {}, "Elu", jax.nn.elu),
    ("selu", {}, "Selu", jax.nn.selu),
    ("leaky_relu", {}, "LeakyRelu", jax.nn.leaky_relu),
]


@pytest.mark.parametrize(("name", "attributes", "op_type", "function"), COMPOSITES)
def test_composites_become_one_operator(agrees, operators, name, attributes, op_type, function):
    def fn(x):
        return lax.composite(lambda v, **_: function(v), f"xlapass.{name}")(x, **attributes)

    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    assert operators(fn, x) == [op_type]
    agrees(fn, x, rtol=1e-4, atol=1e-5)


def test_composites_without_a_kernel_are_opened(operators):
    """Gelu has no float64 kernel."""
    with jax.enable_x64(True):
        fn = lambda x: lax.composite(lambda v, **_: v * 2, "xlapass.gelu")(x, approximate=True)  # noqa: E731
        assert operators(fn, np.ones(3)) == ["Mul"]


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_normalizations(agrees, operators, norm):
    def plain(x, scale, *, epsilon, axis):
        centred = x - x.mean(-1, keepdims=True) if norm == "layer_norm" else x
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * scale

    fn = lambda x, s: lax.composite(plain, f"xlapass.{norm}")(x, s, epsilon=1e-5, axis=-1)  # noqa: E731
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    args = (x, np.array([1, 2, 3, 4], np.float32))
    assert operators(fn, *args) == ["LayerNormalization" if norm == "layer_norm" else "RMSNormalization"]
    agrees(fn, *args, rtol=1e-4)


@pytest.mark.parametrize(("axis", "whole"), [(1, True), ((0, 1), True), (0, False), ((0,), False)])
def test_normalizations_of_other_axes(agrees, operators, axis, whole):
    """One axis is that axis alone; the operator normalizes the last ones together."""
    fn = lambda x: lax.composite(  # noqa: E731
        lambda v, *, epsilon, axis: jax.nn.standardize(v, axis=axis, epsilon=epsilon), "xlapass.layer_norm"
    )(x, epsilon=1e-3, axis=axis)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    assert (operators(fn, x) == ["LayerNormalization"]) == whole
    agrees(fn, x, rtol=1e-4)


def test_common_pairs_are_one_operator(agrees, operators):
    w, b = np.ones((3, 4), np.float32), np.ones(4, np.float32)
    assert operators(lambda x: jax.nn.relu(x @ w + b), X) == ["Gemm", "Relu"]
    assert operators(lambda x: (lambda y: (y, y + b))(x @ w), X) == ["MatMul", "Add"]
    assert operators(lambda x: jnp.mean(x, 1), X) == ["ReduceMean"]
    assert operators(jax.nn.relu6, X) == ["Clip"]
    assert operators(lambda x: jnp.clip(x, 0.25, 0.5), X) == ["Clip"]
    x = np.array([[np.nan, np.inf, -np.inf], [0.3, -1, 7]], np.float32)
    agrees(lambda v: (jnp.clip(v, 0.25, 0.5), jax.nn.relu6(v), jnp.mean(v, 1), v @ w + b), x)


def test_a_maximum_that_is_a_result_propagates_nan(agrees):
    def fn(x):
        top = jnp.max(x, 1, keepdims=True)
        return x - top, top

    agrees(fn, np.array([[np.nan, 1], [2, 3]], np.float32))


def test_an_index_is_two_operators(operators):
    """Clamping, as XLA does, and Gather, which counts from the end by itself."""
    x = jnp.ones((5, 4))
    assert operators(lambda i: x[i], np.array([1, 2], np.int32)) == ["Clip", "Gather"]


def test_the_kernel_table_agrees_with_the_runtime():
    """Every type in the table has a kernel in the installed ONNX Runtime (float16 through its own casts)."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    known: dict[str, set[str]] = {}
    for kernel in get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider" and kernel.domain == "":
            types = next(iter(kernel.type_constraints.values()), [])
            known.setdefault(kernel.op_name, set()).update(t[7:-1] for t in types)
    words = {"float32": "float", "float64": "double"}
    for op_type, types in TYPES.items():
        if known.get(op_type):
            for dtype in types - {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}:
                name = dtype.numpy().name
                assert words.get(name, name) in known[op_type], (op_type, name)


def test_the_table_covers_the_primitives_of_jax():
    """Every primitive that a single-device program can hold has a row."""
    from jax.extend.core import primitives

    names = {getattr(primitives, n).name for n in dir(primitives) if n.endswith("_p")}
    opened_by_implementation = {"random_gamma"}
    unknown = names - set(table()) - opened_by_implementation
    assert unknown <= {"custom_lin"}, sorted(unknown)


def test_options_are_text():
    assert str(OnnxBackend(opset=23)) == "onnx{opset=23}"
    assert ExportOptions().opset == 0


def test_the_documented_table_is_current():
    from pathlib import Path

    from xlapass.backends.onnx.coverage import with_table

    document = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text(encoding="utf-8")
    assert with_table(document) == document, "run python -m xlapass.backends.onnx.coverage"


def test_what_cannot_be_compared_is_not(tmp_path):
    """A generator with a hidden state agrees with nothing; a float64 program may go through float32."""
    made = artifact(lambda x: lax.rng_uniform(jnp.float32(0), x[0, 0], (3,)), X)
    made.save(tmp_path / "random.onnx")
    assert "not run against JAX" in made.notes()[0]
    with jax.enable_x64(True):
        narrow = artifact(lambda x: jnp.exp(x.astype(jnp.float32)).astype(jnp.float64).sum(), np.linspace(0.1, 3, 99))
        narrow.save(tmp_path / "narrow.onnx")
