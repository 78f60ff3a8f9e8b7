"""The forms in which integer kernels want products: rows times a matrix, and convolutions with ordered kernels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .operations import Operation, free_axes
from .tables import Table

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Form:
    """A product in the form in which runtimes have integer kernels.

    Attributes:
      weights: laid out for it.
      channel_axis: of the weights, the axis of the output channels.
      input_axis: of the weights, the axis of the input channels.
      groups: of input channels.
      summed_axis: of the weights, the axis that is summed over, where it is one.
      bias_shape: in which a bias broadcasts to the result of ``apply``.
      around: ``around(x, multiply)`` brings ``x`` into the form and multiplies it.
      multiply: the product with the weights.
      finish: gives the result the shape of the original.
      order: of the axes of the weights: output channels, input channels, and the others.
    """

    weights: Array
    channel_axis: int
    input_axis: int
    groups: int
    summed_axis: int | None
    bias_shape: tuple[int, ...]
    around: Callable[[Any, Callable[[Any], Any]], Any]
    multiply: Callable[[Any, Any], Any]
    finish: Callable[[Any], Any]
    order: tuple[int, ...]

    def apply(self, x: Any, weights: Any) -> Any:
        """The product, before bias and activation."""
        return self.around(x, lambda rows: self.multiply(rows, weights))

    def matrices(self, weights: Array) -> Array:
        """Weights, or what broadcasts to them, as ``[groups, terms of the sum, output channels of the group]``."""
        ordered = np.transpose(np.broadcast_to(weights, self.weights.shape), self.order)
        parts = ordered.reshape(self.groups, ordered.shape[0] // self.groups, -1)
        return np.swapaxes(parts, 1, 2)

    def from_matrices(self, matrices: Array) -> Array:
        """The inverse of `matrices`."""
        shape = [self.weights.shape[axis] for axis in self.order]
        return np.transpose(np.swapaxes(matrices, 1, 2).reshape(shape), np.argsort(self.order))


def form_of(operation: Operation, table: Table) -> Form:
    """The form of a product for the kernels of ``table``."""
    return _convolution(operation, table) if operation.kind == "conv" else dense(operation)


def _convolution(operation: Operation, table: Table) -> Form:
    params = operation.node.params
    numbers = params["dimension_numbers"]
    weights = operation.weights.numpy()
    if table.kernel_order:
        weights = np.transpose(weights, numbers.rhs_spec)
        numbers = numbers._replace(rhs_spec=tuple(range(weights.ndim)))
    names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "feature_group_count", "precision")
    options = {name: params[name] for name in names}

    def convolve(x: Any, w: Any) -> Any:
        return jax.lax.conv_general_dilated(x, w, dimension_numbers=numbers, **options)

    shape = [1] * weights.ndim
    shape[numbers.out_spec[1]] = -1
    return Form(
        weights,
        numbers.rhs_spec[0],
        numbers.rhs_spec[1],
        options["feature_group_count"],
        None,
        tuple(shape),
        lambda x, multiply: multiply(x),
        convolve,
        lambda y: y,
        tuple(numbers.rhs_spec),
    )


def dense(operation: Operation) -> Form:
    """Rows times a matrix: the axes of a dense layer merged into two."""
    node, side = operation.node, operation.operands[0]
    (contracting, _) = node.params["dimension_numbers"]
    free, summed = free_axes(node, side), tuple(contracting[side])
    weight_free, weight_summed = free_axes(node, 1 - side), tuple(contracting[1 - side])
    weights = operation.weights.numpy()
    columns = [weights.shape[k] for k in weight_free]
    depth = math.prod(weights.shape[k] for k in weight_summed)
    matrix = np.transpose(weights, (*weight_summed, *weight_free)).reshape(depth, math.prod(columns))
    rows = [node.inputs[side].shape[k] for k in free]
    precision = node.params["precision"]
    order = (*free, *summed)
    merges = len(free) != 1 or len(summed) != 1

    def around(x: Any, multiply: Callable[[Any], Any]) -> Any:
        x = x if order == tuple(range(len(order))) else jnp.transpose(x, order)
        return multiply(jnp.reshape(x, (math.prod(rows), depth)) if merges else x)

    def dot(x: Any, w: Any) -> Any:
        return jax.lax.dot_general(x, w, (((1,), (0,)), ((), ())), precision=precision)

    def finish(y: Any) -> Any:
        y = jnp.reshape(y, (*rows, *columns)) if len(rows) != 1 or len(columns) != 1 else y
        if side == 0:
            return y
        return jnp.transpose(y, (*range(len(rows), len(rows) + len(columns)), *range(len(rows))))

    return Form(matrix, 1, 0, 1, 0, (-1,), around, dot, finish, (1, 0))


def summed_rows(operation: Operation, array: Array, most: int, rng: np.random.Generator) -> Array:
    """What a product multiplies its weights by, where it makes one number of each output channel.

    Args:
      operation: the product.
      array: its activation.
      most: how many such places are drawn, if there are more.
      rng: draws them.

    Returns:
      float32 ``[groups, places, terms of the sum]``, the terms as in `Form.matrices`.
    """
    if operation.kind == "conv":
        return _windows(operation.node.params, operation.weights.shape, array, most, rng)
    (contracting, _) = operation.node.params["dimension_numbers"]
    side = operation.operands[0]
    free, summed = free_axes(operation.node, side), tuple(contracting[side])
    depth = math.prod(array.shape[axis] for axis in summed)
    rows = np.transpose(array, (*free, *summed)).reshape(-1, depth)
    return rows[_drawn(len(rows), most, rng)][None]


def _windows(params: Any, kernel: tuple[int, ...], array: Array, most: int, rng: np.random.Generator) -> Array:
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    x = np.transpose(array, numbers.lhs_spec)
    for axis, (padding, step) in enumerate(zip(params["padding"], params["lhs_dilation"], strict=True), 2):
        x = _padded(_spread_out(x, axis, step), axis, padding)
    sizes = [kernel[axis] for axis in numbers.rhs_spec[2:]]
    space = range(2, x.ndim)
    spans = [(size - 1) * step + 1 for size, step in zip(sizes, params["rhs_dilation"], strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(x, spans, tuple(space))
    strides = [slice(None, None, step) for step in params["window_strides"]]
    dilations = [slice(None, None, step) for step in params["rhs_dilation"]]
    views = views[(slice(None), slice(None), *strides, *dilations)]
    places = (views.shape[0], *(views.shape[axis] for axis in space))
    chosen: Any = np.unravel_index(_drawn(math.prod(places), most, rng), places)
    rows = views[(chosen[0], slice(None), *chosen[1:])]  # places, channels, window
    return np.swapaxes(rows.reshape(len(rows), groups, -1), 0, 1)


def _spread_out(x: Array, axis: int, step: int) -> Array:
    """Zeros between the numbers of an axis, as a transposed convolution sees them."""
    if step == 1 or x.shape[axis] == 0:
        return x
    shape = [(size - 1) * step + 1 if k == axis else size for k, size in enumerate(x.shape)]
    spread = np.zeros(shape, x.dtype)
    spread[tuple(slice(None, None, step if k == axis else 1) for k in range(x.ndim))] = x
    return spread


def _padded(x: Array, axis: int, padding: tuple[int, int]) -> Array:
    """Zeros at both ends of an axis; negative amounts cut off."""
    low, high = padding
    end = x.shape[axis] + min(high, 0)
    x = x[tuple(slice(max(-low, 0), end) if k == axis else slice(None) for k in range(x.ndim))]
    return np.pad(x, [(max(low, 0), max(high, 0)) if k == axis else (0, 0) for k in range(x.ndim)])


def _drawn(count: int, most: int, rng: np.random.Generator) -> Array:
    return np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
