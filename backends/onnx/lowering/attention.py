"""Attention as one operator: Attention of opset 23, on (batch, heads, length, depth)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx_ir as ir

from .. import kernels
from ..context import Context
from ..operand import Operand, stored_type

#: The dimensions of the operands and the result of an attention that does not name them.
_HEADS_FIRST = ("bhqd", "bhkd", "bhke"), "bhqe"

#: A fill of at most this leaves nothing of a score, and may as well be added to it.
_NOTHING_LEFT = -1e9


def attention(
    ctx: Context, eqn: Any, attributes: Mapping[str, Any], q: Operand, k: Operand, v: Operand, *masks: Operand
) -> Any:
    """The result, or None where the operator does not fit.

    Attributes: ``scale``, ``is_causal``, ``equation`` with the dimensions by letters (see
    `xlapass.passes.composites.attention`), ``kinds`` of masks ("add", "keep", "drop"), ``fill`` of dropped scores.
    """
    if not _fits(ctx, eqn, q, k, v):
        return None
    (terms, result), named = _terms(attributes, len(masks)), "equation" in attributes
    if any(len(term) != x.rank for term, x in zip(terms, (q, k, v, *masks), strict=True)):
        return None
    is_causal = bool(attributes.get("is_causal") or attributes.get("causal"))
    kinds = attributes.get("kinds", ("add",) * len(masks))
    if is_causal and named:
        masks, kinds = (), ()  # the mask is the triangle
    fill = float(attributes.get("fill", 0.0))
    if {"keep", "drop"} & set(kinds) and fill > _NOTHING_LEFT:
        return None
    batch = "".join(sorted(set(terms[0]) - set("1hgqkde")))
    sizes = _sizes(terms, (q, k, v))
    in_rows = all(_is_in_rows(ctx, x, term, batch) for x, term in zip((q, k, v), terms, strict=False))
    groups: list[tuple[str, ...]] = [(batch, "q", "hgd"), (batch, "k", "hd"), (batch, "k", "he")]
    if not in_rows:
        groups = [(batch, "hg", "q", "d"), (batch, "h", "k", "d"), (batch, "h", "k", "e")]
    inputs = [_placed(ctx, x, t, g) for x, t, g in zip((q, k, v), terms, groups, strict=False)]
    values = [ctx.full(x) for x in inputs]
    if masks:
        scores = (batch, "hg", "q", "k")
        if any(not _whole_groups(term, group, terms[0]) for term in terms[3:] for group in scores[:2]):
            return None
        placed = [_placed(ctx, x, t, scores) for x, t in zip(masks, terms[3:], strict=True)]
        lengths = sizes.get("q", 1), sizes.get("k", 1)
        values.append(_bias(ctx, placed, kinds, fill, lengths, q.dtype))
    scale = attributes.get("scale")
    options: dict[str, Any] = {} if scale is None else {"scale": float(scale)}
    if is_causal:
        options["is_causal"] = 1
    many = {letter: sizes.get(letter, 1) for letter in "hge"}
    heads, shape = many["h"] * many["g"], inputs[0].shape[:-1]
    if in_rows:
        options |= {"q_num_heads": heads, "kv_num_heads": many["h"]}
    value = ctx.op("Attention", *values, typed=(0, 1, 2), **options)
    last = heads * many["e"] if in_rows else many["e"]
    y = ctx.result(value, jax.core.ShapedArray((*shape, last), q.dtype))
    return _back(ctx, y, f"{batch}qhge" if in_rows else f"{batch}hgqe", result, sizes)


def _is_in_rows(ctx: Context, x: Operand, term: str, batch: str) -> bool:
    """Whether an operand lies in memory as (batch, length, heads and depth), as linear layers leave it.

    The operator takes that, too, and spares the transposes.
    """
    made = ctx.origin(x.value)
    if made is not None and made[0] == "Transpose":
        term = "".join(letter for _, letter in sorted(zip(made[2], term, strict=True)))
    letters = [letter for letter in term if letter != "1"]
    wanted = [letter for letter in f"{batch}qkhgde" if letter in letters]
    static = all(isinstance(d, int) for d, letter in zip(x.shape, term, strict=True) if letter in "hgde")
    return letters == wanted and static


def _fits(ctx: Context, eqn: Any, q: Operand, k: Operand, v: Operand) -> bool:
    """Whether there is an operator, and a kernel for the one type of all."""
    if any(x.dtype != q.dtype for x in (k, v)) or eqn.aval.dtype != q.dtype or np.dtype(q.dtype) == np.float64:
        return False
    return ctx.build.has("Attention") and kernels.carrier("Attention", stored_type(q.dtype)) is not None


def _terms(attributes: Mapping[str, Any], masks: int) -> tuple[Sequence[str], str]:
    """The letters of the dimensions of each operand, and of the result."""
    if "equation" not in attributes:
        terms, result = _HEADS_FIRST
        return (*terms, *("bhqk",) * masks), result
    operands, result = attributes["equation"].split("->")
    return operands.split(","), result


def _sizes(terms: Sequence[str], operands: Sequence[Operand]) -> dict[str, Any]:
    """The size of every letter."""
    pairs = (zip(term, x.shape, strict=True) for term, x in zip(terms, operands, strict=False))
    return dict(itertools.chain.from_iterable(pairs))


def _placed(ctx: Context, x: Operand, term: str, groups: Sequence[str]) -> Operand:
    """``x`` with one dimension for each group of letters; of size one where it has none of them."""
    letters = [letter for letter in term if letter != "1"]
    order = [letters.index(letter) for group in groups for letter in group if letter in letters]

    def function(array: jax.Array) -> jax.Array:
        array = array.reshape([size for size, letter in zip(array.shape, term, strict=True) if letter != "1"])
        sizes = dict(zip(letters, array.shape, strict=True))
        shape = [math.prod(sizes[letter] for letter in group if letter in sizes) for group in groups]
        return array.transpose(order).reshape(shape)

    placed: Operand = ctx.trace_and_lower(function, x)[0]
    return placed


def _whole_groups(term: str, group: str, term_of_q: str) -> bool:
    """Whether a mask has all of the letters that the queries have of a group, or none of them."""
    wanted = set(group) & set(term_of_q)
    return set(group) & set(term) in (set(), wanted)


def _bias(
    ctx: Context, masks: Sequence[Operand], kinds: Sequence[str], fill: float, lengths: tuple[Any, Any], dtype: Any
) -> ir.Value:
    """All masks together as what is added to the scores.

    The operator takes booleans, too, but gives zeros where a query sees no key at all, and JAX a mean of the values.
    """
    least = max(fill, float(jnp.finfo(dtype).min))

    def function(*arrays: jax.Array) -> jax.Array:
        total: Any = jnp.zeros((), dtype)
        for array, kind in zip(arrays, kinds, strict=True):
            if kind == "add":
                total = total + array.astype(dtype)
            else:
                total = jnp.where(array, *((total, least) if kind == "keep" else (least, total)))
        return jnp.asarray(total, dtype)

    bias = ctx.trace_and_lower(function, *masks)[0]
    return ctx.full(dataclasses.replace(bias, shape=(*bias.padded[:2], *lengths)))


def _back(ctx: Context, y: Operand, letters: str, result: str, sizes: Mapping[str, Any]) -> Operand:
    """The operator's result with the dimensions of the composite's."""
    held = [letter for letter in letters if letter in result]
    order = [held.index(letter) for letter in result if letter != "1"]

    def function(array: jax.Array) -> jax.Array:
        array = array.reshape([sizes[letter] for letter in held]).transpose(order)
        return array.reshape([1 if letter == "1" else sizes[letter] for letter in result])

    moved: Operand = ctx.trace_and_lower(function, y)[0]
    return moved
