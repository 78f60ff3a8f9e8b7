"""Normalization over groups of channels, and over each channel.

Wu and He, "Group Normalization", arXiv:1803.08494; Ulyanov, Vedaldi and Lempitsky, "Instance Normalization",
arXiv:1607.08022.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...core.composites import Composite
from ...core.patterns import op
from ...core.rewrite import Match, Rule
from .layer_norm import LAYER_NORM
from .normalization import (
    CENTERED_ROUNDED,
    SCALE,
    VARIANCE,
    X,
    all_of,
    biased_rules,
    finding_rules,
    growing_rules,
    lies_along,
    scaled_over_root,
    spread,
    statistics,
)
from .spelling import Through, composite_of, declines, number_of, outlined, same_attributes


def group_norm(
    x: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    groups: int,
    axis: int,
    epsilon: float,
) -> jax.Array:
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias``; statistics are of a group of channels of one example.

    Args:
      x: real floats of shape ``[batch, ...]``, with the channels at ``axis``.
      scale, bias: of one number for each channel.
      groups: neighbouring channels fall into this many groups.
      axis: of the channels, positive.
      epsilon: added to the variance.

    Returns:
      An array of the shape and dtype of ``x``, or of the widest operand.
    """
    shape = x.shape
    grouped = x.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    axes = tuple(i for i in range(1, grouped.ndim) if i != axis)
    centered = grouped - grouped.mean(axes, keepdims=True)
    y = (centered * lax.rsqrt(jnp.square(centered).mean(axes, keepdims=True) + epsilon)).reshape(shape)
    y = y if scale is None else y * spread(scale, x, (axis,))
    return y if bias is None else y + spread(bias, x, (axis,))


def instance_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array | None = None, *, axis: int, epsilon: float
) -> jax.Array:
    """As `group_norm` with one channel in each group."""
    return group_norm(x, scale, bias, groups=x.shape[axis], axis=axis, epsilon=epsilon)


def _over_groups(match: Match) -> dict[str, Any] | str:
    read = statistics(match)
    if isinstance(read, str):
        return read
    if len(read.divided) != 1 or read.kept != (0,):
        return "its statistics are not of groups of channels of each example"
    (axis,) = read.divided
    channel = read.parts_along((axis,))
    if len(channel) != 2 or channel[0] is None or channel[0] in read.alignment.reductions[0]:
        return "its groups are not of neighbouring channels"
    if "scale" in match.bindings and read.parts("scale") != channel:
        return "its scale does not lie along the channels"
    groups = read.alignment.size_of(channel[0])
    return {"groups": groups, "axis": axis, "epsilon": number_of(match, "epsilon")}


def _over_instances(match: Match) -> dict[str, Any] | str:
    read = statistics(match)
    if isinstance(read, str):
        return read
    if read.divided or len(read.kept) != 2 or read.kept[0] != 0:
        return "its statistics are not of each channel of each example"
    axis = read.kept[1]
    if read.parts("scale") != read.parts_along((axis,)):
        return "its scale does not lie along the channels"
    return {"axis": axis, "epsilon": number_of(match, "epsilon")}


def _instances_of_layer_norm(match: Match) -> dict[str, Any] | str:
    inner = same_attributes(match)
    kept = [i for i in range(len(match["x"].shape)) if i not in all_of(inner["axis"])]
    if len(kept) != 2 or kept[0] != 0:
        return "its statistics are not of each channel of each example"
    if not lies_along(match, "scale", (kept[1],)):
        return "its scale does not lie along the channels"
    return {"axis": kept[1], "epsilon": inner["epsilon"]}


_GROUP = Composite("xlapass.group_norm", group_norm)
_INSTANCE = Composite("xlapass.instance_norm", instance_norm)

GROUP_NORM = dataclasses.replace(
    _GROUP,
    rules=(
        *finding_rules(_GROUP, "group-norm", CENTERED_ROUNDED, VARIANCE, _over_groups),
        *growing_rules(_GROUP, "group-norm"),
    ),
)
"""``GROUP_NORM(x[, scale[, bias]], groups=..., axis=..., epsilon=...)``."""

INSTANCE_NORM = dataclasses.replace(
    _INSTANCE,
    rules=(
        Rule(
            "instance-norm-scaled",
            scaled_over_root(CENTERED_ROUNDED, VARIANCE),
            outlined(_INSTANCE, ("x", "scale"), _over_instances),
            declines(_over_instances),
        ),
        Rule(
            "instance-norm-of-layer-norm",
            op.mul(composite_of(LAYER_NORM.name, X, binds="inner"), Through(SCALE)),
            outlined(_INSTANCE, ("x", "scale"), _instances_of_layer_norm),
            declines(_instances_of_layer_norm),
        ),
        *biased_rules(_INSTANCE, "instance-norm", composite_of(_INSTANCE.name, X, SCALE, binds="inner")),
    ),
)
"""``INSTANCE_NORM(x, scale[, bias], axis=..., epsilon=...)``."""
