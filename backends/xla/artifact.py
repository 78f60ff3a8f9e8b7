"""What the XLA backend makes: a program with a target, compiled when asked."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from ...core.backend import Artifact, Executable
from ...core.batched import BatchedExecutable, FlatFunction
from ...core.errors import CompileError, MissingDependencyError, UsageError
from ...core.files import write_atomically
from ...core.kernel_report import KernelReport
from ...core.lowering import export, export_with_trees
from ...core.program import Program
from ...core.recompilation import SignatureWatch
from ...core.resident import ResidentFunction, Weights
from ...core.specialize import specialize
from ...core.target import Target
from . import gpu_aot, integer, stages
from .devices import find_device

_WATCH_HINT = "executable(buckets=(1, 8, 32)) compiles for a few sizes only"

LOCAL_GPU = "gpu"
"""Name of the target that stands for this machine's own GPU."""


class XlaArtifact(Artifact):
    """A program for XLA: `save` writes a portable artifact, `executable` compiles for the device at hand."""

    suffix: ClassVar[str] = ".jax_export"

    def __init__(self, program: Program, target: Target, embed: str, compiler_options: stages.CompilerOptions) -> None:
        self.program = program
        self.target = target
        self.embed = embed
        self.compiler_options = dict(compiler_options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes what ``jax.export.deserialize`` reads: the function on its original argument structure."""
        write_atomically(path, self.portable.serialize())

    @functools.cached_property
    def portable(self) -> Any:
        """The `jax.export.Exported` that `save` writes, constants inside."""
        return export_with_trees(self.program, self.target.platform)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Any:
        """The `jax.export.Exported` of a saved artifact; its ``call`` runs it."""
        with open(path, "rb") as file:
            return jax.export.deserialize(bytearray(file.read()))

    def executable(
        self, *, buckets: int | Sequence[int] | None = None, batch: str | None = None, **options: Any
    ) -> XlaExecutable | BatchedExecutable:
        """Compiles for the device at hand.

        Args:
          buckets: sizes of batches to compile for; a batch of any size is then padded or run in parts. Needs a program
            with a symbolic dimension, whose rows are computed apart; see `BatchedExecutable`.
          batch: name of the symbolic dimension that is the batch, where it is not clear.

        Raises:
          UsageError: there is no device of the target's platform; the program cannot be run in buckets.
        """
        if options:
            raise UsageError(f"the xla executable has no option {min(options)!r}")
        if buckets is not None:
            return self._batched((buckets,) if isinstance(buckets, int) else tuple(buckets), batch)
        if batch is not None:
            raise UsageError("batch= says which dimension buckets= is about", hint="give both, or none")
        return self._plain()

    def _plain(self) -> XlaExecutable:
        program = self.program
        if program.is_symbolic:  # JAX evaluates symbolic sizes inside an exported function only
            program = program.replace(exported=self._lowered_portably())
        return XlaExecutable(program, self.device(), self._embedded(), self.compiler_options)

    def _batched(self, buckets: Sequence[int], batch: str | None) -> BatchedExecutable:
        if self.origin is None or self.origin.program.level != "jaxpr":
            raise UsageError("an artifact has buckets when xlapass.compile made it of a traced program")
        if self.program.input_permutations or self.program.output_permutations:
            raise UsageError(
                "an executable with buckets keeps the layout of the interface", hint="leave out io=convert"
            )
        origin, weights = self.origin, Weights()

        def compile_at(sizes: Mapping[str, int]) -> FlatFunction:
            artifact = origin.compile(specialize(origin.program, sizes))
            assert isinstance(artifact, XlaArtifact)
            return XlaExecutable(
                artifact.program, artifact.device(), artifact._embedded(), artifact.compiler_options, weights
            ).run_flat

        return BatchedExecutable(origin.program, compile_at, self.device(), buckets=buckets, batch=batch)

    def device(self) -> jax.Device:
        """The local device of the target's platform."""
        try:
            return jax.devices(self.target.platform)[0]
        except RuntimeError as error:
            raise UsageError(
                f"there is no {self.target.platform} device on this machine to run {self.program.name} on",
                hint="save the artifact and run it where there is one, or compile with --pipeline=cpu",
            ) from error

    @property
    def has_device(self) -> bool:
        """Whether this machine has a device of the target's platform."""
        try:
            return bool(jax.devices(self.target.platform))
        except RuntimeError:
            return False

    @functools.cached_property
    def kernels(self) -> KernelReport:
        """Which products are multiplied as integers."""
        return integer.kernel_report(self.stage("hlo"))

    def description(self) -> KernelReport | None:
        """The products of a program that has some of integers, and how XLA multiplies each."""
        if self.program.exported is not None or not self.has_device:
            return None
        return self.kernels if integer.is_quantized(self.program.jaxpr.jaxpr) else None

    def obstacle(self) -> str | None:
        """Names the platform that is not here."""
        return None if self.has_device else f"this machine has no {self.target.platform} device"

    def _embedded(self) -> list[bool] | None:
        """For each constant, whether it becomes a literal; None leaves the choice to what was measured."""
        choices = {"always": True, "never": False}
        return None if self.embed == "auto" else [choices[self.embed]] * len(self.program.jaxpr.consts)

    def stage(self, name: str) -> str:
        """The text of ``jaxpr``, ``stablehlo``, ``hlo``, ``llvm``, ``asm`` (CPU) or ``ptx`` (GPU)."""
        if name == "jaxpr":
            return f"{self.program.jaxpr}\n"
        if name == "stablehlo":
            return str(self._lowered_portably().mlir_module())
        if self.target.platform == "cuda" and not self.has_device:
            compiled = self.compiled_ahead
            texts = {"hlo": compiled.hlo, "llvm": compiled.llvm, "ptx": compiled.ptx}
            if name not in texts:
                raise UsageError(f"there is no stage {name!r} for a GPU", hint=f"one of: {', '.join(texts)}")
            return texts[name]
        return stages.stage_text(
            self._plain().lowered(),
            name,
            platform=self.target.platform,
            compiler_options=self.compiler_options,
        )

    def _lowered_portably(self) -> Any:
        return self.program.exported or export(self.program, self.target.platform)

    @functools.cached_property
    def compiled_ahead(self) -> gpu_aot.DeviceCompilation:
        """The program compiled for the named GPU without having one; needs the extra ``gpu-aot``."""
        exported = export(self.program, "cuda")
        count = len(self.program.jaxpr.consts)
        donated = [count + i for i, donated in enumerate(self.program.donated) if donated]
        return gpu_aot.compile_for_device(
            exported.serialize(),
            find_device(self.target.name),
            shapes=self._example_shapes(exported),
            donated=donated,
            compiler_options=self.compiler_options,
        )

    def _example_shapes(self, exported: Any) -> list[tuple[int, ...]] | None:
        if not self.program.is_symbolic:
            return None
        if self.program.examples is None:
            raise UsageError(
                "a GPU is compiled for with concrete shapes, and the program has symbolic ones and no example inputs",
                hint="give arrays as example inputs",
            )
        return [tuple(c.shape) for c in self.program.jaxpr.consts] + [jax.numpy.shape(e) for e in self.program.examples]

    def notes(self) -> Sequence[str]:
        """What was not done for lack of a device."""
        if self.target.platform != "cuda" or self.has_device:
            return ()
        if self.target.name == LOCAL_GPU:
            return (
                "not compiled to machine code: this machine has no GPU, and none was named (with --device h100, say). "
                "The portable artifact is complete and compiles where it is loaded.",
            )
        try:
            gpu_aot.require_gpu_aot()
        except MissingDependencyError as error:
            return (
                f"not compiled for {self.target.name}: this machine has no GPU, and {error.message}; {error.hint}. "
                "The portable artifact is complete and compiles where it is loaded.",
            )
        memory = self.compiled_ahead.memory
        return (f"compiled for {self.target.name} without one; not run. Memory: {_summary(memory)}.",)


class XlaExecutable(Executable):
    """A compiled program with its constants on the device.

    Calling it takes and returns the structures that the program was traced with.
    """

    def __init__(
        self,
        program: Program,
        device: jax.Device,
        embed: Sequence[bool] | None,
        options: stages.CompilerOptions,
        weights: Weights | None = None,
    ) -> None:
        self.program = program
        self.device = device
        donated = [i for i, donated in enumerate(program.donated) if donated]
        self._run = ResidentFunction(
            program, embed=embed, device=device, weights=weights, donated=donated, compiler_options=options
        )
        self._watch = SignatureWatch(f"the executable of {program.name}", _WATCH_HINT) if program.is_symbolic else None

    def __call__(self, *args: Any) -> Any:
        """Runs on arguments of the traced structure."""
        flat = self.program.flatten_arguments(args)
        if self._watch is not None:
            shapes = [list(np.shape(value)) for value in flat]
            self._watch.saw(dict(zip(self.program.input_names, map(str, shapes), strict=True)))
        return jax.tree_util.tree_unflatten(self.program.out_tree, self.run_flat(flat))

    def run_flat(self, flat: Sequence[Any]) -> list[Any]:
        """Runs on flat inputs and returns flat outputs; checks nothing."""
        with jax.default_device(self.device), jax.enable_x64(self.program.x64):
            try:
                return self._run(flat)
            except jax.errors.JaxRuntimeError as error:
                if "compile option" in str(error) or "setting option" in str(error):
                    raise UsageError(f"XLA does not take a compiler option: {error}") from error
                raise

    def lowered(self) -> jax.stages.Lowered:
        """The lowered computation at the program's types."""
        if self.program.is_symbolic:
            raise UsageError(
                "this stage needs concrete shapes, and the program has symbolic ones",
                hint="trace it without dynamic=, or emit stablehlo",
            )
        with jax.default_device(self.device), jax.enable_x64(self.program.x64):
            try:
                return self._run.lower(self.program.input_specs())
            except (ValueError, NotImplementedError) as error:
                raise CompileError(
                    f"{self.program.name} cannot be lowered for {self.device.platform}: {error}"
                ) from error


def _summary(memory: Mapping[str, int]) -> str:
    return ", ".join(
        f"{name.removesuffix('_in_bytes')} {size / 2**20:.1f} MiB" for name, size in memory.items() if size
    )
