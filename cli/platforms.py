"""Which platforms JAX is told to look for, before it starts."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pkgutil

CUDA_DRIVER = "libcuda.so.1"
"""What every program that uses an NVIDIA GPU loads; it comes with the driver."""


def leave_out_missing_gpu() -> None:
    """Tells JAX of a machine without an NVIDIA driver not to look for one, unless the user has said what to look for.

    The extra ``gpu-aot`` brings JAX's plugin for CUDA, which says at length on such a machine, at every start, that it
    finds no GPU.
    """
    if "JAX_PLATFORMS" not in os.environ and _has_cuda_plugin_only() and not _has_cuda_driver():
        os.environ["JAX_PLATFORMS"] = "cpu"


def _has_cuda_plugin_only() -> bool:
    spec = importlib.util.find_spec("jax_plugins")
    if spec is None or importlib.util.find_spec("libtpu") is not None:
        return False
    names = [module.name for module in pkgutil.iter_modules(spec.submodule_search_locations)]
    return bool(names) and all(name.startswith("xla_cuda") for name in names)


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return False
    return True
