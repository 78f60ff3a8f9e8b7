"""`merge-scales`: fewer sweeps over activations, for runtimes that run every operation by itself.

A runtime such as LiteRT reads and writes the whole array for each scale and each shift, where XLA fuses them. Here the
constant ones are merged with each other, and those that only matrix products read go into the products' weights: the
scale and shift of a LayerNorm before a dense layer, say. It comes last, since it hides what other passes recognise.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ..core.node import Node, Value
from ..core.pass_ import RewritePass
from ..core.patterns import Op, op, var
from ..core.rewrite import Match, Numerics, Rule
from .fold_batch_norm import Array, Plan, along, constant_of, new_constant, planned, scaled_array, weights_of

x, y, b, c, d = (var(name) for name in "xybcd")


@dataclasses.dataclass(frozen=True)
class MergeScales(RewritePass):
    """Merges constant scales and shifts with each other, and into the weights of the matrix products after them."""

    name: ClassVar[str] = "merge-scales"
    numerics: ClassVar[Numerics] = "reassociating"

    @classmethod
    def own_rules(cls) -> Sequence[Rule]:
        """Shifts around a scale, a scale of a scale, and what stands before a product."""
        return RULES


def _alone(node: Node) -> bool:
    return len(node.outputs[0].uses) == 1


def _around_scale(match: Match) -> Plan | str:
    """``(x + b) * c + d`` is ``x * c + (b * c + d)``."""
    shift, scale = match["shift"], match["scale"]
    if not (_alone(shift) and _alone(scale)):
        return "the sum or the product is used elsewhere too"
    constants = [constant_of(match[name]) for name in "bcd"]
    if any(constant is None for constant in constants) or constant_of(match["x"]) is not None:
        return "it does not shift and scale by constants"
    first, factor, second = (np.asarray(constant, np.float64) for constant in constants)
    moved = (first if shift.name == "add" else -first) * factor
    offset = moved + (second if match.root.name == "add" else -second)
    with np.errstate(over="ignore"):
        offset = offset.astype(match.root.outputs[0].dtype)
    if not np.isfinite(offset).all():
        return "the shift would overflow"
    whole = match.root.outputs[0].aval.shape
    if match["x"].aval.shape != whole or offset.size > max(first.size, factor.size, second.size):
        return "its constants vary along different axes"
    return lambda: match.trace(
        operator.add, match.trace(operator.mul, match["x"], match["c"]), new_constant(match, offset)
    )


def _scale_last(match: Match) -> Plan | str:
    """``x * (y * c)``, with ``y`` smaller than ``x``, is ``(x * y) * c``: the constant stands where it can go on."""
    if constant_of(match["c"]) is None or any(constant_of(match[name]) is not None for name in "xy"):
        return "no constant scales what is scaled by something computed"
    if not _alone(match["inner"]):
        return "the scale is used elsewhere too"
    whole = match.root.outputs[0].aval.shape
    if match["x"].aval.shape != whole or match["y"].aval.size >= match["x"].aval.size:
        return "the computed scale is as large as what it scales"
    if not _products_read(match.root.outputs[0]):
        return "no matrix product reads the result"
    return lambda: match.trace(lambda x, y, c: (x * y) * c, *(match[name] for name in "xyc"))


def _products_read(value: Value) -> bool:
    """Whether matrix products with constant weights, and nothing else, read ``value``, perhaps shifted."""
    users = value.users
    if len(users) == 1 and users[0].name in ("add", "sub") and any(constant_of(v) is not None for v in users[0].inputs):
        return _products_read(users[0].outputs[0])
    return bool(users) and all(user.name == "dot_general" and _reads_plainly(user, value) for user in users)


def _reads_plainly(node: Node, value: Value) -> bool:
    weights = weights_of(node)
    return not isinstance(weights, str) and node.inputs[1 - weights.index] is value


def _contracted(match: Match) -> tuple[int, Array] | str:
    """Which operand the weights are, and the constant before the product, laid out along their contracted axes."""
    node: Node = match.root
    weights, constant = weights_of(node), constant_of(match["c"])
    if isinstance(weights, str):
        return weights
    before: Node | None = node.inputs[1 - weights.index].producer
    if before is not match["before"]:
        return "the constant stands before the weights"
    if constant is None or match["x"].aval.shape != before.outputs[0].aval.shape:
        return "the other operand is no constant, or broadcasts"
    if match["x"].producer is not None and match["x"].producer.name == "reduce_sum":
        return "it makes a mean of a sum, and runtimes have means"
    if not _products_read(before.outputs[0]):
        return "something else than products with constant weights reads it, too"
    contracting, _ = node.params["dimension_numbers"]
    pairs: Mapping[int, int] = dict(zip(contracting[1 - weights.index], contracting[weights.index], strict=True))
    laid = along(constant, pairs, len(node.inputs[weights.index].aval.shape))
    return (weights.index, laid) if laid is not None else "it varies along more than what the product sums over"


def _with_weights(match: Match, index: int, weights: Value) -> Value:
    inputs = [match["x"], match["x"]]
    inputs[index] = weights
    return match.like(match.root, *inputs)


def _scale_into_product(match: Match) -> Plan | str:
    found = _contracted(match)
    if isinstance(found, str):
        return found
    index, factor = found
    weights = scaled_array(match.root.inputs[index].numpy(), factor, match["before"].name == "div")
    if weights is None:
        return "the weights would overflow"
    return lambda: _with_weights(match, index, new_constant(match, weights))


def _shift_into_bias(match: Match) -> Plan | str:
    """``(x + c) @ w`` is ``x @ w + c @ w``."""
    found = _contracted(match)
    if isinstance(found, str):
        return found
    index, shift = found
    node: Node = match.root
    weights = node.inputs[index].numpy()
    contracting, batch = node.params["dimension_numbers"]
    if batch[0]:
        return "the product has batch dimensions"
    axes = tuple(contracting[index])
    bias = (weights.astype(np.float64) * shift.astype(np.float64)).sum(axis=axes)
    with np.errstate(over="ignore"):
        bias = (bias if match["before"].name == "add" else -bias).astype(weights.dtype)
    if not np.isfinite(bias).all():
        return "the bias would overflow"
    rank = len(node.outputs[0].aval.shape)
    free = rank - bias.ndim  # axes of the other operand, before those of the weights or behind them
    shape = (*(1,) * free, *bias.shape) if index == 1 else (*bias.shape, *(1,) * free)
    return lambda: match.trace(
        operator.add, _with_weights(match, index, node.inputs[index]), new_constant(match, bias.reshape(shape))
    )


def _is_float(match: Match) -> str | None:
    dtype: Any = match.root.outputs[0].dtype
    return None if jnp.issubdtype(dtype, jnp.floating) else "it is not about floats"


_scaled = Op(("mul", "div"), (x, c), name="before")
_moved = Op(("add", "sub"), (x, c), name="before")
_rule = functools.partial(Rule, numerics=MergeScales.numerics)


def _floats(plan: Any) -> Any:
    """The plan, for floats."""
    return planned(lambda match: _is_float(match) or plan(match))


RULES = [
    _rule(
        "shifts-around-scale",
        Op(("add", "sub"), (op.mul(Op(("add", "sub"), (x, b), name="shift"), c, name="scale"), d)),
        *_floats(_around_scale),
    ),
    _rule("constant-scale-last", op.mul(x, op.mul(y, c, name="inner")), *_floats(_scale_last)),
    _rule("scale-into-product", op.dot_general(_scaled, var("w")), *_floats(_scale_into_product)),
    _rule("scale-into-product-right", op.dot_general(var("w"), _scaled), *_floats(_scale_into_product)),
    _rule("shift-into-bias", op.dot_general(_moved, var("w")), *_floats(_shift_into_bias)),
    _rule("shift-into-bias-right", op.dot_general(var("w"), _moved), *_floats(_shift_into_bias)),
]
