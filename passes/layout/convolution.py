"""Convolutions in the wanted layout, between transposes."""

from __future__ import annotations

from collections.abc import Sequence

from jax import lax
from jax.extend import core as jex_core

from ...core.graph import Graph
from ...core.node import Node, Value
from .permutation import Permutation, channels_first, channels_last, inverse, is_identity

transpose_p = jex_core.primitives.transpose_p


def convert_convolution(graph: Graph, node: Node, to: str) -> bool:
    """Puts transposes around a convolution so that its images are in layout ``to``; returns whether it had to.

    Images are the operands and results whose spatial axes stand together, first or last. In the gradient of a kernel
    the right operand is an image as well and the result is a kernel. Kernels are transposed only where they are
    constants, since that costs nothing once folded.
    """
    numbers = node.params["dimension_numbers"]
    lhs, rhs, out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    is_kernel_gradient = lhs[0] != 0
    lhs_perm = _image_permutation(lhs, to)
    if is_kernel_gradient:
        rhs_perm, out_perm = _image_permutation(rhs, to), None
    else:
        rhs_perm = _kernel_permutation(rhs, to) if node.inputs[1].is_const else None
        out_perm = _image_permutation(out, to)
    if lhs_perm is None and rhs_perm is None and out_perm is None:
        return False
    inputs = [
        permute(graph, value, perm, before=node) for value, perm in zip(node.inputs, (lhs_perm, rhs_perm), strict=True)
    ]
    specs = (_moved(lhs, lhs_perm), _moved(rhs, rhs_perm), _moved(out, out_perm))
    params = {**node.params, "dimension_numbers": lax.ConvDimensionNumbers(*specs)}
    result = graph.emit(node.primitive, inputs, params, before=node, rule="layout")[0]
    restore = inverse(out_perm) if out_perm is not None else None
    graph.replace(node.outputs[0], permute(graph, result, restore, before=node))
    graph.erase_dead(node)
    return True


def permute(graph: Graph, value: Value, perm: Permutation | None, *, before: Node) -> Value:
    """``value`` transposed by ``perm``; itself where that is nothing to do.

    A transpose that is there already is used again; for that it moves up to where ``value`` is computed.
    """
    if perm is None or is_identity(perm):
        return value
    existing = transpose_of(value, perm)
    if existing is not None and existing is not before:
        position = graph.after(value)
        result = graph.emit(transpose_p, [value], {"permutation": perm}, before=position, rule="layout")[0]
        graph.replace(existing.outputs[0], result)
        graph.erase_dead(existing)
        return result
    return graph.emit(transpose_p, [value], {"permutation": perm}, before=before, rule="layout")[0]


def transpose_of(value: Value, perm: Permutation) -> Node | None:
    """A node that transposes ``value`` by ``perm`` already."""
    for user in value.users:
        if user.name == "transpose" and tuple(user.params["permutation"]) == perm:
            return user
    return None


def _image_permutation(spec: Sequence[int], to: str) -> Permutation | None:
    """How to transpose an image for layout ``to``; None when it has that layout, or neither of the two."""
    rank = len(spec)
    spatial = tuple(spec[2:])
    if to == "nhwc" and spatial == tuple(range(2, rank)):
        return channels_last(rank) if rank > 2 else None
    if to == "nchw" and spatial == tuple(range(1, rank - 1)):
        return channels_first(rank) if rank > 2 else None
    return None


def _kernel_permutation(spec: Sequence[int], to: str) -> Permutation | None:
    """How to transpose a kernel to (spatial..., I, O) or (O, I, spatial...)."""
    out, in_, *spatial = spec
    wanted = (*spatial, in_, out) if to == "nhwc" else (out, in_, *spatial)
    return None if is_identity(wanted) else tuple(wanted)


def _moved(spec: Sequence[int], perm: Permutation | None) -> tuple[int, ...]:
    """Where the axes named by ``spec`` are after transposing by ``perm``."""
    if perm is None:
        return tuple(spec)
    places = inverse(perm)
    return tuple(places[axis] for axis in spec)


def is_convolution(node: Node) -> bool:
    """Whether ``node`` is a convolution over at least one spatial axis."""
    return node.name == "conv_general_dilated" and len(node.inputs[0].shape) > 2
