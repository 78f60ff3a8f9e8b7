"""Compiling for a GPU that is not there: what needs XLA's CUDA plugin, and what needs only the process around it."""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from xlapass.backends.xla import gpu_aot, gpu_worker
from xlapass.backends.xla.devices import DEVICES
from xlapass.backends.xla.gpu_aot import compile_for_device, require_gpu_aot, run_worker
from xlapass.core.errors import CompileError, MissingDependencyError, UsageError


def plugin_is_missing():
    try:
        require_gpu_aot()
    except MissingDependencyError:
        return True
    return False


needs_plugin = pytest.mark.skipif(plugin_is_missing(), reason="needs: pip install xlapass[gpu-aot]")


def conv_block(x, w, b):
    y = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return {"y": jax.nn.relu(y + b)}


def artifact(function, *specs, platforms=("cuda",)):
    return export.export(jax.jit(function), platforms=platforms)(*specs).serialize()


def spec(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def conv_artifact():
    return artifact(conv_block, spec(1, 28, 28, 32), spec(3, 3, 32, 64), spec(64))


@pytest.fixture
def temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


# What needs the plugin.


@needs_plugin
def test_conv_bias_relu_becomes_one_cudnn_call(temporary_files):
    result = compile_for_device(conv_artifact(), "h100")
    assert result.device is DEVICES["h100"]
    assert result.hlo.startswith("HloModule jit_conv_block")
    assert result.hlo.count("__cudnn$convBiasActivationForward") == 1
    assert ".target sm_90a" in result.ptx
    assert 'target triple = "nvptx64-nvidia-cuda"' in result.llvm
    assert result.memory["argument_size_in_bytes"] >= 4 * (28 * 28 * 32 + 3 * 3 * 32 * 64 + 64)
    assert result.cost["flops"] >= 2 * 26 * 26 * 9 * 32 * 64
    payload, in_tree, out_tree = pickle.loads(result.executable)
    assert payload
    assert in_tree.num_leaves == 3
    assert out_tree.num_leaves == 1
    assert list(temporary_files.iterdir()) == []


@needs_plugin
@pytest.mark.parametrize("device", DEVICES)
def test_every_device_compiles(device):
    def softmax(x):
        return jax.nn.softmax(x, axis=-1)

    result = compile_for_device(artifact(softmax, spec(64, 128)), device)
    major, minor = result.device.architecture.compute_capability
    assert f".target sm_{major}{minor}" in result.ptx


@needs_plugin
def test_the_same_program_gives_the_same_bytes():
    assert compile_for_device(conv_artifact(), "a100") == compile_for_device(conv_artifact(), "a100")


@needs_plugin
def test_symbolic_dimensions_take_shapes():
    (n,) = export.symbolic_shape("n")
    dynamic = artifact(lambda x: jnp.tanh(x).sum(0), jax.ShapeDtypeStruct((n, 16), jnp.float32))
    result = compile_for_device(dynamic, "t4", shapes=[(48, 16)])
    assert "f32[48,16]" in result.hlo
    with pytest.raises(UsageError, match="symbolic shape"):
        compile_for_device(dynamic, "t4")


@needs_plugin
def test_donated_inputs_share_memory():
    double = artifact(lambda x: x * 2, spec(256, 256))
    assert compile_for_device(double, "l4").memory["alias_size_in_bytes"] == 0
    assert compile_for_device(double, "l4", donated=[0]).memory["alias_size_in_bytes"] == 4 * 256 * 256


@needs_plugin
def test_keyword_arguments_keys_and_wide_types():
    def noisy(x, *, key):
        return x + jax.random.normal(key, x.shape, x.dtype)

    with jax.enable_x64(True):
        key = jax.eval_shape(lambda: jax.random.key(0))
        data = export.export(jax.jit(noisy), platforms=["cuda"])(spec(8, dtype=jnp.float64), key=key).serialize()
    assert "f64[8]" in compile_for_device(data, "a100").hlo


@needs_plugin
def test_xla_flags_of_the_caller_do_not_reach_the_worker(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_no_such_flag=1")
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    assert compile_for_device(artifact(jnp.sin, spec(8)), "h100").ptx


@needs_plugin
def test_what_xla_refuses_is_a_compile_error(temporary_files):
    with pytest.raises(CompileError, match="xla_no_such_option"):
        compile_for_device(artifact(jnp.sin, spec(8)), "h100", compiler_options={"xla_no_such_option": True})
    assert list(temporary_files.iterdir()) == []


# What is refused before any worker starts.


@pytest.fixture
def assume_plugin(monkeypatch):
    monkeypatch.setattr(gpu_aot, "require_gpu_aot", lambda: None)


def test_unknown_device(assume_plugin):
    with pytest.raises(UsageError, match="no GPU device 'h10'"):
        compile_for_device(b"", "h10")


def test_not_an_artifact(assume_plugin):
    with pytest.raises(UsageError, match="cannot be read"):
        compile_for_device(b"PK\x03\x04 something else", "h100")


def test_artifact_for_another_platform(assume_plugin):
    with pytest.raises(UsageError, match="for cpu, not for cuda"):
        compile_for_device(artifact(jnp.sin, spec(8), platforms=["cpu"]), "h100")


@pytest.mark.parametrize("shapes", [[], [(4,)], [(8, 1)], [(8,), (8,)]])
def test_shapes_that_do_not_fit(assume_plugin, shapes):
    with pytest.raises(UsageError, match=r"shape"):
        compile_for_device(artifact(jnp.sin, spec(8)), "h100", shapes=shapes)


@pytest.mark.parametrize("position", [-1, 1])
def test_donating_what_is_not_there(assume_plugin, position):
    with pytest.raises(UsageError, match="cannot be donated"):
        compile_for_device(artifact(jnp.sin, spec(8)), "h100", donated=[position])


def hide(monkeypatch, *hidden):
    find_spec = gpu_aot.importlib.util.find_spec
    monkeypatch.setattr(gpu_aot.importlib.util, "find_spec", lambda name: None if name in hidden else find_spec(name))


def test_missing_extra(monkeypatch):
    hide(monkeypatch, "jax_cuda12_plugin")
    with pytest.raises(MissingDependencyError, match="jax-cuda12-plugin") as caught:
        compile_for_device(artifact(jnp.sin, spec(8)), "h100")
    assert "pip install xlapass[gpu-aot]" in str(caught.value)
    assert caught.value.exit_status == 2


def test_missing_assembler(monkeypatch):
    monkeypatch.setattr(gpu_aot, "_is_installed", lambda module: True)
    monkeypatch.setattr(gpu_aot, "_system_ptxas", lambda: False)
    hide(monkeypatch, "nvidia.cuda_nvcc")
    with pytest.raises(MissingDependencyError, match="nvidia-cuda-nvcc-cu12"):
        require_gpu_aot()


# The process around the worker, with other programs in its place.


def run_python(folder, code, timeout_s=30.0):
    run_worker([sys.executable, "-c", code], folder, "h100", timeout_s)


def test_a_crash_shows_its_signal_and_last_words(tmp_path):
    code = "import os, sys; print('last words', file=sys.stderr, flush=True); os.abort()"
    with pytest.raises(CompileError, match="SIGABRT") as caught:
        run_python(tmp_path, code)
    assert "last words" in str(caught.value)


def test_an_exit_without_a_result(tmp_path):
    with pytest.raises(CompileError, match="ended with status 0"):
        run_python(tmp_path, "pass")


def test_a_failure_that_the_worker_could_still_tell(tmp_path):
    with pytest.raises(CompileError, match="could not compile for h100: no such luck"):
        run_python(tmp_path, f"open({gpu_worker.FAILURE!r}, 'w').write('no such luck'); raise SystemExit(1)")


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, limit_s=20.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_hang_is_ended_with_its_children(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('pids', 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    with pytest.raises(CompileError, match="not done after 1 s"):
        run_python(tmp_path, code, timeout_s=1.0)
    child = int((tmp_path / "pids").read_text())
    wait_until(lambda: not is_alive(child))


def test_an_interrupt_ends_the_worker(tmp_path, monkeypatch):
    started = []

    def interrupted(process, timeout=None):
        started.append(process.pid)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_python(tmp_path, "import time; time.sleep(600)")
    assert not is_alive(started[0])


# The watching thread, in a worker whose compilation never ends.
HANGING_WORKER = """
import os, pathlib, sys, threading, time
from xlapass.backends.xla import gpu_worker
gpu_worker.compile_request = lambda *_: (pathlib.Path(sys.argv[2]).write_text(str(os.getpid())), time.sleep(600))
gpu_worker.export.deserialize = lambda data: None
gpu_worker.main(pathlib.Path(sys.argv[1]))
"""

PARENT = """
import pathlib, sys, tempfile
from xlapass.backends.xla.gpu_aot import run_worker
tempfile.tempdir = sys.argv[1]
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / "request.json").write_text(sys.argv[4])
    (folder / "exported.bin").write_bytes(b"")
    run_worker([sys.executable, "-c", sys.argv[2], name, sys.argv[3]], folder, "h100", 600)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_worker_ends_with_its_parent_and_leaves_no_files(tmp_path, ending):
    folder = tmp_path / "temporary"
    folder.mkdir()
    pid_file = tmp_path / "pid"
    request = json.dumps(dict(device="", target_config="", shapes=[], donated=[], compiler_options={}, kernels=True))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, folder, HANGING_WORKER, pid_file, request],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    wait_until(lambda: pid_file.exists() and pid_file.read_text())
    parent.send_signal(ending)
    parent.wait(20)
    wait_until(lambda: not is_alive(int(pid_file.read_text())) and not list(folder.iterdir()))


def test_the_worker_writes_a_failure_for_the_parent(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_worker.threading, "Thread", lambda **_: type("Still", (), {"start": lambda self: None})())
    request = dict(device="h100", target_config="", shapes=[], donated=[], compiler_options={}, kernels=True)
    (tmp_path / gpu_worker.REQUEST).write_text(json.dumps(request))
    (tmp_path / gpu_worker.EXPORTED).write_bytes(np.zeros(64, np.uint8).tobytes())
    assert gpu_worker.main(tmp_path) == 1
    assert (tmp_path / gpu_worker.FAILURE).read_text()
    assert not (tmp_path / gpu_worker.RESULT).exists()
