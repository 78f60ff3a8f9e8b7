"""xlapass: a plugin-based compiler-pass framework for JAX.

    fast = xlapass.jit(model)                           # in place of jax.jit
    program = xlapass.trace(model, x)                   # a Program
    program = xlapass.PassManager("inline,simplify").run(program)
    artifact = xlapass.compile(model, x, pipeline="cpu")
    xlapass.compile(model, x, pipeline="gpu").save("model.jax_export")

Names are imported when first used, so that ``import xlapass`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.backend import Artifact as Artifact
    from .core.backend import Backend as Backend
    from .core.backend import Executable as Executable
    from .core.backend import Legality as Legality
    from .core.backend import LegalityTable as LegalityTable
    from .core.compile_options import CompileOptions as CompileOptions
    from .core.composites import Composite as Composite
    from .core.composites import Kernel as Kernel
    from .core.driver import compile as compile
    from .core.driver import plan as plan
    from .core.errors import CompileError as CompileError
    from .core.errors import MissingDependencyError as MissingDependencyError
    from .core.errors import PassError as PassError
    from .core.errors import UnsupportedError as UnsupportedError
    from .core.errors import UsageError as UsageError
    from .core.errors import VerificationError as VerificationError
    from .core.errors import XlapassError as XlapassError
    from .core.graph import Graph as Graph
    from .core.instruments.numerics import NumericalVerifier as NumericalVerifier
    from .core.instruments.report import Report as Report
    from .core.instruments.structure import StructuralVerifier as StructuralVerifier
    from .core.jit import jit as jit
    from .core.manager import Instrument as Instrument
    from .core.manager import PassEvent as PassEvent
    from .core.manager import PassManager as PassManager
    from .core.node import Node as Node
    from .core.node import Value as Value
    from .core.pass_ import GraphPass as GraphPass
    from .core.pass_ import Pass as Pass
    from .core.pass_ import PassContext as PassContext
    from .core.pass_ import PassResult as PassResult
    from .core.pass_ import RewritePass as RewritePass
    from .core.pass_ import StableHLOPass as StableHLOPass
    from .core.patterns import const as const
    from .core.patterns import number as number
    from .core.patterns import op as op
    from .core.patterns import scalar as scalar
    from .core.patterns import var as var
    from .core.pipeline import Pipeline as Pipeline
    from .core.plugins import Entry as Entry
    from .core.plugins import NamedPipeline as NamedPipeline
    from .core.plugins import PhasePasses as PhasePasses
    from .core.plugins import Registry as Registry
    from .core.plugins import hookimpl as hookimpl
    from .core.plugins import load_registry as load_registry
    from .core.program import Program as Program
    from .core.rewrite import Match as Match
    from .core.rewrite import Rule as Rule
    from .core.target import Target as Target
    from .core.tracing import trace as trace

__version__ = "0.1.0"

_HOME = {
    "core.backend": ("Artifact", "Backend", "Executable", "Legality", "LegalityTable"),
    "core.compile_options": ("CompileOptions",),
    "core.composites": ("Composite", "Kernel"),
    "core.driver": ("compile", "plan"),
    "core.errors": (
        "CompileError",
        "MissingDependencyError",
        "PassError",
        "UnsupportedError",
        "UsageError",
        "VerificationError",
        "XlapassError",
    ),
    "core.graph": ("Graph",),
    "core.instruments.numerics": ("NumericalVerifier",),
    "core.instruments.report": ("Report",),
    "core.instruments.structure": ("StructuralVerifier",),
    "core.jit": ("jit",),
    "core.manager": ("Instrument", "PassEvent", "PassManager"),
    "core.node": ("Node", "Value"),
    "core.pass_": ("GraphPass", "Pass", "PassContext", "PassResult", "RewritePass", "StableHLOPass"),
    "core.patterns": ("const", "number", "op", "scalar", "var"),
    "core.pipeline": ("Pipeline",),
    "core.plugins": ("Entry", "NamedPipeline", "PhasePasses", "Registry", "hookimpl", "load_registry"),
    "core.program": ("Program",),
    "core.rewrite": ("Match", "Rule"),
    "core.target": ("Target",),
    "core.tracing": ("trace",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
