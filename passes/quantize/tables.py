"""What each runtime turns into integer kernels, and what it needs to see for that: one table for each target.

The facts were measured with ONNX Runtime 1.31, LiteRT 2.3 and XLA of jaxlib 0.10 on a CPU with 8-bit dot products. A
target of another package brings its table as ``Target.properties["quantization"]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ...core.errors import UsageError
from ...core.node import Node
from ...core.options import suggestion
from ...core.target import Target

Scheme = Literal["static", "dynamic", "weight-only"]
Check = Callable[[Node], str | None]

PROPERTY = "quantization"
"""The entry of `Target.properties` that holds a `Table`."""


@dataclasses.dataclass(frozen=True)
class Table:
    """What a runtime has integer kernels for.

    Attributes:
      name: of the target.
      activations: the quantized type of activations.
      convolution, product: given such a node, why it stays float under the static scheme; None where it need not.
      dynamic_convolution, dynamic_product: the same under the dynamic scheme.
      weight_bits: the widths of weights under the weight-only scheme.
      product_output: ``"always"`` where a product is an integer kernel only if its result is quantized; ``"between"``
        where that is wanted only between integer kernels.
      elementwise: the operations beside products that have integer kernels.
      shared_scale: those of which operands and result must have the same scale.
      fixed: operations whose result has a scale and zero point (of int8) that the runtime prescribes.
      quantized_bias: whether biases are written as int32; else as the floats of which the runtime makes these.
      pairs: whether quantizing and dequantizing must stand together, with nothing but one scale between them.
      marks_dynamic: whether dynamic ranges are left to the runtime, which is told of them; else products do it.
      kernel_order: whether the weights of convolutions must be in the order output, input, window.
    """

    name: str
    activations: str = "int8"
    convolution: Check = lambda node: None
    product: Check = lambda node: None
    dynamic_convolution: Check = lambda node: "a convolution has no fast kernel with dynamic ranges"
    dynamic_product: Check = lambda node: None
    weight_bits: tuple[int, ...] = (8, 4)
    product_output: Literal["always", "between"] = "between"
    elementwise: frozenset[str] = frozenset({"add", "mul", "mean", "concatenate"})
    shared_scale: frozenset[str] = frozenset()
    fixed: Mapping[str, tuple[float, int]] = dataclasses.field(default_factory=dict)
    quantized_bias: bool = True
    pairs: bool = False
    marks_dynamic: bool = False
    kernel_order: bool = False

    @property
    def rescales(self) -> bool:
        """Whether one array of integers may be read with two scales."""
        return not self.pairs


def _is_transposed(node: Node) -> bool:
    return any(step != 1 for step in node.params["lhs_dilation"])


def _spatial_rank(node: Node) -> int:
    return len(node.params["window_strides"])


def _onnx_convolution(node: Node) -> str | None:
    if _is_transposed(node):
        return "a transposed convolution has no integer kernel in ONNX Runtime"
    if any(amount < 0 for pair in node.params["padding"] for amount in pair):
        return "negative padding is an operation of its own in ONNX"
    return None if _spatial_rank(node) > 0 else "it has no window"


def _tflite_convolution(node: Node) -> str | None:
    if _spatial_rank(node) > 2:
        return "a convolution of more than two spatial axes has no integer kernel in LiteRT"
    return None if _spatial_rank(node) > 0 else "it has no window"


FEWEST_ROWS = 16
"""XLA:CPU multiplies fewer rows of integers one by one."""


def _few_rows(node: Node) -> str | None:
    size, contracted = 1, node.params["dimension_numbers"][0]
    side = 1 if node.inputs[0].is_const else 0
    for axis, extent in enumerate(node.inputs[side].shape):
        if axis in contracted[side]:
            continue
        if not isinstance(extent, int):
            return "its number of rows is not known"
        size *= extent
    return f"XLA:CPU multiplies {size} rows faster in float" if size < FEWEST_ROWS else None


def _tflite_dynamic_convolution(node: Node) -> str | None:
    if node.params["feature_group_count"] != 1:
        return "LiteRT computes grouped convolutions with dynamic ranges several times slower than in float"
    return _tflite_convolution(node)


SIMULATED = Table("simulated")
"""Quantization simulated in float, as it would be everywhere."""

XLA = Table(
    "xla",
    convolution=lambda node: "XLA:CPU gains nothing from convolutions of integers",
    product=_few_rows,
    dynamic_product=_few_rows,
    elementwise=frozenset(),
)
"""Products of many rows: the rest is faster in float."""

ONNX = Table(
    "onnx",
    activations="uint8",
    convolution=_onnx_convolution,
    kernel_order=True,
)

TFLITE = Table(
    "tflite",
    convolution=_tflite_convolution,
    dynamic_convolution=_tflite_dynamic_convolution,
    weight_bits=(8,),
    product_output="always",
    elementwise=frozenset({"add", "mul", "sub", "mean", "concatenate", "average-pool", "logistic", "tanh", "softmax"}),
    shared_scale=frozenset({"concatenate"}),
    fixed={"softmax": (1 / 256, -128), "logistic": (1 / 256, -128), "tanh": (1 / 128, 0)},
    quantized_bias=False,
    pairs=True,
    marks_dynamic=True,
)

TABLES = {table.name: table for table in (SIMULATED, XLA, ONNX, TFLITE)}
_OF_PLATFORM = {"cpu": XLA, "cuda": XLA, "rocm": XLA, "tpu": XLA, "onnx": ONNX, "tflite": TFLITE}


def table_for(name: str, target: Target | None) -> Table:
    """The table of that name; of ``auto``, that of the target; without a target, the simulation."""
    if name != "auto":
        if name not in TABLES:
            raise UsageError(f"quantize has no table {name!r}", hint=suggestion(name, TABLES))
        return TABLES[name]
    own: Any = None if target is None else target.properties.get(PROPERTY)
    if isinstance(own, Table):
        return own
    return SIMULATED if target is None else _OF_PLATFORM.get(target.platform, SIMULATED)
