"""The in-tree plugin of XLA: the backend, the targets and the pipelines ``cpu`` and ``gpu``."""

from __future__ import annotations

from collections.abc import Mapping

from ..backends.xla.devices import DEVICES
from ..core.compile_options import CompileOptions
from ..core.plugins import Entry, NamedPipeline, hookimpl
from ..core.target import Target

_CLEAN_UP = "fixpoint{limit=4}(simplify,fold-constants,common-subexpressions,dead-code)"
_PHASES = "phase(simplify),phase(optimize),phase(legalize)"
_GPU = f"inline,{_CLEAN_UP},fold-batch-norm,loop-fission,{_PHASES},{_CLEAN_UP},phase(finish)"
_LAST = "materialize,compile-options,phase(finish)"
_CPU = f"inline,{_CLEAN_UP},fold-batch-norm,loop-fission,layout{{to=nhwc}},fold-constants,{_PHASES},{_CLEAN_UP},{_LAST}"

_FUSION = "xla_cpu_experimental_ynn_fusion_type"
_INDIVIDUAL = "LIBRARY_FUSION_TYPE_INDIVIDUAL"


@hookimpl
def xlapass_passes() -> Mapping[str, Entry]:
    """What knows how XLA makes loops of a program, and the pass that measures options of XLA."""
    return {
        "materialize": Entry("xlapass.passes.materialize:Materialize", "compute once what XLA:CPU would compute again"),
        "compile-options": Entry(
            "xlapass.passes.compile_options:SelectCompileOptions", "XLA options that suit the program, by measurement"
        ),
    }


@hookimpl
def xlapass_compile_options() -> Mapping[str, Entry]:
    """Options of XLA:CPU that make some programs faster and others slower."""
    convolutions, products = f"{_INDIVIDUAL}_CONVOLUTION", f"{_INDIVIDUAL}_DOT"
    kinds = {"convolutions": convolutions, "products": products, "both": f"{convolutions},{products}"}
    return {
        f"library-{name}": Entry(CompileOptions({_FUSION: value}), f"{name} by a library in place of XLA's own code")
        for name, value in kinds.items()
    }


@hookimpl
def xlapass_backends() -> Mapping[str, Entry]:
    """XLA."""
    return {"xla": Entry("xlapass.backends.xla.backend:XlaBackend", "XLA, on the CPU and on NVIDIA GPUs")}


@hookimpl
def xlapass_targets() -> Mapping[str, Entry]:
    """The CPU, and the GPUs that are known by name."""
    targets = {
        "cpu": Entry(Target("cpu", "cpu"), "this machine's CPU"),
        "gpu": Entry(Target("gpu", "cuda"), "this machine's GPU"),
    }
    for name, device in DEVICES.items():
        targets[name] = Entry(Target(name, "cuda"), device.description)
    return targets


@hookimpl
def xlapass_pipelines() -> Mapping[str, NamedPipeline]:
    """The pipelines that end in XLA."""
    return {
        "cpu": NamedPipeline(
            _CPU,
            backend="xla",
            target="cpu",
            summary="inference and training on this machine's CPU",
        ),
        "gpu": NamedPipeline(
            _GPU,
            backend="xla",
            target="gpu",
            summary="NVIDIA GPUs: this machine's, or one named with --device",
        ),
    }
