"""The XLA backend: executables, portable artifacts, stages, and where weights live."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
WEIGHTS = np.random.default_rng(0).standard_normal((4, 5000)).astype(np.float32)
NONE = "dead-code"


def model(x, scale):
    return {"y": jnp.tanh(x @ WEIGHTS) * scale["s"]}


def compiled(backend="xla", **options):
    return xlapass.compile(model, X, {"s": 2.0}, pipeline=NONE, backend=backend, **options)


def same(result):
    np.testing.assert_allclose(result["y"], model(X, {"s": 2.0})["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("embed", ["auto", "always", "never"])
def test_weights_are_arguments_or_literals(embed):
    artifact = compiled(f"xla{{embed-constants={embed}}}")
    same(artifact.executable()(X, {"s": 2.0}))
    parameters = artifact.stage("hlo").split("entry_computation_layout={")[1].split("->")[0]
    assert ("f32[4,5000]" in parameters) == (embed != "always")


def test_the_file_loads_with_plain_jax(tmp_path):
    path = tmp_path / "model.jax_export"
    compiled().save(path)
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    same(exported.call(X, {"s": 2.0}))


def test_stages():
    artifact = compiled()
    assert "tanh" in artifact.stage("jaxpr") and "stablehlo.tanh" in artifact.stage("stablehlo")
    assert "HloModule" in artifact.stage("hlo") and "define" in artifact.stage("llvm")
    with pytest.raises(xlapass.UsageError, match="no PTX"):
        artifact.stage("ptx")


def test_wrong_arguments_name_the_input():
    run = compiled().executable()
    with pytest.raises(xlapass.UsageError, match="input 'x' of model has shape"):
        run(X[:, :2], {"s": 2.0})
    with pytest.raises(xlapass.UsageError, match="structure"):
        run(X)


def test_donated_inputs_are_consumed():
    run = xlapass.compile(lambda x: x + 1, jnp.ones(1000), pipeline=NONE, donate_argnums=0).executable()
    x = jnp.zeros(1000)
    assert run(x)[0] == 1 and x.is_deleted()


def test_symbolic_sizes_run_at_any_size():
    run = xlapass.compile(lambda x: x.sum(0) / x.shape[0], X, pipeline="cpu", dynamic="b, ...").executable()
    for size in (1, 5):
        x = np.arange(size * 4, dtype=np.float32).reshape(size, 4)
        np.testing.assert_allclose(run(x), x.mean(0), rtol=1e-6)


def test_without_a_gpu_the_portable_artifact_says_what_was_not_done(tmp_path):
    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("this machine has a GPU")
    artifact = xlapass.compile(model, X, {"s": 2.0}, pipeline="gpu")
    assert any("no GPU" in note for note in artifact.notes())
    artifact.save(tmp_path / "gpu")
    assert jax.export.deserialize(bytearray((tmp_path / "gpu").read_bytes())).platforms == ("cuda",)
    with pytest.raises(xlapass.UsageError, match="no cuda device"):
        artifact.executable()


def test_compiler_options_reach_xla():
    same(compiled("xla{compiler-options=xla_cpu_enable_fast_math:false}").executable()(X, {"s": 2.0}))
    with pytest.raises(xlapass.UsageError, match="has no value"):
        compiled("xla{compiler-options=xla_cpu_enable_fast_math}")
    with pytest.raises(xlapass.UsageError, match="does not take a compiler option"):
        compiled("xla{compiler-options=xla_no_such:1}").executable()(X, {"s": 2.0})
