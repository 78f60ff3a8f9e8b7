"""Which products ONNX Runtime computes in integers: read back from the graph that it makes of a model."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from ...core.kernel_report import Kernel, KernelReport
from . import runtime

if TYPE_CHECKING:
    from .artifact import OnnxArtifact

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "ConvInteger"})

INTEGER = frozenset(
    {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulInteger",
     "ConvInteger", "MatMulNBits"}
)  # fmt: skip
"""Operators of ONNX Runtime that multiply integers (`MatMulNBits` reads them, and multiplies as it likes)."""

_SUFFIX = re.compile(r"(_token_\d+|_nchwc|/MatMulAddFusion|/MatMulAddFusion/Gemm)+$")
"""What ONNX Runtime appends to the name of a node that it replaces."""


def is_quantized(artifact: OnnxArtifact) -> bool:
    """Whether the model has quantizers."""
    return any(node.op_type in ("DequantizeLinear", "MatMulInteger") for node in artifact.model.graph)


def kernel_report(artifact: OnnxArtifact) -> KernelReport:
    """Every product of the model, with the operator that ONNX Runtime runs for it on the CPU."""
    optimized = {_SUFFIX.sub("", node.name): node.op_type for node in _optimized(artifact).graph.node}
    kernels = []
    for node in artifact.model.graph:
        if node.op_type not in PRODUCTS:
            continue
        name = str(node.name)
        found = optimized.get(name, "gone into another operator")
        integer = found in INTEGER
        kernels.append(Kernel(name, found if integer else f"float {found}", integer, _is_promised(node)))
    return KernelReport("ONNX Runtime", tuple(kernels))


def _is_promised(node: ir.Node) -> bool:
    """Whether both operands of a product are integers, or come from integers."""
    if node.op_type in ("MatMulInteger", "ConvInteger"):
        return True
    return all(any(p == "DequantizeLinear" for p in _producers(value)) for value in node.inputs[:2])


def _producers(value: ir.Value | None) -> Iterator[str]:
    node = None if value is None else value.producer()
    if node is not None:
        yield str(node.op_type)


def _optimized(artifact: OnnxArtifact) -> onnx.ModelProto:
    """The graph after all of ONNX Runtime's rewriting, without its weights."""
    ort = runtime.require_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "optimized.onnx"
        ir.save(artifact.model, source, external_data="model.onnx.data")
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        return onnx.load(target, load_external_data=False)
