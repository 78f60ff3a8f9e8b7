"""Weights as small integers: per output channel, or in groups along the axis that is summed over."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from .arithmetic import LARGEST_BIAS, Parameters, dequantize_array, limits, quantize_array, spread, symmetric

Array = np.ndarray[Any, Any]
WeightObserver = Literal["min-max", "mse"]
Rounding = Literal["nearest", "balanced", "adaptive"]

SHRUNK = np.linspace(1.0, 0.6, 41)
"""Scales that the search for the least error tries, relative to the one that represents every weight."""


def per_channel(weights: Array, axis: int, observer: WeightObserver = "min-max", dtype: str = "int8") -> Parameters:
    """Symmetric parameters with one scale for each index of ``axis``.

    Args:
      weights: floats.
      axis: of the output channels.
      observer: ``min-max`` represents every weight; ``mse`` saturates the largest where the mean square error of the
        channel becomes less.
      dtype: ``int8`` or ``int4``.
    """
    others = tuple(k for k in range(weights.ndim) if k != axis)
    p = symmetric(weights.min(others), weights.max(others), dtype).moved(axis)
    return _least_error(weights, p, others) if observer == "mse" else p


def per_tensor(weights: Array, dtype: str = "int8") -> Parameters:
    """Symmetric parameters with one scale for all."""
    return symmetric(weights.min(), weights.max(), dtype)


def grouped(weights: Array, axis: int, group: int, dtype: str = "int4") -> Parameters:
    """Symmetric parameters with one scale for ``group`` consecutive weights along ``axis``; the last may be fewer."""
    count = -(-weights.shape[axis] // group)
    padding = [(0, count * group - size if k == axis else 0) for k, size in enumerate(weights.shape)]
    padded = np.pad(weights, padding, mode="edge")
    parts = padded.reshape(*padded.shape[:axis], count, group, *padded.shape[axis + 1 :])
    p = symmetric(parts.min(axis + 1), parts.max(axis + 1), dtype)
    return dataclasses.replace(p, axis=axis, group=group)


def _least_error(weights: Array, p: Parameters, others: tuple[int, ...]) -> Parameters:
    """Each channel's scale, of those in `SHRUNK`, with the least square error."""
    best, least = p.scale, np.full(p.scale.shape, np.inf)
    for share in SHRUNK:
        candidate = dataclasses.replace(p, scale=np.asarray(p.scale * share, np.float32))
        error = ((dequantize_array(quantize_array(weights, candidate), candidate) - weights) ** 2).sum(others)
        best, least = np.where(error < least, candidate.scale, best), np.minimum(error, least)
    return dataclasses.replace(p, scale=np.asarray(best, np.float32))


def balanced(weights: Array, p: Parameters, axis: int) -> Array:
    """Integers of weights, rounded so that the errors of each output channel add up to less than half a step.

    Of the weights whose error has the sign of the sum, those nearest to a half are rounded the other way. Activations
    are seldom centred around zero, and errors that add up shift the whole channel. Guo et al., "SQuant: On-the-Fly
    Data-Free Quantization via Diagonal Hessian Approximation", arXiv:2202.07471, section 3, for whole channels.

    Args:
      weights: floats.
      p: parameters with one scale for each index of ``axis``, or one for all.
      axis: of the output channels.
    """
    scale = spread(p.scale, weights.shape, p.axis, p.group).astype(np.float64)
    low, high = p.limits
    rows = np.moveaxis(weights.astype(np.float64) / scale, axis, 0).reshape(weights.shape[axis], -1)
    numbers = np.clip(np.rint(rows), low, high)
    errors = numbers - rows
    totals = errors.sum(1)
    sign = np.sign(totals)[:, None]
    turned = numbers - sign
    usable = (errors * sign > 0) & (turned >= low) & (turned <= high) & (np.abs(errors) <= 0.5)
    order = np.argsort(np.where(usable, -np.abs(errors), np.inf), axis=1, kind="stable")
    wanted = np.minimum(np.rint(np.abs(totals)), usable.sum(1))
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(rows.shape[1]), rows.shape), axis=1)
    numbers = np.where(rank < wanted[:, None], turned, numbers)
    shape = [weights.shape[axis], *(size for k, size in enumerate(weights.shape) if k != axis)]
    return np.moveaxis(numbers.reshape(shape), 0, axis).astype(np.int64).astype(jnp.dtype(p.dtype))


def room_for_bias(weights: Parameters, input_scale: float, bias: Array | None) -> Parameters:
    """Weight scales raised where the bias, in steps of ``input_scale`` times them, would not fit an int32."""
    if bias is None:
        return weights
    least = np.abs(bias.astype(np.float64)) / (float(input_scale) * LARGEST_BIAS)
    if weights.axis is None:
        least = least.max(initial=0.0)
    return dataclasses.replace(weights, scale=np.asarray(np.maximum(weights.scale, least), np.float32))


def bias_parameters(weights: Parameters, input_scale: float) -> Parameters:
    """Those of the int32 bias that is added to a sum of products."""
    scale = np.asarray(weights.scale.astype(np.float64) * float(input_scale), np.float32)
    tiny = np.finfo(np.float32).tiny
    scale = np.maximum(scale, tiny).astype(np.float32)
    return Parameters(scale, np.zeros(scale.shape, np.int32), "int32", None if weights.axis is None else 0)


def quantize_bias(bias: Array, p: Parameters) -> Array:
    """The int32 numbers of a bias."""
    low, high = limits("int32")
    scale = spread(p.scale, bias.shape, p.axis).astype(np.float64)
    return np.clip(np.rint(bias.astype(np.float64) / scale), low, high).astype(np.int32)


def shift_of_mean(error: Array, channel_axis: int, input_axis: int, groups: int, means: Array) -> Array | None:
    """By how much rounding its weights moves the mean of each output channel of a product.

    Nagel et al., arXiv:1906.04721, section 4.2: subtracted from the bias, it leaves the means what they were.

    Args:
      error: quantized weights minus weights.
      channel_axis, input_axis: of the output and the input channels.
      groups: of input channels; output channels see those of their own group.
      means: of every input channel.

    Returns:
      One number per output channel; None where ``means`` are not those of the input channels.
    """
    others = tuple(k for k in range(error.ndim) if k not in (channel_axis, input_axis))
    table = error.astype(np.float64).sum(others)
    table = table if channel_axis < input_axis else table.T
    outputs, inputs = table.shape
    if means.size != inputs * groups:
        return None
    by_output = np.repeat(means.reshape(groups, inputs), outputs // groups, axis=0)
    return np.asarray((table * by_output).sum(1), np.float64)
