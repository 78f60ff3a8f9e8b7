"""Checks of a model before it is written: the ONNX checker, shape inference, and a run against JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from jax.extend import core as jex_core

from ...core.errors import CompileError
from ...core.instruments.rounding import is_rounding, moved_by_rounding
from ...core.program import Program
from .operand import is_complex, is_key, stored_array
from .serialization import split

#: Initializers above this size are left out of the checker's copy: their types are all it looks at.
_HEAVY = 1024

#: Primitives whose values no two runs share, so that there is nothing to compare.
_HIDDEN_STATE = frozenset({"rng_uniform"})

#: Relative tolerance of the run against JAX, by the number of significand bits; absolute errors are scaled by the
#: largest magnitude of the output. Both runtimes reorder sums, so that a few hundred roundings are normal.
_TOLERANCES = {52: 1e-9, 23: 1e-3, 10: 2e-2, 7: 5e-2}


#: Of what is tolerated, the part that two XLA programs may differ by.
XLA_SHARE = 1 / 20


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far ONNX Runtime's outputs are from JAX's on the example inputs.

    Attributes:
      worst: largest error over the outputs, as a fraction of what is tolerated.
      absolute: largest absolute error.
    """

    worst: float
    absolute: float

    def __str__(self) -> str:
        return f"ONNX Runtime agrees with JAX on the example inputs: largest error {self.absolute:.3g}"


def check_structure(model: ir.Model) -> None:
    """Runs the ONNX checker and strict shape inference, which compares every type with the program's.

    Raises:
      CompileError: the model is not valid; that is an error of this backend, not of the user.
    """
    proto = _light_copy(model)
    try:
        onnx.checker.check_model(proto)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CompileError(
            f"the exported model does not pass the ONNX checker: {error}",
            hint="this is a defect of the onnx backend; please report it with the program",
        ) from error


def _light_copy(model: ir.Model) -> onnx.ModelProto:
    """The model as a proto in which large weights are graph inputs."""
    proto, weights = split(model, _HEAVY)
    for name, tensor in weights.items():
        shape = [int(d) for d in tensor.shape.numpy()]
        proto.graph.input.append(onnx.helper.make_tensor_value_info(name, int(tensor.dtype), shape))
    return proto


def check_results(program: Program, run: Any) -> Agreement | None:
    """Compares a run on the program's example inputs with JAX; None when it has none, or draws from a hidden state.

    Args:
      program: what was exported.
      run: ``run(flat_inputs) -> flat outputs`` under ONNX Runtime.

    Raises:
      CompileError: an output differs beyond rounding.
    """
    if program.examples is None or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return None
    equations = list(_equations(program.jaxpr.jaxpr))
    if any(eqn.primitive.name in _HIDDEN_STATE for eqn in equations):
        return None
    bits = [_precision(v.aval) for eqn in equations for v in eqn.outvars]
    try:
        expected = program.evaluate_flat(program.examples)
    except NotImplementedError:  # of symbolic dimensions JAX traces more than it runs: convolutions of as many groups
        if not program.is_symbolic:
            raise
        return None
    got = run(program.examples)
    if any(eqn.primitive.name == "composite" and eqn.params["name"] in _QUANTIZERS for eqn in equations):
        return _compare_quantized(program, expected, got)
    precision = min(bits, default=52)
    try:
        return compare(expected, got, program.output_names, precision)
    except CompileError:
        return _compare_as_rounded(program, expected, got, precision)


def _compare_as_rounded(program: Program, expected: Sequence[Any], got: Sequence[Any], precision: int) -> Agreement:
    """As `compare`, for programs whose results roundings move further than that: training steps with ReLUs."""

    def differs(a: Any, b: Any) -> bool:
        return _share(a, b, "", precision)[0] > XLA_SHARE

    moved = moved_by_rounding(program, program.examples or (), expected, differs, 1 / XLA_SHARE)
    worst, absolute = 0.0, 0.0
    for index, (want, have, name) in enumerate(zip(expected, got, program.output_names, strict=True)):
        share, error = _share(want, have, name, precision)
        if share > 1 and not (moved and is_rounding(*map(np.asarray, (want, have, moved[index])))):
            raise _disagreement(name, f"largest error {error:.3g} where values reach {_scale(want):.3g}")
        worst, absolute = max(worst, min(share, 1.0)), max(absolute, error)
    return Agreement(worst, absolute)


_QUANTIZERS = frozenset({"xlapass.quantize", "xlapass.dynamic_dot"})
_QUANTIZED_TOLERANCE = 0.05
"""Relative L2 difference that is always allowed between a quantized model and its simulation."""


def _compare_quantized(program: Program, expected: Sequence[Any], got: Sequence[Any]) -> Agreement:
    """As `compare`, for programs whose values are rounded to steps: one number that falls on the other side of a half
    is a whole step. So the model must be as near to the simulation as that is to the program before it was quantized.
    """
    floats = expected
    if program.traced is not None and program.traced.examples is not None:
        floats = program.traced.evaluate_flat(program.traced.examples)
    worst, absolute = 0.0, 0.0
    for want, have, exact, name in zip(expected, got, floats, program.output_names, strict=True):
        a, b, c = (np.asarray(v) for v in (want, have, exact))
        if a.dtype.kind != "f" or a.size == 0 or a.shape != c.shape:
            continue
        error = float(np.linalg.norm(b.astype(np.float64) - a))
        allowed = max(_QUANTIZED_TOLERANCE * float(np.linalg.norm(a)), float(np.linalg.norm(a - c)))
        if not error <= allowed:
            raise _disagreement(name, f"it differs by {error:.3g} where quantization explains {allowed:.3g}")
        worst = max(worst, error / max(allowed, 1e-30))
        absolute = max(absolute, float(np.abs(b - a).max()))
    return Agreement(worst, absolute)


def _equations(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        yield eqn
        for body in jex_core.jaxprs_in_params(eqn.params):
            yield from _equations(body)


def _precision(aval: Any) -> int:
    """Significand bits of a type; those of double for what is not rounded."""
    dtype = getattr(aval, "dtype", None)
    if dtype is None or not jax.numpy.issubdtype(dtype, np.inexact):
        return 52
    return int(jax.numpy.finfo(dtype).nmant)


def compare(expected: Sequence[Any], got: Sequence[Any], names: Sequence[str], precision: int = 52) -> Agreement:
    """The agreement of two lists of outputs; raises `CompileError` naming the first that differs too much.

    Args:
      expected: JAX's outputs.
      got: the runtime's.
      names: of the outputs.
      precision: significand bits of the narrowest type that the values went through.
    """
    worst, absolute = 0.0, 0.0
    for want, have, name in zip(expected, got, names, strict=True):
        share, error = _share(want, have, name, precision)
        if share > 1:
            raise _disagreement(name, f"largest error {error:.3g} where values reach {_scale(want):.3g}")
        worst, absolute = max(worst, share), max(absolute, error)
    return Agreement(worst, absolute)


def _share(want: Any, have: Any, name: str, precision: int) -> tuple[float, float]:
    """The error as a fraction of what is tolerated, and the largest absolute error; raises for what is no rounding."""
    a, b = (stored_array(v if is_key(v.dtype) else np.asarray(v)) for v in (want, have))
    if a.shape != b.shape or a.dtype != b.dtype:
        raise _disagreement(name, f"{b.dtype}{list(b.shape)} where JAX gives {a.dtype}{list(a.shape)}")
    if a.size == 0:
        return 0.0, 0.0
    if a.dtype.kind in "biu":
        if not np.array_equal(a, b):
            raise _disagreement(name, f"{int((a != b).sum())} of {a.size} values differ")
        return 0.0, 0.0
    bits = min(ml_dtypes.finfo(a.dtype).nmant, precision)
    tolerance = next((t for b_, t in _TOLERANCES.items() if bits >= b_), 0.3)
    x, y = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(x)
    same = np.where(finite, np.isfinite(y), (x == y) | (np.isnan(x) & np.isnan(y)))
    if not same.all():
        raise _disagreement(name, f"{int((~same).sum())} of {a.size} values are infinite or NaN on one side only")
    if not finite.any():
        return 0.0, 0.0
    error = np.abs(x[finite] - y[finite])
    share = float((error / (tolerance * 0.1 * _scale(want) + tolerance * np.abs(x[finite]))).max())
    return share, float(error.max())


def _scale(want: Any) -> float:
    """The largest magnitude of an output, if it is more than 1."""
    magnitudes = np.abs(np.asarray(want).astype(np.complex128))
    return max(1.0, float(np.max(magnitudes[np.isfinite(magnitudes)], initial=0.0)))


def _disagreement(name: str, what: str) -> CompileError:
    return CompileError(
        f"under ONNX Runtime the output {name!r} is not what JAX computes: {what}",
        hint="this is a defect of the onnx backend or of the runtime; --no-verify writes the file all the same",
    )


def complex_output(array: np.ndarray[Any, Any], dtype: Any) -> Any:
    """An output as ONNX stores it, back in its JAX dtype."""
    if is_key(dtype):
        return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=dtype._impl.name)
    if is_complex(dtype):
        return (array[..., 0] + 1j * array[..., 1]).astype(dtype)
    return array
