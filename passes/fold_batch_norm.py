"""`fold-batch-norm`: scale and shift into the weights and the bias of the product before them.

In inference, BatchNorm multiplies each channel of its input by a constant and adds another. After a convolution or a
dense layer with constant weights, the factor goes into the weights and the rest into one bias: Jacob et al.,
"Quantization and Training of Neural Networks", arXiv:1712.05877, section 3.2. Any chain of additions and
multiplications by constants folds alike: layer scale, the scale of attention scores, the normalization of images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ..core.graph import Graph
from ..core.node import Node, Value
from ..core.pass_ import PassContext, RewritePass
from ..core.patterns import Op, var
from ..core.rewrite import Build, Match, Numerics, Rule
from .fold_constants import as_constants, fold

Array = np.ndarray[Any, Any]

x, b, c = var("x"), var("b"), var("c")


@dataclasses.dataclass(frozen=True)
class FoldBatchNorm(RewritePass):
    """Folds BatchNorm, and other scales and shifts by constants, into the constant weights before them."""

    name: ClassVar[str] = "fold-batch-norm"
    numerics: ClassVar[Numerics] = "reassociating"

    @classmethod
    def own_rules(cls) -> Sequence[Rule]:
        """What follows a product, and what stands before a convolution."""
        return RULES

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Computes the constants first, in regions with products: BatchNorm's are made of several."""
        folded = [fold(region) for region in graph.walk() if any(node.name in PRODUCTS for node in region.nodes())]
        return super().apply(graph, context) or any(folded)


PRODUCTS = ("conv_general_dilated", "dot_general")


# -- constants that vary along few axes --------------------------------------------------------------------------------


def constant_of(value: Value) -> Array | None:
    """The constant behind ``value``, perhaps broadcast, with axes of size one where it is; None when there is none."""
    if value.is_const:
        return _without_copies(value.numpy()) if isinstance(value.dtype, np.dtype) else None
    node = value.producer
    if node is None or node.name != "broadcast_in_dim" or len(node.inputs) != 1:
        return None
    inner = constant_of(node.inputs[0])
    if inner is None:
        return None
    shape = [1] * len(value.aval.shape)
    for axis, size in zip(node.params["broadcast_dimensions"], inner.shape, strict=True):
        shape[axis] = size
    return inner.reshape(shape)


def _without_copies(array: Array) -> Array:
    """``array`` with size one along the axes on which it does not vary: small broadcasts were perhaps folded."""
    for axis, size in enumerate(array.shape):
        first = array.take([0], axis) if size > 1 else array
        if first.size < array.size and (array == first).all():
            array = first
    return array


def along(array: Array, axes: Mapping[int, int], rank: int) -> Array | None:
    """``array``, laid out along other axes.

    Args:
      array: a scalar, or of the rank of some value.
      axes: for axes of that value, the axis of the result.
      rank: rank of the result.

    Returns:
      An array of that rank that broadcasts against the weights; None when ``array`` varies along an axis not in
      ``axes``.
    """
    varying = [axis for axis, size in enumerate(array.shape) if size != 1]
    if any(axis not in axes for axis in varying):
        return None
    shape = [1] * rank
    for axis in varying:
        shape[axes[axis]] = array.shape[axis]
    order = sorted(varying, key=axes.__getitem__)
    return (
        array.reshape([array.shape[axis] for axis in varying])
        .transpose([varying.index(axis) for axis in order])
        .reshape(shape)
    )


# -- products with constant weights ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Weights:
    """The constant operand of a product.

    Attributes:
      index: which operand it is.
      axes: for each axis of the result along which it varies with the weights, the axis of the weights.
    """

    index: int
    axes: Mapping[int, int]


def weights_of(node: Node) -> Weights | str:
    """The weights of a product, or why they cannot be changed."""
    if node.name == "conv_general_dilated":
        numbers = node.params["dimension_numbers"]
        weights = Weights(1, {numbers.out_spec[1]: numbers.rhs_spec[0]})
    else:
        weights = Weights(*_dot_weights(node))
    value = node.inputs[weights.index]
    if not value.is_const:
        return "the weights are not constant"
    if len(value.uses) > 1:
        return "the weights are used elsewhere too"
    if not jnp.issubdtype(value.dtype, jnp.floating) or value.dtype != node.outputs[0].dtype:
        return "the weights are not floats of the result's dtype"
    return weights


def _dot_weights(node: Node) -> tuple[int, dict[int, int]]:
    """Results of a product have the batch axes first, then the other axes of the left, then those of the right."""
    contracting, batch = node.params["dimension_numbers"]
    index = 1 if node.inputs[1].is_const else 0
    free = [
        [axis for axis in range(len(node.inputs[side].aval.shape)) if axis not in (*contracting[side], *batch[side])]
        for side in (0, 1)
    ]
    start = len(batch[0]) + (len(free[0]) if index == 1 else 0)
    axes = dict(enumerate(batch[index]))
    axes.update({start + position: axis for position, axis in enumerate(free[index])})
    return index, axes


def _constant(match: Match, array: Array) -> Value:
    return as_constants(match.graph, [array], [None])[0]


def scaled(match: Match, node: Node, weights: Weights, factor: Array, divide: bool) -> Value:
    """The product with its weights times ``factor``, or divided by it; ``factor`` is laid out as they are."""
    inputs = list(node.inputs)
    inputs[weights.index] = _constant(match, _scale(inputs[weights.index].numpy(), factor, divide))
    return match.like(node, *inputs)


def _scale(array: Array, factor: Array, divide: bool) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(array / factor if divide else array * factor, dtype=array.dtype)


def _overflows(array: Array, factor: Array, divide: bool) -> bool:
    """Whether the largest weight times the largest factor is no finite number any more."""
    largest, factor = float(np.abs(array).max(initial=0)), np.abs(factor.astype(np.float64))
    with np.errstate(all="ignore"):
        bound = largest * (1 / factor if divide else factor).max(initial=0)
    return not bound <= float(jnp.finfo(array.dtype).max)


def _factor(match: Match) -> Array | str:
    """What the weights of the node ``linear`` are to be multiplied by, or why they cannot be."""
    node: Node = match["linear"]
    weights, factor = weights_of(node), constant_of(match["c"])
    if isinstance(weights, str):
        return weights
    if factor is None:
        return "the factor is not constant"
    if len(node.outputs[0].uses) > 1:
        return "the product is used elsewhere too"
    laid = along(factor, weights.axes, len(node.inputs[weights.index].aval.shape))
    if laid is None:
        return "the factor varies along more than the channels"
    if _overflows(node.inputs[weights.index].numpy(), laid, match.root.name == "div"):
        return "the weights would overflow"
    return laid


def _scaled_product(match: Match) -> Value:
    weights, factor = weights_of(match["linear"]), _factor(match)
    assert isinstance(weights, Weights) and not isinstance(factor, str)
    return scaled(match, match["linear"], weights, factor, match.root.name == "div")


def _can_scale(match: Match) -> str | None:
    reason = _factor(match)
    return reason if isinstance(reason, str) else None


# -- after a product ---------------------------------------------------------------------------------------------------


def _bias(match: Match) -> Array | None:
    """The constant that the node ``shift`` adds."""
    bias = constant_of(match["b"])
    return bias if bias is None or match["shift"].name == "add" else np.negative(bias)


def _used_once(match: Match) -> str | None:
    used = len(match["shift"].outputs[0].uses)
    return None if used == 1 else "the sum is used elsewhere too"


def _combined(match: Match) -> Array | str:
    """The bias after the root: scaled, or added to."""
    first, second = _bias(match), constant_of(match["c"])
    if first is None or second is None:
        return "the bias is not constant"
    with np.errstate(all="ignore"):
        combine = {"mul": np.multiply, "div": np.divide, "add": np.add, "sub": np.subtract}[match.root.name]
        both = np.asarray(combine(first, second), dtype=first.dtype)
    if both.size > max(first.size, second.size):
        return "the two vary along different axes"
    return both if np.isfinite(both).all() else "the bias would overflow"


def _can_scale_sum(match: Match) -> str | None:
    combined = _combined(match)
    return combined if isinstance(combined, str) else _used_once(match) or _can_scale(match)


def _can_merge(match: Match) -> str | None:
    combined, weights = _combined(match), weights_of(match["linear"])
    return next((reason for reason in (combined, weights) if isinstance(reason, str)), None) or _used_once(match)


def _plus(match: Match, value: Value, bias: Array) -> Value:
    return match.trace(jnp.add, value, _constant(match, bias))


def _scaled_sum(match: Match) -> Value:
    bias = _combined(match)
    assert not isinstance(bias, str)
    return _plus(match, _scaled_product(match), bias)


def _merged_sum(match: Match) -> Value:
    bias = _combined(match)
    assert not isinstance(bias, str)
    return _plus(match, match["linear"].outputs[0], bias)


def _adds_zero(match: Match) -> str | None:
    bias = constant_of(match["c"])
    same_shape = match["linear"].outputs[0].aval.shape == match.root.outputs[0].aval.shape
    return None if same_shape and bias is not None and not bias.any() else "it adds something"


# -- before a convolution ----------------------------------------------------------------------------------------------


def _before(match: Match) -> tuple[Weights, Array] | str:
    """The weights, and the constant before the convolution laid out along them."""
    node: Node = match.root
    weights, constant = weights_of(node), constant_of(match["c"])
    if isinstance(weights, str):
        return weights
    if constant is None:
        return "the other operand is not constant"
    if node.params["batch_group_count"] != 1:
        return "the convolution groups its batch"
    if len(match["before"].outputs[0].uses) > 1:
        return "what is convolved is used elsewhere too"
    if _is_normalization(match["x"].producer):
        return "it belongs to a normalization, which other passes recognize"
    numbers = node.params["dimension_numbers"]
    channels = along(constant, {numbers.lhs_spec[1]: 0}, 1)
    if channels is None:
        return "it varies along more than the channels"
    return weights, _over_inputs(node, channels)


def _is_normalization(node: Node | None) -> bool:
    """Whether a node scales by something computed, as LayerNorm does before its own scale and shift."""
    return node is not None and node.name in ("mul", "div") and all(constant_of(v) is None for v in node.inputs)


def _over_inputs(node: Node, channels: Array) -> Array:
    """One number per input channel, along the weights: those of a group see the channels of that group only."""
    spec, groups = node.params["dimension_numbers"].rhs_spec, node.params["feature_group_count"]
    kernel = node.inputs[1].aval.shape
    outputs, inputs = kernel[spec[0]], kernel[spec[1]]
    by_group = np.broadcast_to(channels.reshape(-1), (groups * inputs,)).reshape(groups, inputs)
    table = np.repeat(by_group, outputs // groups, axis=0)
    shape = [1] * len(kernel)
    shape[spec[0]], shape[spec[1]] = outputs, inputs
    return (table if spec[0] < spec[1] else table.T).reshape(shape)


def _can_scale_input(match: Match) -> str | None:
    before = _before(match)
    if isinstance(before, str):
        return before
    _, factor = before
    overflows = _overflows(match.root.inputs[1].numpy(), factor, match["before"].name == "div")
    return "the weights would overflow" if overflows else None


def _scaled_input(match: Match) -> Value:
    before = _before(match)
    assert not isinstance(before, str)
    _, factor = before
    kernel = _constant(match, _scale(match.root.inputs[1].numpy(), factor, match["before"].name == "div"))
    return match.like(match.root, match["x"], kernel)


def _can_shift_input(match: Match) -> str | None:
    padding = match.root.params["padding"]
    if any(amount != 0 for pair in padding for amount in pair) or set(match.root.params["lhs_dilation"]) - {1}:
        return "padding is added after the shift, and is not shifted"
    before = _before(match)
    return before if isinstance(before, str) else None


def _shifted_input(match: Match) -> Value:
    before = _before(match)
    assert not isinstance(before, str)
    _, shift = before
    kernel, numbers = match.root.inputs[1].numpy(), match.root.params["dimension_numbers"]
    others = tuple(axis for axis in range(kernel.ndim) if axis != numbers.rhs_spec[0])
    bias = (kernel.astype(np.float64) * shift.astype(np.float64)).sum(axis=others)
    shape = [1] * kernel.ndim
    shape[numbers.out_spec[1]] = math.prod(bias.shape)
    bias = (bias if match["before"].name == "add" else -bias).astype(kernel.dtype).reshape(shape)
    return _plus(match, match.like(match.root, match["x"], match.root.inputs[1]), bias)


_linear = Op(PRODUCTS, name="linear")
_shifted = Op(("add", "sub"), (_linear, b), name="shift")
_convolved = ("conv_general_dilated",)

RULES = [
    Rule("scale-weights", Op(("mul", "div"), (_linear, c)), Build(_scaled_product), _can_scale, "reassociating"),
    Rule("scale-biased", Op(("mul", "div"), (_shifted, c)), Build(_scaled_sum), _can_scale_sum, "reassociating"),
    Rule("merge-biases", Op(("add", "sub"), (_shifted, c)), Build(_merged_sum), _can_merge, "reassociating"),
    Rule(
        "no-bias",
        Op(("add", "sub"), (_linear, c)),
        Build(lambda match: match["linear"].outputs[0]),
        _adds_zero,
        "reassociating",
    ),
    Rule(
        "scale-before",
        Op(_convolved, (Op(("mul", "div"), (x, c), name="before"), var("w"))),
        Build(_scaled_input),
        _can_scale_input,
        "reassociating",
    ),
    Rule(
        "shift-before",
        Op(_convolved, (Op(("add", "sub"), (x, c), name="before"), var("w"))),
        Build(_shifted_input),
        _can_shift_input,
        "reassociating",
    ),
]
