"""Composites that are one TFLite operator.

A composite named ``tflite.OPERATOR``, such as ``tflite.gelu``, stands for the builtin operator of that name: its
operands are the operator's inputs, and its attributes the operator's options, in snake_case. Converters keep composites
that they do not know, with a subgraph for the decomposition; in the finished model the operator takes their place. So
any operator of the schema can be asked for, on any engine, and JAX runs the decomposition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flatbuffers import flexbuffers

from ...core.errors import CompileError
from . import flatbuffer

PREFIX = "tflite."

_IRREGULAR_OPTIONS: Mapping[str, str] = {
    "L2_NORMALIZATION": "L2NormOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "L2_POOL_2D": "Pool2DOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
}
"""Operators whose options are not named after them."""


def operator(name: str, decomposition: Callable[..., Any]) -> Callable[..., Any]:
    """A function that becomes one TFLite operator.

    Args:
      name: of the builtin operator, in lower case: ``"resize_bilinear"``.
      decomposition: the same in plain JAX: ``f(*operands, **options)``.
    """
    composite: Callable[..., Any] = jax.lax.composite(decomposition, f"{PREFIX}{name}")
    return composite


def replace_composites(model: Any) -> int:
    """Puts operators in the places of their composites, in a ``ModelT``; returns how many.

    Raises:
      CompileError: there is no such operator, or it has no such option.
    """
    schema = flatbuffer.schema()
    count = 0
    for _, op in flatbuffer.operators(model):
        if flatbuffer.operator_name(model, op) != "STABLEHLO_COMPOSITE":
            continue
        composite = op.builtinOptions2
        name = _text(composite.name)
        if not name.startswith(PREFIX):
            continue
        builtin = name.removeprefix(PREFIX).upper()
        if not hasattr(schema.BuiltinOperator, builtin):
            raise CompileError(f"there is no TFLite operator {builtin}")
        options = _options(builtin, _attributes(composite))
        op.builtinOptions2, op.builtinOptions2Type = None, schema.BuiltinOptions2.NONE
        op.builtinOptions = options
        op.builtinOptionsType = getattr(schema.BuiltinOptions, _options_name(builtin)) if options is not None else 0
        op.opcodeIndex = flatbuffer.operator_code(model, builtin)
        count += 1
    if count:
        flatbuffer.drop_unused(model)
    return count


def _attributes(composite: Any) -> dict[str, Any]:
    data = composite.compositeAttributes
    return {} if data is None or len(data) == 0 else dict(flexbuffers.Loads(bytes(data)))


def _options(builtin: str, attributes: Mapping[str, Any]) -> Any:
    """The operator's options object; None for an operator that has none."""
    cls = getattr(flatbuffer.schema(), f"{_options_name(builtin)}T", None)
    if cls is None:
        if attributes:
            raise CompileError(f"the TFLite operator {builtin} has no options, and was given {', '.join(attributes)}")
        return None
    options = cls()
    for name, value in attributes.items():
        field = "".join(part.capitalize() if k else part for k, part in enumerate(name.split("_")))
        if not hasattr(options, field):
            raise CompileError(f"the TFLite operator {builtin} has no option {name!r}")
        setattr(options, field, value)
    return options


def _options_name(builtin: str) -> str:
    """``ResizeBilinearOptions`` for ``RESIZE_BILINEAR``."""
    regular = "".join(part.capitalize() for part in builtin.split("_")) + "Options"
    return _IRREGULAR_OPTIONS.get(builtin, regular)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
