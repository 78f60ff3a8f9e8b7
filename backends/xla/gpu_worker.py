"""The process in which a GPU program is compiled on a machine that has no GPU; ``gpu_aot`` starts it.

Run as ``python -m xlapass.backends.xla.gpu_worker FOLDER``. It reads ``REQUEST`` and ``EXPORTED`` there and leaves
the compiled program, then ``RESULT`` (the memory analysis: its presence means success), then ``COST`` where XLA has an
analysis; or ``FAILURE`` with a sentence.
It ends, and removes the folder, when its standard input closes: that is how it learns that its parent has died.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax import export
from jax.experimental import serialize_executable, topologies

from ...core.files import write_atomically
from .stages import dump_options, dumped_llvm, dumped_ptx

REQUEST = "request.json"
EXPORTED = "exported.bin"
RESULT = "result.json"
COST = "cost.json"
FAILURE = "failure.txt"
HLO = "optimized.hlo"
LLVM = "kernels.ll"
PTX = "kernels.ptx"
EXECUTABLE = "executable.bin"

# Fields of jax's CompiledMemoryStats that mean something without a host side.
_MEMORY_FIELDS = (
    "argument_size_in_bytes",
    "output_size_in_bytes",
    "alias_size_in_bytes",
    "temp_size_in_bytes",
    "generated_code_size_in_bytes",
)


@dataclass(frozen=True)
class Request:
    """What to compile, and for which device.

    Attributes:
      device: name of the topology.
      target_config: ``GpuTargetConfigProto`` in text form.
      shapes: concrete shape of every flat input.
      donated: positions of flat inputs whose memory the outputs may take.
      compiler_options: per-compilation XLA options.
      kernels: whether to write the kernels' LLVM IR and PTX.
    """

    device: str
    target_config: str
    shapes: tuple[tuple[int, ...], ...]
    donated: tuple[int, ...]
    compiler_options: dict[str, str | bool]
    kernels: bool


def compile_request(request: Request, exported: export.Exported, folder: Path) -> None:
    """Compiles ``exported`` as ``request`` says and writes all results into ``folder``."""
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name=request.device, topology="1x1x1", target_config=request.target_config
    )
    sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])

    def flat_call(*flat: Any) -> list[Any]:
        args, kwargs = jax.tree.unflatten(exported.in_tree, flat)
        return jax.tree.leaves(exported.call(*args, **kwargs))

    flat_call.__name__ = exported.fun_name  # it becomes the module's name
    shaped = [
        jax.ShapeDtypeStruct(shape, aval.dtype, sharding=sharding)
        for shape, aval in zip(request.shapes, exported.in_avals, strict=True)
    ]
    jitted = jax.jit(flat_call, donate_argnums=request.donated, in_shardings=sharding, out_shardings=sharding)
    lowered = jitted.lower(*shaped)
    compiled = lowered.compile(compiler_options=request.compiler_options)
    if request.kernels:
        # A compilation of its own: an executable would remember the folder, and dump into it wherever it is loaded.
        dump = folder / "dump"
        lowered.compile(compiler_options={**request.compiler_options, **dump_options(dump)})
        (folder / LLVM).write_text(dumped_llvm(dump))
        (folder / PTX).write_text(dumped_ptx(dump))
    (folder / HLO).write_text(compiled.as_text() or "")
    (folder / EXECUTABLE).write_bytes(pickle.dumps(serialize_executable.serialize(compiled)))
    stats = compiled.memory_analysis()
    _write_json(folder / RESULT, {name: getattr(stats, name) for name in _MEMORY_FIELDS})
    _write_json(folder / COST, _cost(flat_call, shaped))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content).encode())


def _cost(function: Any, shaped: list[jax.ShapeDtypeStruct]) -> dict[str, float]:
    """XLA's cost analysis of the program as it enters XLA: a device that is not there cannot analyse what leaves.

    It comes last because jaxlib 0.12 aborts the process in it when the artifact has symbolic dimensions.
    """
    avals = [jax.ShapeDtypeStruct(struct.shape, struct.dtype) for struct in shaped]
    lowered = jax.jit(function).trace(*avals).lower(lowering_platforms=("cuda",))
    return dict(lowered.cost_analysis() or {})


def _end_with_parent(folder: Path) -> None:
    # os.read, not sys.stdin: the interpreter must be able to shut down while this thread still waits.
    while os.read(0, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main(folder: Path) -> int:
    """Does what the request in ``folder`` asks; returns the exit status."""
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    fields = json.loads((folder / REQUEST).read_text())
    fields["shapes"] = tuple(tuple(shape) for shape in fields["shapes"])
    request = Request(**{**fields, "donated": tuple(fields["donated"])})
    try:
        compile_request(request, export.deserialize(bytearray((folder / EXPORTED).read_bytes())), folder)
    except Exception as error:  # the parent turns any failure of JAX or XLA into one CompileError
        (folder / FAILURE).write_text(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
