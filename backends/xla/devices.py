"""GPUs by name, described well enough for XLA to compile for one that is not there.

The figures are NVIDIA's: what depends on the compute capability comes from the table of technical specifications in
the CUDA C++ Programming Guide, the rest from the architecture whitepapers and data sheets (boost clock), memory as
drivers report it. XLA reads them to pick tile sizes, to estimate costs and to refuse what does not fit; they are no
promise about one card in one rack.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ...core.errors import UsageError

# The oldest cuDNN that JAX 0.10's CUDA wheels accept, so that what is compiled runs wherever JAX runs.
CUDNN_VERSION = (9, 8)

_GIB = 1 << 30
_MIB = 1 << 20
_KIB = 1 << 10


@dataclass(frozen=True)
class Architecture:
    """What all devices of one compute capability share.

    Attributes:
      compute_capability: (major, minor).
      fpus_per_core: float32 units in a streaming multiprocessor.
      threads_per_core: the most threads resident on a multiprocessor.
      shared_memory_per_core: bytes per multiprocessor.
      shared_memory_per_block: bytes that one block can get when it opts in.
      accelerated: whether XLA targets the architecture-specific instructions (``sm_90a``: warp-group MMA, for one).
    """

    compute_capability: tuple[int, int]
    fpus_per_core: int
    threads_per_core: int
    shared_memory_per_core: int
    shared_memory_per_block: int
    accelerated: bool = False


@dataclass(frozen=True)
class GPUDevice:
    """One model of GPU.

    Attributes:
      name: the name users type.
      description: the name the driver reports.
      architecture: what it shares with its generation.
      core_count: streaming multiprocessors.
      clock_ghz: boost clock.
      memory_gib: memory that a program sees, a little less than the label says.
      memory_gb_per_s: memory bandwidth, in 10^9 bytes per second.
      l2_cache_mib: second-level cache.
    """

    name: str
    description: str
    architecture: Architecture
    core_count: int
    clock_ghz: float
    memory_gib: float
    memory_gb_per_s: float
    l2_cache_mib: float


_VOLTA = Architecture((7, 0), 64, 2048, 96 * _KIB, 96 * _KIB)
_TURING = Architecture((7, 5), 64, 1024, 64 * _KIB, 64 * _KIB)
_AMPERE = Architecture((8, 0), 64, 2048, 164 * _KIB, 163 * _KIB)
_AMPERE_SMALL = Architecture((8, 6), 128, 1536, 100 * _KIB, 99 * _KIB)
_ADA = Architecture((8, 9), 128, 1536, 100 * _KIB, 99 * _KIB)
_HOPPER = Architecture((9, 0), 128, 2048, 228 * _KIB, 227 * _KIB, accelerated=True)
_BLACKWELL = Architecture((10, 0), 128, 2048, 228 * _KIB, 227 * _KIB, accelerated=True)
_BLACKWELL_SMALL = Architecture((12, 0), 128, 1536, 100 * _KIB, 99 * _KIB)

DEVICES: dict[str, GPUDevice] = {
    device.name: device
    for device in (
        GPUDevice("v100", "Tesla V100-SXM2-16GB", _VOLTA, 80, 1.53, 15.8, 898, 6),
        GPUDevice("t4", "Tesla T4", _TURING, 40, 1.59, 14.7, 320, 4),
        GPUDevice("a100", "NVIDIA A100-SXM4-40GB", _AMPERE, 108, 1.41, 39.4, 1555, 40),
        GPUDevice("a100-80gb", "NVIDIA A100-SXM4-80GB", _AMPERE, 108, 1.41, 79.2, 2039, 40),
        GPUDevice("a10g", "NVIDIA A10G", _AMPERE_SMALL, 80, 1.71, 22.0, 600, 6),
        GPUDevice("rtx3090", "NVIDIA GeForce RTX 3090", _AMPERE_SMALL, 82, 1.695, 23.7, 936, 6),
        GPUDevice("l4", "NVIDIA L4", _ADA, 58, 2.04, 22.0, 300, 48),
        GPUDevice("l40s", "NVIDIA L40S", _ADA, 142, 2.52, 44.4, 864, 96),
        GPUDevice("rtx4090", "NVIDIA GeForce RTX 4090", _ADA, 128, 2.52, 23.6, 1008, 72),
        GPUDevice("h100", "NVIDIA H100 80GB HBM3", _HOPPER, 132, 1.98, 79.1, 3352, 50),
        GPUDevice("h100-pcie", "NVIDIA H100 PCIe", _HOPPER, 114, 1.755, 79.1, 2039, 50),
        GPUDevice("h200", "NVIDIA H200", _HOPPER, 132, 1.98, 140.0, 4800, 50),
        GPUDevice("b200", "NVIDIA B200", _BLACKWELL, 148, 1.965, 178.0, 7672, 126.5),
        GPUDevice("rtx5090", "NVIDIA GeForce RTX 5090", _BLACKWELL_SMALL, 170, 2.407, 31.3, 1792, 96),
    )
}


def find_device(name: str) -> GPUDevice:
    """Returns the device of that name; upper case, spaces and underscores are forgiven.

    Raises:
      UsageError: no such device; the message suggests the nearest names and lists all.
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    if key in DEVICES:
        return DEVICES[key]
    near = difflib.get_close_matches(key, DEVICES, n=2)
    suggestion = f"did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(f"there is no GPU device {name!r}", hint=f"{suggestion}known devices: {', '.join(DEVICES)}")


def target_config(device: GPUDevice) -> str:
    """Returns XLA's ``GpuTargetConfigProto`` (``device_description.proto``) for ``device``, in protobuf's text form."""
    architecture = device.architecture
    major, minor = architecture.compute_capability
    extension = "ACCELERATED_FEATURES" if architecture.accelerated else "NONE"
    cudnn_major, cudnn_minor = CUDNN_VERSION
    return f"""\
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {48 * _KIB}
  shared_memory_per_core: {architecture.shared_memory_per_core}
  threads_per_core_limit: {architecture.threads_per_core}
  core_count: {device.core_count}
  fpus_per_core: {architecture.fpus_per_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {round(device.memory_gb_per_s * 1e9)}
  l2_cache_size: {round(device.l2_cache_mib * _MIB)}
  clock_rate_ghz: {device.clock_ghz}
  device_memory_size: {round(device.memory_gib * _GIB)}
  shared_memory_per_block_optin: {architecture.shared_memory_per_block}
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {extension} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: {cudnn_major} minor: {cudnn_minor} }}
device_description_str: "{device.description}"
"""
