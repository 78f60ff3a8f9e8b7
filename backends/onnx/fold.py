"""Evaluates equations of known inputs while lowering, so that no node computes a constant.

The pipeline's own constant folding runs before; this catches what lowering itself makes known (decompositions, shape
arithmetic) and serves programs that are exported without a pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ...core import _compat
from . import dims
from .operand import Operand, constant, is_float, is_key, stored_dtype

#: Results above this many bytes are computed by the file, unless they are smaller than what they come from.
_LIMIT = 1 << 20

#: Equations whose own lowering treats known inputs better: they keep a constant small.
_STRUCTURAL = frozenset(
    {"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "copy", "copy_p", "stop_gradient", "iota"}
)
#: Evaluating these might not end, or is not a matter of values.
_NEVER = frozenset({"while", "dim_as_value", "create_token", "after_all", "rng_uniform", "composite"})

#: Element by element in numpy, which compiles nothing; the same values as XLA's but for the last bit of division.
_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "square": np.square,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
_OF_FLOATS: dict[str, Callable[..., Any]] = {
    "div": np.divide,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "is_finite": np.isfinite,
    "floor": np.floor,
    "ceil": np.ceil,
    "abs": np.abs,
}


def try_fold(eqn: Any, operands: Sequence[Operand]) -> list[Operand] | None:
    """The results of an equation whose inputs are all known, or None when it is to be lowered."""
    name = eqn.primitive.name
    if not all(x.is_const for x in operands) or name in _STRUCTURAL or name in _NEVER or eqn.effects:
        return None
    if any(not dims.is_static(getattr(v.aval, "shape", ())) for v in eqn.outvars):
        return None
    small = _in_numpy(name, eqn, operands)
    if small is not None:
        return [small]
    if _result_bytes(eqn) > max(_LIMIT, _input_bytes(operands)) or not _few_reads(eqn, operands):
        return None
    return [constant(_plain(v)) for v in _evaluate(eqn, operands)]


def _in_numpy(name: str, eqn: Any, operands: Sequence[Operand]) -> Operand | None:
    """The result on the arrays as they are held, which is no larger than they are; None where numpy is not asked."""
    if not operands or any(is_key(x.dtype) for x in operands):
        return None
    aval = eqn.outvars[0].aval
    function = _ELEMENTWISE.get(name)
    if function is None and all(is_float(x.dtype) for x in operands):
        function = _OF_FLOATS.get(name)
    if name == "select_n" and operands[0].dtype == np.bool_:
        function = _select
    if name == "convert_element_type" and is_float(aval.dtype):
        function = _same
    if function is None:
        return None
    with np.errstate(all="ignore"):
        value = np.asarray(function(*(x.const for x in operands)))
    if value.dtype == np.bool_ and np.dtype(aval.dtype) != np.bool_ and name != "convert_element_type":
        return None  # numpy's arithmetic on booleans is not JAX's
    return constant(value.astype(aval.dtype), tuple(aval.shape))


def _select(which: Any, no: Any, yes: Any) -> Any:
    return np.where(which, yes, no)


def _same(x: Any) -> Any:
    return x.real


def _few_reads(eqn: Any, operands: Sequence[Operand]) -> bool:
    """Whether the inputs, written out in full, stay small: a lazily broadcast constant may stand for gigabytes."""
    return all(dims.is_static(x.shape) and _full_bytes(x) <= max(64 * _LIMIT, _held_bytes(x)) for x in operands)


def _full_bytes(x: Operand) -> int:
    return int(dims.size(x.shape)) * stored_dtype(x.dtype).itemsize


def _held_bytes(x: Operand) -> int:
    return int(x.const.size) * stored_dtype(x.dtype).itemsize


def _input_bytes(operands: Sequence[Operand]) -> int:
    return sum(_held_bytes(x) for x in operands)


def _result_bytes(eqn: Any) -> int:
    return sum(
        int(np.prod(v.aval.shape)) * (8 if is_key(v.aval.dtype) else np.dtype(v.aval.dtype).itemsize)
        for v in eqn.outvars
    )


def _plain(value: Any) -> Any:
    return value if is_key(value.dtype) else np.asarray(value)


def _evaluate(eqn: Any, operands: Sequence[Operand]) -> list[Any]:
    wide = any(
        not is_key(d) and np.dtype(d).itemsize >= 8 and np.dtype(d) != np.complex64
        for d in [x.dtype for x in operands] + [v.aval.dtype for v in eqn.outvars]
    )
    params = eqn.primitive.get_bind_params(eqn.params)
    cpu = jax.local_devices(backend="cpu")[0]
    with jax.enable_x64(wide or _compat.x64_enabled()), jax.default_device(cpu):
        inputs = [x.const if x.is_full else np.broadcast_to(x.const, x.shape) for x in operands]
        results = eqn.primitive.bind(*inputs, **params)
    return list(results) if eqn.primitive.multiple_results else [results]
