"""The ONNX backend: programs to ONNX models."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from ...core.backend import Backend, Legality, LegalityTable
from ...core.errors import MissingDependencyError, UsageError
from ...core.program import Program
from ...core.target import Target

if TYPE_CHECKING:
    from .artifact import OnnxArtifact


@dataclasses.dataclass(frozen=True)
class OnnxBackend(Backend):
    """Write an ONNX file.

    Attributes:
      opset: version of the operator set, 20 to 26; 0 takes 23, or a newer one where the program needs it.
      verify: whether the model is checked, and run against JAX on the example inputs, before it is written.
      timeout: seconds that the run against JAX may take.
      strict_nan: whether max pooling propagates NaN, as XLA does, at the price of three more operators.
      input_names: names of the inputs, in place of those from the argument's structure.
      output_names: names of the outputs.
      integer_kernels: whether it is an error when a product that was quantized is no integer kernel in ONNX Runtime.
      functions: whether repeated modules become functions of the file (with modules that name their scopes, as Flax
        linen's do).
      route: how the program gets there: ``direct``, or by StableHLO, TFLite and tf2onnx, as an independent witness.
      external_data: whether weights go to a file of their own; ``auto`` does so beyond 2 GiB.
    """

    name: ClassVar[str] = "onnx"
    default_target: ClassVar[str] = "onnx"
    stages: ClassVar[tuple[str, ...]] = ("onnx",)

    opset: int = 0
    verify: bool = True
    timeout: float = 300.0
    strict_nan: bool = False
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    integer_kernels: bool = False
    functions: bool = False
    route: Literal["direct", "tf2onnx"] = "direct"
    external_data: Literal["auto", "always", "never"] = "auto"

    def emit(self, program: Program, target: Target) -> OnnxArtifact:
        """Lowers the program; raises `UnsupportedError` that lists every operation without an ONNX form."""
        _require_onnx()
        from .artifact import OnnxArtifact
        from .export import ExportOptions, export

        inputs = _names(self.input_names, program.input_names, "input")
        outputs = _names(self.output_names, program.output_names, "output")
        options = ExportOptions(
            opset=self.opset,
            strict_nan=self.strict_nan,
            metadata={"pipeline": ",".join(program.history)},
            model_name=program.name,
            functions=self.functions,
        )
        if self.route == "tf2onnx":
            from . import second_route

            model = second_route.export(program, inputs, outputs, self.opset)
        else:
            model = export(program.jaxpr, inputs, outputs, options)
        artifact = OnnxArtifact(
            program, model, verify=self.verify, external_data=self.external_data, limit_s=self.timeout
        )
        if self.integer_kernels:
            artifact.kernels.require_integers()
        return artifact

    def legality(self, target: Target) -> LegalityTable:
        """The primitives that are lowered; operations with bodies are opened."""
        _require_onnx()
        from .registry import table

        rows = [Legality(name, lowering=row.kind) for name, row in sorted(table().items()) if row.kind != "refused"]
        return LegalityTable(rows, opened=("composite",))


def _names(given: tuple[str, ...], known: tuple[str, ...], what: str) -> tuple[str, ...]:
    if not given:
        return known
    if len(given) != len(known):
        raise UsageError(
            f"{len(given)} {what} names for {len(known)} {what}s", hint=f"the {what}s are: {', '.join(known)}"
        )
    if len(set(given)) != len(given):
        raise UsageError(f"two {what}s cannot have one name", hint="give every name once")
    return given


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnx_ir  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("the onnx backend", "onnx", error.name or "onnx") from error
