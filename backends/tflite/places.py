"""Where a file would not run: the operation sets of small accelerators and microcontrollers.

Transcripts of published facts: the table of operations and the requirements in Coral's "TensorFlow models on the Edge
TPU" (https://coral.ai/docs/edgetpu/models-intro), and the operators that TFLite Micro's resolver can register
(``micro_mutable_op_resolver.h`` of https://github.com/tensorflow/tflite-micro).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import flatbuffer

Check = Callable[[Any, Any, Any], str | None]
"""Given model, subgraph and operator: why it does not run there, or None."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Operations that would not run in a place, for one reason.

    Attributes:
      operation: the builtin operator; empty for what concerns the whole file.
      reason: why not.
      count: how many operations it is true of.
      first: name of the output of the first one.
    """

    operation: str
    reason: str
    count: int
    first: str


@dataclasses.dataclass(frozen=True)
class PlaceReport:
    """Whether a file runs in a place.

    Attributes:
      place: what it was checked for.
      title: the place, in words.
      findings: what would not run, and why; empty when all would.
    """

    place: str
    title: str
    findings: tuple[Finding, ...]

    @property
    def runs(self) -> bool:
        """Whether all of it would run there."""
        return not self.findings

    def data(self) -> dict[str, Any]:
        """JSON-able."""
        return {"place": self.place, "runs": self.runs, "findings": [dataclasses.asdict(f) for f in self.findings]}

    def __rich__(self) -> Any:
        """A sentence, or a table."""
        from rich.table import Table

        if self.runs:
            return f"all of it runs on {self.title}"
        table = Table(title=f"would not run on {self.title}", title_justify="left")
        for heading in ("operation", "count", "first", "reason"):
            table.add_column(heading, justify="right" if heading == "count" else "left")
        for found in self.findings:
            table.add_row(found.operation or "(the file)", str(found.count), found.first, found.reason)
        return table


def check_for(model: bytes, place: str) -> PlaceReport:
    """What of a file would not run in ``place``, a key of `PLACES`."""
    title, check = PLACES[place]
    read = flatbuffer.read(model)
    found: dict[tuple[str, str], list[str]] = {}
    for subgraph, operator in flatbuffer.operators(read):
        reason = check(read, subgraph, operator)
        if reason is not None:
            key = flatbuffer.operator_name(read, operator), reason
            found.setdefault(key, []).append(_text(subgraph.tensors[operator.outputs[0]].name))
    findings = [Finding(name, reason, len(outputs), outputs[0]) for (name, reason), outputs in found.items()]
    return PlaceReport(place, title, tuple(findings))


def _text(name: bytes | str | None) -> str:
    return name.decode() if isinstance(name, bytes) else name or ""


# -- Edge TPU ----------------------------------------------------------------------------------------------------------


def _no_activation(model: Any, subgraph: Any, operator: Any) -> str | None:
    fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
    return "it has a fused activation" if fused else None


def _unit_strides(model: Any, subgraph: Any, operator: Any) -> str | None:
    strides = flatbuffer.data_of(model, subgraph.tensors[operator.inputs[3]])
    return None if strides is not None and np.all(strides == 1) else "its strides are not all 1"


def _not_over_batch(model: Any, subgraph: Any, operator: Any) -> str | None:
    axes = flatbuffer.data_of(model, subgraph.tensors[operator.inputs[1]])
    if axes is None:
        return "its axes are not constant"
    return "it reduces over the batch" if 0 in axes.reshape(-1) else None


def _short_softmax(model: Any, subgraph: Any, operator: Any) -> str | None:
    shape = subgraph.tensors[operator.inputs[0]].shape
    elements = 1 if shape is None else int(np.prod(shape))
    return None if elements <= 16_000 else "its input has more than 16000 elements"


_EDGETPU: Mapping[str, Check | None] = {
    **dict.fromkeys(
        (
            *("ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS", "FULLY_CONNECTED", "L2_NORMALIZATION", "LOGISTIC"),
            *("UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "MAXIMUM", "MINIMUM", "MUL", "PACK", "PAD", "PRELU", "QUANTIZE"),
            *("RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT"),
            *("SLICE", "SPACE_TO_DEPTH", "SPLIT", "SQUEEZE", "SUB", "SQUARED_DIFFERENCE", "TANH", "TRANSPOSE"),
            *("TRANSPOSE_CONV", "DEQUANTIZE"),
        )
    ),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION"), _no_activation),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _not_over_batch),
    "STRIDED_SLICE": _unit_strides,
    "SOFTMAX": _short_softmax,
}
"""The operators of the Edge TPU, and what is known of their limits. (De)quantization at the edges runs on the CPU."""

_EDGETPU_TYPES = frozenset({"INT8", "UINT8"})
_EDGETPU_RANK = 3
"""Only so many innermost dimensions may be larger than 1."""


def _edgetpu(model: Any, subgraph: Any, operator: Any) -> str | None:
    name = flatbuffer.operator_name(model, operator)
    if name not in _EDGETPU:
        return "the Edge TPU has no such operation; this and all that follows would run on the CPU"
    if name in ("QUANTIZE", "DEQUANTIZE"):
        return None
    for index in (*operator.inputs, *operator.outputs):
        tensor = subgraph.tensors[index] if index >= 0 else None
        if tensor is None:
            continue
        if tensor.shapeSignature is not None and -1 in tensor.shapeSignature:
            return "its sizes are dynamic"
        is_constant = model.buffers[tensor.buffer].data is not None
        if not is_constant and flatbuffer.type_name(tensor) not in _EDGETPU_TYPES:
            return f"it works on {flatbuffer.type_name(tensor)}, and the Edge TPU on 8-bit integers only"
        outer = [] if tensor.shape is None else list(tensor.shape)[:-_EDGETPU_RANK]
        if not is_constant and any(size > 1 for size in outer):
            return "a dimension outside of the innermost three is larger than 1"
    check = _EDGETPU[name]
    return check(model, subgraph, operator) if check is not None else None


# -- microcontrollers --------------------------------------------------------------------------------------------------

_MICRO = (
    "ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS "
    "BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE "
    "DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD "
    "FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS "
    "LESS_EQUAL LOG LOG_SOFTMAX LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM "
    "MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_MAX REDUCE_MIN RELU RELU6 "
    "RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX "
    "SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF "
    "TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE"
)
"""The operators of TFLite Micro."""


def _micro(model: Any, subgraph: Any, operator: Any) -> str | None:
    name = flatbuffer.operator_name(model, operator)
    if name not in _MICRO.split():
        return "TFLite Micro has no such operation"
    for index in operator.outputs:
        signature = subgraph.tensors[index].shapeSignature
        if signature is not None and -1 in signature:
            return "its sizes are dynamic, and TFLite Micro plans memory once"
    return None


PLACES: Mapping[str, tuple[str, Check]] = {
    "edgetpu": ("a Coral Edge TPU", _edgetpu),
    "micro": ("TFLite Micro", _micro),
}
"""What can be checked for: by name, the place in words and the check of one operator."""
