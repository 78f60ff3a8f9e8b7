"""What the ONNX backend makes: a model, checked before it is written."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import onnx_ir as ir

from ...core.backend import Artifact, Description
from ...core.errors import UsageError
from ...core.files import write_atomically
from ...core.kernel_report import KernelReport
from ...core.program import Program
from . import check, integer, runtime, serialization


class OnnxArtifact(Artifact):
    """An ONNX model of a program."""

    suffix: ClassVar[str] = ".onnx"

    def __init__(
        self,
        program: Program,
        model: ir.Model,
        *,
        verify: bool = True,
        external_data: str = "auto",
        limit_s: float | None = None,
    ) -> None:
        self.program = program
        self.model = model
        self.verify = verify
        self.limit_s = limit_s
        self.external_data = external_data

    @functools.cached_property
    def weight_bytes(self) -> int:
        """Size of all initializers."""
        return sum(v.const_value.nbytes for v in self.model.graph.initializers.values() if v.const_value is not None)

    @property
    def is_external(self) -> bool:
        """Whether weights go to a file of their own: asked for, or beyond what protobuf can hold."""
        return self.external_data == "always" or (
            self.external_data == "auto" and self.weight_bytes > runtime.PROTOBUF_LIMIT
        )

    @property
    def serialized(self) -> bytes:
        """The whole model as one protobuf message."""
        return b"".join(self._parts())

    def _parts(self) -> Iterator[bytes | memoryview]:
        if self.weight_bytes > runtime.PROTOBUF_LIMIT:
            raise UsageError(
                f"the weights take {self.weight_bytes} bytes, more than one protobuf message can hold",
                hint="save with external-data=auto",
            )
        return serialization.parts(*serialization.split(self.model))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Checks the model, then writes it, and beside it ``PATH.data`` when the weights go to a file of their own."""
        if self.verify:
            self.verification  # noqa: B018 - computed once, raises when the model is wrong
        if not self.is_external:
            message = self._parts()
            write_atomically(path, lambda file: file.writelines(message))
            return
        target = Path(path)
        with tempfile.TemporaryDirectory(dir=target.parent if target.parent.is_dir() else None) as folder:
            part = Path(folder) / target.name
            ir.save(self.model, part, external_data=f"{target.name}.data")
            weights = target.with_name(f"{target.name}.data")
            os.replace(Path(folder) / weights.name, weights)
            try:
                write_atomically(target, part.read_bytes())
            except BaseException:  # an interrupt, too, leaves nothing
                weights.unlink()
                raise

    @staticmethod
    def load(path: str | os.PathLike[str], providers: Sequence[str] = ()) -> Any:
        """The ``onnxruntime.InferenceSession`` of a saved file."""
        return runtime.load_session(path, providers)

    def executable(self, providers: Sequence[str] = (), threads: int = 0, **options: Any) -> runtime.OnnxExecutable:
        """The model in ONNX Runtime.

        Args:
          providers: execution providers by name, the preferred first; default the CPU.
          threads: threads of an operator; 0 lets the runtime choose.
          options: none; others are an error.
        """
        if options:
            raise UsageError(f"the onnx executable has no option {min(options)!r}")
        if self.weight_bytes <= runtime.PROTOBUF_LIMIT:
            proto, weights = serialization.split(self.model)
            message = b"".join(serialization.parts(runtime.session_model(proto), weights))
            return runtime.OnnxExecutable(self.program, message, providers, threads)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            ir.save(self.model, path, external_data="model.onnx.data")
            return runtime.OnnxExecutable(self.program, str(path), providers, threads)

    @functools.cached_property
    def verification(self) -> str:
        """Checks the model and says what was found; raises `CompileError` when it is wrong."""
        check.check_structure(self.model)
        agreement = check.check_results(self.program, lambda flat: self.executable().run_flat(flat, self.limit_s))
        if agreement is None:
            why = "no example inputs, numbers that no two runs share, or symbolic sizes that JAX itself cannot run"
            return f"The ONNX checker passes; not run against JAX: {why}."
        return f"The ONNX checker passes; {agreement}."

    def notes(self) -> Sequence[str]:
        """What the checks found."""
        return (self.verification,) if self.verify else ("The model was not checked.",)

    @functools.cached_property
    def kernels(self) -> KernelReport:
        """Which products ONNX Runtime computes in integers."""
        return integer.kernel_report(self)

    def description(self) -> Description | None:
        """The kernels of a quantized model."""
        return self.kernels if integer.is_quantized(self) else None

    def stage(self, name: str) -> str:
        """The text of ``jaxpr`` or ``onnx``."""
        if name == "jaxpr":
            return f"{self.program.jaxpr}\n"
        if name == "onnx":
            return f"{self.model.graph}\n"
        raise UsageError(f"there is no stage {name!r} for ONNX", hint="one of: jaxpr, onnx")
