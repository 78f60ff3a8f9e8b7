"""Which element types ONNX Runtime's CPU kernels take, and through which wider type the others are computed.

The table is a transcript of the kernels that ONNX Runtime registers for its CPU provider (``get_all_opkernel_def``).
It holds only operators that miss at least one of the types a jaxpr can have; an operator that is absent takes them
all. ``float16`` counts as taken wherever ``float`` is: ONNX Runtime inserts those casts itself, and other providers
have the kernels.
"""

from __future__ import annotations

import onnx_ir as ir

_T = ir.DataType

_F = frozenset({_T.FLOAT, _T.DOUBLE, _T.FLOAT16})
_F32 = frozenset({_T.FLOAT, _T.FLOAT16})
_SIGNED = frozenset({_T.INT8, _T.INT16, _T.INT32, _T.INT64})
_UNSIGNED = frozenset({_T.UINT8, _T.UINT16, _T.UINT32, _T.UINT64})
_INTS = _SIGNED | _UNSIGNED
_WIDE = frozenset({_T.INT32, _T.INT64})
_BOOL = frozenset({_T.BOOL})
_EIGHT = frozenset({_T.INT8, _T.UINT8})

#: Types that no kernel but ``Cast`` (and, for bfloat16, data movement) takes.
_NARROW_FLOATS = frozenset(
    {_T.BFLOAT16, _T.FLOAT8E4M3FN, _T.FLOAT8E4M3FNUZ, _T.FLOAT8E5M2, _T.FLOAT8E5M2FNUZ, _T.INT4, _T.UINT4}
)
_MOVES = _F | _INTS | _BOOL | {_T.BFLOAT16}

_REDUCTION = _F | _WIDE
_EXTREMUM = _F | _WIDE | _EIGHT | _BOOL

#: Types computed in another one than the next wider that has a kernel: here the reduction of int64 is the slow one.
_THROUGH: dict[tuple[str, ir.DataType], ir.DataType] = {
    ("ReduceMax", _T.UINT32): _T.DOUBLE,
    ("ReduceMin", _T.UINT32): _T.DOUBLE,
}
_ARITHMETIC = _F | _INTS
_MIN_MAX = _F | _WIDE | _EIGHT | {_T.UINT32, _T.UINT64}

TYPES: dict[str, frozenset[ir.DataType]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"), _ARITHMETIC),
    **dict.fromkeys(("Abs", "Sign", "Mod"), _ARITHMETIC),
    "Neg": _F | _SIGNED,
    "Equal": _ARITHMETIC | _BOOL,
    **dict.fromkeys(("And", "Or", "Xor", "Not"), _BOOL),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"), _INTS),
    "BitShift": frozenset({_T.UINT8, _T.UINT32, _T.UINT64}),
    "Pow": _F | _WIDE,
    **dict.fromkeys(("Max", "Min", "Clip"), _MIN_MAX),
    "Where": _F | _WIDE | _EIGHT | {_T.UINT32},
    **dict.fromkeys(("Exp", "Log", "Sqrt", "Sin", "Cos", "Tanh", "Sigmoid", "Reciprocal"), _F),
    **dict.fromkeys(("Floor", "Ceil", "Round", "Softmax", "LogSoftmax", "LayerNormalization"), _F),
    **dict.fromkeys(("Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Erf"), _F32),
    **dict.fromkeys(("Softplus", "Softsign", "Elu", "Selu", "Celu", "Gelu", "Mish", "HardSwish", "HardSigmoid"), _F32),
    **dict.fromkeys(
        ("Conv", "ConvTranspose", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Swish", "Attention"), _F32
    ),
    **dict.fromkeys(("BatchNormalization", "RMSNormalization", "Gemm", "DFT"), _F),
    "MaxPool": _F | _EIGHT,
    "Relu": _F | {_T.INT32, _T.INT8},
    "IsNaN": _F | {_T.BFLOAT16},
    "IsInf": _F | {_T.BFLOAT16},
    "MatMul": _F | _WIDE | {_T.UINT32, _T.UINT64},
    "Einsum": _F | _WIDE,
    **dict.fromkeys(("ReduceSum", "ReduceProd", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2"), _REDUCTION),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), _EXTREMUM),
    **dict.fromkeys(("ArgMax", "ArgMin"), _F | _WIDE | _EIGHT),
    "TopK": _F | _WIDE | _EIGHT | {_T.INT16},
    "CumSum": _F | _WIDE,
    "CumProd": _F | _WIDE | {_T.UINT32, _T.UINT64},
    "Pad": frozenset(
        {_T.FLOAT, _T.FLOAT16, _T.DOUBLE, _T.INT32, _T.INT64, _T.UINT32, _T.UINT64, _T.INT8, _T.UINT8, _T.BOOL}
    ),
    "Range": frozenset({_T.FLOAT, _T.DOUBLE, _T.INT16, _T.INT32, _T.INT64}),
    "Trilu": frozenset({_T.FLOAT, _T.FLOAT16, _T.DOUBLE, _T.INT32, _T.INT64, _T.BOOL}),
    "Expand": _F | _INTS | _BOOL,
    #: ONNX Runtime 1.31 crashes while it fuses a bfloat16 Transpose, a Cast and a MatMul; float32 is safe.
    "Transpose": _F | _INTS | _BOOL,
    **dict.fromkeys(("Reshape", "Concat", "Gather", "GatherND", "GatherElements", "Slice"), _MOVES),
    **dict.fromkeys(("ScatterND", "ScatterElements", "Unsqueeze", "Squeeze", "Split"), _MOVES),
    #: The reducing scatters have no float16 kernel, and no cast is inserted for them.
    "ScatterND:reduce": frozenset({_T.FLOAT, _T.DOUBLE}) | _INTS,
}

#: Where a type without a kernel is computed instead; integer casts wrap, so modular arithmetic survives the detour.
_WIDER: dict[ir.DataType, tuple[ir.DataType, ...]] = {
    _T.BOOL: (_T.UINT8, _T.INT32),
    _T.INT8: (_T.INT16, _T.INT32),
    _T.INT16: (_T.INT32,),
    _T.UINT8: (_T.INT32, _T.UINT32),
    _T.UINT16: (_T.INT32, _T.UINT32),
    _T.UINT32: (_T.INT64, _T.UINT64),
    _T.UINT64: (_T.INT64,),
    _T.FLOAT16: (_T.FLOAT,),
    _T.BFLOAT16: (_T.FLOAT,),
    _T.FLOAT8E4M3FN: (_T.FLOAT,),
    _T.FLOAT8E4M3FNUZ: (_T.FLOAT,),
    _T.FLOAT8E5M2: (_T.FLOAT,),
    _T.FLOAT8E5M2FNUZ: (_T.FLOAT,),
    _T.INT4: (_T.INT8, _T.INT32),
    _T.UINT4: (_T.UINT8, _T.INT32),
}

#: Operators whose result depends on the order of the values: a uint64 must not be reinterpreted as int64 for them.
ORDERED = frozenset({"ReduceMax", "ReduceMin", "ArgMax", "ArgMin", "TopK"})

#: First opset of operators that are younger than the oldest opset offered.
SINCE: dict[str, int] = {
    "BitwiseAnd": 18,
    "BitwiseOr": 18,
    "BitwiseXor": 18,
    "BitwiseNot": 18,
    "Gelu": 20,
    "DFT": 20,
    "Attention": 23,
    "RMSNormalization": 23,
    "RotaryEmbedding": 23,
    "Swish": 24,
    "BitCast": 26,
    "CumProd": 26,
}


def takes(op: str, dtype: ir.DataType) -> bool:
    """Whether the CPU kernel of an operator takes an element type."""
    known = TYPES.get(op)
    return dtype not in _NARROW_FLOATS if known is None else dtype in known


def carrier(op: str, dtype: ir.DataType) -> ir.DataType | None:
    """The element type in which an operator is computed for ``dtype``: itself, a wider one, or None."""
    if takes(op, dtype):
        return dtype
    if (op, dtype) in _THROUGH:
        return _THROUGH[op, dtype]
    for wider in _WIDER.get(dtype, ()):
        if takes(op, wider):
            return wider
    return None
