"""`fold-batch-norm`: scale and shift into the weights and the bias of the product before them.

In inference, BatchNorm multiplies each channel of its input by a constant and adds another. After a convolution or a
dense layer with constant weights, the factor goes into the weights and the rest into one bias: Jacob et al.,
"Quantization and Training of Neural Networks", arXiv:1712.05877, section 3.2. Any chain of additions and
multiplications by constants folds alike: layer scale, the scale of attention scores, the normalization of images.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ..core.graph import Graph
from ..core.node import Node, Value
from ..core.pass_ import PassContext, RewritePass
from ..core.patterns import Op, op, var
from ..core.rewrite import Build, Check, Match, Numerics, Rule
from .fold_constants import aligned_empty, as_constants, fold
from .simplify.conversions import is_lossless

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


CONVOLUTION = ("conv_general_dilated",)
PRODUCTS = (*CONVOLUTION, "dot_general")


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


def scaled_array(array: Array, factor: Array, divide: bool) -> Array | None:
    """Weights times a factor, or divided by it, rounded once; None where they would overflow."""
    scaled = aligned_empty(np.broadcast_shapes(array.shape, factor.shape), array.dtype)
    with np.errstate(all="ignore"):
        (np.divide if divide else np.multiply)(array, factor, out=scaled, casting="unsafe")
        return scaled if _all_finite(scaled) else None


def _all_finite(array: Array) -> bool:
    """Whether no element is infinite or NaN: then neither is their sum, unless it overflows by itself."""
    if array.dtype.itemsize >= 4 and np.isfinite(array.sum()):
        return True
    return bool(np.isfinite(array).all())


def _scaled_weights(match: Match) -> tuple[int, Array] | str:
    """The operand of the node ``linear`` that the constant ``c`` scales and its new value, or why it cannot."""
    node: Node = match["linear"]
    weights, factor = weights_of(node), constant_of(match["c"])
    if isinstance(weights, str):
        return weights
    if factor is None:
        return "the factor is not constant"
    if len(node.outputs[0].uses) > 1 or len(_product_of(match).uses) > 1:
        return "the product is used elsewhere too"
    array = node.inputs[weights.index].numpy()
    factor = along(factor, weights.axes, array.ndim)
    if factor is None:
        return "the factor varies along more than the channels"
    scaled = scaled_array(array, factor, match.root.name == "div")
    return (weights.index, scaled) if scaled is not None else "the weights would overflow"


# -- rules -------------------------------------------------------------------------------------------------------------


Plan = Callable[[], Value]
"""Builds the replacement of a match."""


def planned(plan: Callable[[Match], Plan | str]) -> tuple[Build, Check]:
    """A check that makes the plan, or says why there is none, and the replacement that carries it out."""

    def check(match: Match) -> str | None:
        made = plan(match)
        if isinstance(made, str):
            return made
        match.bindings["plan"] = made
        return None

    return Build(lambda match: match["plan"]()), check


def new_constant(match: Match, array: Array) -> Value:
    """``array`` as a constant of the program that is rewritten."""
    return as_constants(match.graph, [array], [None])[0]


def _product_of(match: Match) -> Value:
    """The product as the root reads it: in half precision, BatchNorm widens it first."""
    node: Node = match.bindings.get("widened", match["linear"])
    return node.outputs[0]


def _product_with(match: Match, index: int, array: Array) -> Value:
    """The product with another operand, widened as it was."""
    node, widened = match["linear"], match.bindings.get("widened")
    inputs = list(node.inputs)
    inputs[index] = new_constant(match, array)
    product = match.like(node, *inputs)
    return product if widened is None else match.like(widened, product)


def _plus(match: Match, value: Value, bias: Array) -> Value:
    return match.trace(operator.add, value, new_constant(match, bias))


def _scale_product(match: Match) -> Plan | str:
    scaled = _scaled_weights(match)
    return scaled if isinstance(scaled, str) else lambda: _product_with(match, *scaled)


def _scale_sum(match: Match) -> Plan | str:
    scaled, bias = _scaled_weights(match), _combined_bias(match)
    if isinstance(scaled, str):
        return scaled
    if isinstance(bias, str):
        return bias
    return lambda: _plus(match, _product_with(match, *scaled), bias)


def _merge_biases(match: Match) -> Plan | str:
    weights, bias = weights_of(match["linear"]), _combined_bias(match)
    if isinstance(weights, str):
        return weights
    return bias if isinstance(bias, str) else lambda: _plus(match, _product_of(match), bias)


def _combined_bias(match: Match) -> Array | str:
    """What the node ``shift`` adds, and then the root scales or adds to."""
    if len(match["shift"].outputs[0].uses) > 1:
        return "the sum is used elsewhere too"
    first, second = constant_of(match["b"]), constant_of(match["c"])
    if first is None or second is None:
        return "the bias is not constant"
    with np.errstate(all="ignore"):
        first = np.negative(first) if match["shift"].name == "sub" else first
        combine = {"mul": np.multiply, "div": np.divide, "add": np.add, "sub": np.subtract}[match.root.name]
        both = np.asarray(combine(first, second), dtype=first.dtype)
    if both.size > max(first.size, second.size):
        return "the two vary along different axes"
    return both if np.isfinite(both).all() else "the bias would overflow"


def _add_nothing(match: Match) -> Plan | str:
    bias, value = constant_of(match["c"]), _product_of(match)
    if bias is None or bias.any() or value.aval.shape != match.root.outputs[0].aval.shape:
        return "it adds something"
    return lambda: value


def _channels_before(match: Match) -> Array | str:
    """The constant before a convolution, as one number per input channel, laid out along the weights."""
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
    channels = along(constant, {node.params["dimension_numbers"].lhs_spec[1]: 0}, 1)
    return _over_inputs(node, channels) if channels is not None else "it varies along more than the channels"


def _is_normalization(node: Node | None) -> bool:
    """Whether a node scales by something computed, as LayerNorm does before its own scale and shift."""
    return node is not None and node.name in ("mul", "div") and all(constant_of(v) is None for v in node.inputs)


def _over_inputs(node: Node, channels: Array) -> Array:
    """The weights of a group see the channels of that group only."""
    spec, groups = node.params["dimension_numbers"].rhs_spec, node.params["feature_group_count"]
    kernel = node.inputs[1].aval.shape
    outputs, inputs = kernel[spec[0]], kernel[spec[1]]
    by_group = np.broadcast_to(channels.reshape(-1), (groups * inputs,)).reshape(groups, inputs)
    table = np.repeat(by_group, outputs // groups, axis=0)
    shape = [1] * len(kernel)
    shape[spec[0]], shape[spec[1]] = outputs, inputs
    return (table if spec[0] < spec[1] else table.T).reshape(shape)


def _scale_input(match: Match) -> Plan | str:
    channels = _channels_before(match)
    if isinstance(channels, str):
        return channels
    kernel = scaled_array(match.root.inputs[1].numpy(), channels, match["before"].name == "div")
    if kernel is None:
        return "the weights would overflow"
    return lambda: match.like(match.root, match["x"], new_constant(match, kernel))


def _shift_input(match: Match) -> Plan | str:
    padding, dilation = match.root.params["padding"], match.root.params["lhs_dilation"]
    if any(amount != 0 for pair in padding for amount in pair) or any(step != 1 for step in dilation):
        return "padding is added after the shift, and is not shifted"
    channels = _channels_before(match)
    if isinstance(channels, str):
        return channels
    kernel, numbers = match.root.inputs[1].numpy(), match.root.params["dimension_numbers"]
    others = tuple(axis for axis in range(kernel.ndim) if axis != numbers.rhs_spec[0])
    bias = (kernel.astype(np.float64) * channels.astype(np.float64)).sum(axis=others)
    shape = [1] * kernel.ndim
    shape[numbers.out_spec[1]] = bias.size
    bias = (bias if match["before"].name == "add" else -bias).astype(kernel.dtype).reshape(shape)
    return lambda: _plus(match, match.like(match.root, match["x"], match.root.inputs[1]), bias)


def _widens(node: Node) -> bool:
    """Whether a conversion is from floats to wider ones."""
    before, after = node.inputs[0].dtype, node.outputs[0].dtype
    return all(jnp.issubdtype(d, jnp.floating) for d in (before, after)) and is_lossless(before, after)


_product = Op(PRODUCTS, name="linear")
_linear = _product | op.convert_element_type(_product, name="widened", where=_widens)
_shifted = Op(("add", "sub"), (_linear, b), name="shift")
_scaled = Op(("mul", "div"), (x, c), name="before")
_moved = Op(("add", "sub"), (x, c), name="before")

NUMERICS = FoldBatchNorm.numerics

RULES = [
    Rule("scale-weights", Op(("mul", "div"), (_linear, c)), *planned(_scale_product), NUMERICS),
    Rule("scale-biased", Op(("mul", "div"), (_shifted, c)), *planned(_scale_sum), NUMERICS),
    Rule("merge-biases", Op(("add", "sub"), (_shifted, c)), *planned(_merge_biases), NUMERICS),
    Rule("no-bias", Op(("add", "sub"), (_linear, c)), *planned(_add_nothing), NUMERICS),
    Rule("scale-before", Op(CONVOLUTION, (_scaled, var("w"))), *planned(_scale_input), NUMERICS),
    Rule("shift-before", Op(CONVOLUTION, (_moved, var("w"))), *planned(_shift_input), NUMERICS),
]
