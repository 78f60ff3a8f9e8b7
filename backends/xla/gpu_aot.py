"""Compiling for a named GPU on a machine that has none.

XLA's CUDA plugin compiles without a driver when it is given a description of the device. The plugin must not disturb
the calling process, which keeps its own platform, so a subprocess with its own environment does the work
(``gpu_worker``); a crash or a hang there becomes a ``CompileError`` here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jax import export

from ...core.errors import CompileError, MissingDependencyError, UsageError
from . import gpu_worker
from .devices import GPUDevice, find_device, target_config
from .stages import CompilerOptions

# Package to install, and the module that shows it is there.
_PLUGIN_PACKAGES = {"jax-cuda12-plugin": "jax_cuda12_plugin", "jax-cuda12-pjrt": "jax_plugins.xla_cuda12"}
_PTXAS_PACKAGE = "nvidia-cuda-nvcc-cu12"

_STDERR_LINES = 20

_DEFAULT_OPTIONS: dict[str, str | bool] = {
    "xla_gpu_autotune_level": "0",  # autotuning runs candidates, and there is nothing to run them on
}


@dataclass(frozen=True)
class DeviceCompilation:
    """What XLA made of a program for one GPU.

    Attributes:
      device: the device compiled for.
      hlo: optimized HLO.
      llvm: optimized LLVM IR of the kernels; empty when it was not asked for.
      ptx: PTX of the kernels; empty when it was not asked for.
      memory: bytes, by the names of jax's ``CompiledMemoryStats``.
      cost: XLA's cost analysis ("flops", "bytes accessed", ...) of the program before XLA optimized it; empty where it
        has none, as for an artifact with symbolic dimensions.
      executable: ``pickle.dumps`` of what ``jax.experimental.serialize_executable.serialize`` returned. It takes the
        flat inputs and returns the list of flat outputs, and loads only on such a device with the same jaxlib.
    """

    device: GPUDevice
    hlo: str
    llvm: str
    ptx: str
    memory: Mapping[str, int]
    cost: Mapping[str, float]
    executable: bytes


def compile_for_device(
    artifact: bytes,
    device: GPUDevice | str,
    *,
    shapes: Sequence[Sequence[int]] | None = None,
    donated: Sequence[int] = (),
    kernels: bool = True,
    compiler_options: CompilerOptions | None = None,
    timeout_s: float = 600.0,
) -> DeviceCompilation:
    """Compiles a serialized ``jax.export.Exported`` for ``device``; no GPU, driver or CUDA toolkit is needed.

    Args:
      artifact: ``jax.export.export(jitted, platforms=["cuda"])(*args).serialize()``. Its arguments should be arrays or
        builtin containers of them: the worker does not know a user's own pytree classes.
      device: a ``GPUDevice``, or the name of one in ``devices.DEVICES``.
      shapes: concrete shape of every flat input; required when the artifact has symbolic dimensions.
      donated: positions of the flat inputs whose memory the outputs may take.
      kernels: whether to return the kernels' LLVM IR and PTX, which costs a second compilation.
      compiler_options: per-compilation XLA options; they override the default, which is no autotuning.
      timeout_s: seconds after which the worker is ended.

    Returns:
      The compiled program and what is known about it. Times are not: they need the device.

    Raises:
      MissingDependencyError: the extra ``gpu-aot`` is not installed.
      UsageError: no such device, not an artifact, not for one cuda device, or shapes that do not fit.
      CompileError: XLA refuses the program, crashes, or takes longer than ``timeout_s``.
    """
    if isinstance(device, str):
        device = find_device(device)
    require_gpu_aot()
    exported = _read(artifact)
    request = gpu_worker.Request(
        device=device.name,
        target_config=target_config(device),
        shapes=_concrete_shapes(exported, shapes),
        donated=_checked_positions(donated, len(exported.in_avals)),
        compiler_options={**_DEFAULT_OPTIONS, **(compiler_options or {})},
        kernels=kernels,
    )
    with tempfile.TemporaryDirectory(prefix="xlapass-gpu-") as name:
        folder = Path(name)
        (folder / gpu_worker.EXPORTED).write_bytes(artifact)
        (folder / gpu_worker.REQUEST).write_text(json.dumps(asdict(request)))
        run_worker([sys.executable, "-P", "-m", gpu_worker.__name__, name], folder, device.name, timeout_s)
        cost = folder / gpu_worker.COST
        return DeviceCompilation(
            device=device,
            hlo=(folder / gpu_worker.HLO).read_text(),
            llvm=(folder / gpu_worker.LLVM).read_text() if kernels else "",
            ptx=(folder / gpu_worker.PTX).read_text() if kernels else "",
            memory=json.loads((folder / gpu_worker.RESULT).read_text()),
            cost=json.loads(cost.read_text()) if cost.exists() else {},
            executable=(folder / gpu_worker.EXECUTABLE).read_bytes(),
        )


def require_gpu_aot() -> None:
    """Checks, importing nothing heavy, that XLA's CUDA plugin and NVIDIA's assembler are installed.

    Raises:
      MissingDependencyError: one of them is not.
    """
    missing = [package for package, module in _PLUGIN_PACKAGES.items() if not _is_installed(module)]
    if not missing and not (_wheel_cuda_folder() or _system_ptxas()):
        missing = [_PTXAS_PACKAGE]
    if missing:
        raise MissingDependencyError("compiling for a GPU on a machine without one", "gpu-aot", missing[0])


def run_worker(command: Sequence[str], folder: Path, device: str, timeout_s: float) -> None:
    """Runs ``command``, which works in ``folder``, to a good end; however this function ends, the worker has ended too.

    Raises:
      CompileError: it failed, crashed, or was still running after ``timeout_s`` seconds.
    """
    stderr_path = folder / "stderr.txt"
    with open(stderr_path, "wb") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # never written to: its end tells the worker that this process is gone
            stdout=stderr,
            stderr=stderr,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,  # a group of its own, so that its assembler processes end with it
        )
    try:
        status = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise CompileError(
            f"compiling for {device} was not done after {timeout_s:g} s",
            hint="give it more time, or a smaller program" + _tail(stderr_path),
        ) from None
    finally:
        _end(process)
    if not (folder / gpu_worker.RESULT).exists():
        raise _failure(folder, stderr_path, device, status)


def _failure(folder: Path, stderr_path: Path, device: str, status: int) -> CompileError:
    reason = folder / gpu_worker.FAILURE
    if reason.exists():
        return CompileError(f"could not compile for {device}: {reason.read_text(errors='replace').strip()}")
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return CompileError(f"the process compiling for {device} {how}", hint="its last words:" + _tail(stderr_path))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin:
        process.stdin.close()


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()[-_STDERR_LINES:]
    return "".join(f"\n    {line}" for line in lines) or " none"


def _environment(folder: Path) -> dict[str, str]:
    """The worker's environment: the caller's, less the settings of JAX and XLA, which are for the caller's platform."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))}
    path = os.environ.get("PATH", os.defpath)
    if cuda_folder := _wheel_cuda_folder():
        # The wheel's assembler before the system's, which may be too new for old devices or too old for new ones.
        path = f"{cuda_folder / 'bin'}{os.pathsep}{path}"
    return {
        **kept,
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # there is no driver whose version could be checked
        "JAX_PLATFORMS": "cuda,cpu",
        "JAX_ENABLE_X64": "1",  # the artifact's own types decide
        "CUDA_VISIBLE_DEVICES": "",  # the same result where a GPU happens to be present
        "TF_CPP_MIN_LOG_LEVEL": "1",
        "PATH": path,
        "TMPDIR": str(folder),  # what the assembler leaves behind goes with the folder
    }


def _read(artifact: bytes) -> export.Exported:
    try:
        exported = export.deserialize(bytearray(artifact))
    except Exception as error:  # flatbuffers and jax.export have no error class of their own for foreign bytes
        raise UsageError(
            f"the artifact cannot be read: {error}", hint="pass what Exported.serialize() returned"
        ) from error
    if "cuda" not in exported.platforms:
        raise UsageError(
            f"the artifact is for {', '.join(exported.platforms)}, not for cuda",
            hint='export it with platforms=["cuda"]',
        )
    if exported.nr_devices != 1:
        raise UsageError(f"the artifact is for {exported.nr_devices} devices; only one can be compiled for")
    return exported


def _concrete_shapes(exported: export.Exported, shapes: Sequence[Sequence[int]] | None) -> tuple[tuple[int, ...], ...]:
    declared = [tuple(aval.shape) for aval in exported.in_avals]
    given = declared if shapes is None else [tuple(shape) for shape in shapes]
    if len(given) != len(declared):
        raise UsageError(f"the artifact has {len(declared)} inputs, but {len(given)} shapes were given")
    for position, (shape, declaration) in enumerate(zip(given, declared, strict=True)):
        fits = len(shape) == len(declaration) and all(
            size == dim or export.is_symbolic_dim(dim) for size, dim in zip(shape, declaration, strict=True)
        )
        if not fits:
            raise UsageError(f"input {position} has shape {declaration}, which {shape} does not fit")
        if any(export.is_symbolic_dim(size) for size in shape):
            raise UsageError(
                f"input {position} has the symbolic shape {declaration}; a GPU executable is compiled for one size",
                hint="give a concrete shape for every input",
            )
    return tuple(given)


def _checked_positions(donated: Sequence[int], count: int) -> tuple[int, ...]:
    for position in donated:
        if not 0 <= position < count:
            raise UsageError(f"input {position} cannot be donated: the artifact has {count} inputs")
    return tuple(sorted(set(donated)))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is not there
        return False


def _wheel_cuda_folder() -> Path | None:
    """The folder of the wheel that brings ptxas and libdevice, if it is installed."""
    try:
        spec = importlib.util.find_spec("nvidia.cuda_nvcc")
    except ModuleNotFoundError:
        return None
    for location in (spec.submodule_search_locations or []) if spec else []:
        if Path(location, "bin", "ptxas").exists():
            return Path(location)
    return None


def _system_ptxas() -> bool:
    return shutil.which("ptxas") is not None or Path("/usr/local/cuda/bin/ptxas").exists()
