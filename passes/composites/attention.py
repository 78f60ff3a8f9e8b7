"""Scaled dot-product attention: Vaswani et al., "Attention Is All You Need", arXiv:1706.03762."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ...core.composites import Composite, attributes_of
from ...core.node import Node, Value
from ...core.patterns import Either, Pattern, op, scalar, var
from ...core.rewrite import Match, Rule
from .alignment import Alignment, Part, align
from .causality import is_lower_triangle
from .softmax import SOFTMAX, softmax_of
from .spelling import (
    Describe,
    Filled,
    Through,
    composite_of,
    declines,
    is_movement,
    is_rearrangement,
    number_of,
    outlined,
    same_attributes,
)

BATCH_LETTERS = "acijbh"
"""Of the dimensions that queries, keys and values share, from the last: heads, batch, others."""

KINDS = {"bias": "add", "keep": "keep", "drop": "drop"}
"""The kinds of masks by pattern variable, in the order in which they are applied."""


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *masks: jax.Array,
    equation: str,
    scale: float,
    kinds: tuple[str, ...] = (),
    fill: float = -math.inf,
    is_causal: bool = False,
) -> jax.Array:
    """``softmax(scale * q . k + masks) . v``.

    Args:
      q, k, v: real floats.
      *masks: applied to the scores in turn.
      equation: the dimensions of the operands and the result by letters, as ``"bqhd,bkhd,bkhe,11qk->bqhe"``: batch
        ``b`` and more, heads ``h``, groups of query heads that share a key ``g``, queries ``q``, keys ``k``, depth
        ``d``, depth of values ``e``; ``1`` is a dimension of size one.
      scale: of the scores.
      kinds: for each mask: "add", of floats; "keep" and "drop", of booleans that say which scores stay.
      fill: what scores become that do not.
      is_causal: the only mask is the lower triangle: a query sees the keys up to its own position, counted from the
        first.

    Returns:
      An array with the dimensions of the equation's result.
    """
    terms, result = equation.split("->")
    (*operands,) = (
        x.reshape([size for size, letter in zip(x.shape, term, strict=True) if letter != "1"])
        for x, term in zip((q, k, v, *masks), terms.split(","), strict=True)
    )
    letters = [term.replace("1", "") for term in terms.split(",")]
    inner = "".join(letter for letter in f"{BATCH_LETTERS}gqk" if letter in letters[0] + letters[1])
    scores = jnp.einsum(f"{letters[0]},{letters[1]}->{inner}", *operands[:2]) * scale
    for mask, term, kind in zip(operands[3:], letters[3:], kinds, strict=True):
        mask = jnp.einsum(f"{term}->{''.join(x for x in inner if x in term)}", mask)
        mask = mask.reshape([size if x in term else 1 for x, size in zip(inner, scores.shape, strict=True)])
        scores = scores + mask if kind == "add" else jnp.where(mask == (kind == "keep"), scores, fill)
    weights = jax.nn.softmax(scores, inner.index("k"))
    y = jnp.einsum(f"{inner},{letters[2]}->{result.replace('1', '')}", weights, operands[2])
    return jnp.expand_dims(y, [i for i, letter in enumerate(result) if letter == "1"])


# -- pattern ---------------------------------------------------------------------------------------------------------


def _times(pattern: Pattern, name: str) -> Either:
    """``pattern``, perhaps times a number."""
    return _scaled(pattern, name) | pattern


def _scaled(pattern: Pattern, name: str) -> Either:
    return op.mul(pattern, scalar(f"{name}_factor")) | op.div(pattern, scalar(f"{name}_divisor"))


def _operand(name: str) -> Either:
    """Queries or keys, perhaps times a number before they were transposed."""
    return Through(_scaled(var(name), name), is_rearrangement) | var(name)


def _moved(pattern: Pattern) -> Through:
    return Through(pattern, is_movement)


def _scores() -> Pattern:
    q, k = _operand("q"), _operand("k")
    products = _moved(op.dot_general(q, k, name="product") | op.dot_general(k, q, name="product"))
    scaled = _moved(_times(products, "product"))
    biased = _moved(op.add(scaled, var("bias")) | scaled)
    fill = Filled("fill")
    return _moved(op.select_n(var("keep"), fill, biased) | op.select_n(var("drop"), biased, fill) | biased)


def _attention() -> Either:
    scores, v = _scores(), var("v")
    weights = _moved(composite_of(SOFTMAX.name, scores, binds="softmax") | softmax_of(scores))
    return op.dot_general(weights, v) | op.dot_general(v, weights)


# -- meaning ---------------------------------------------------------------------------------------------------------

_Parts = frozenset[Part | None]


@dataclasses.dataclass(frozen=True)
class _Roles:
    """What the parts of dimensions are for; see the letters of `attention`."""

    batch: _Parts
    queries: _Parts
    keys: _Parts
    depth: _Parts
    values: _Parts

    def letters(self, order: Sequence[Part | None]) -> dict[Part | None, str] | str:
        """The letter of each part; ``order`` is that of the dimensions of the queries."""
        if len(self.batch) > len(BATCH_LETTERS) or len(self.queries) > 2 or len(self.depth | self.values) > 2:
            return "it has more dimensions than letters"
        batch = [part for part in order if part in self.batch]
        letters = dict(zip(reversed(batch), reversed(BATCH_LETTERS), strict=False))
        queries = [part for part in order if part in self.queries]
        if len(queries) == 2 and not (batch and order.index(queries[0]) == order.index(batch[-1]) + 1):
            queries.reverse()  # a group of heads stands behind the head whose keys it shares
        letters.update(zip(reversed(queries), "qg", strict=False))
        for parts, letter in ((self.keys, "k"), (self.depth, "d"), (self.values, "e")):
            letters.update(dict.fromkeys(parts, letter))
        return letters


def _describe(*masks: str) -> Describe:
    operands = ("q", "k", "v", *masks)

    def describe(match: Match) -> dict[str, Any] | str:
        if sorted(masks) != sorted(set(KINDS) & set(match.bindings)):
            return "its masks are others"
        alignment = align(match, *operands)
        if isinstance(alignment, str):
            return alignment
        dims = {name: alignment.of(match[name]) for name in operands} | {"y": alignment.of(match.root.outputs[0])}
        if any(len(dim) > 1 for of_one in dims.values() for dim in of_one):
            return "a reshape divides its dimensions"
        roles = _roles(match, alignment, {name: _parts(of_one) for name, of_one in dims.items()})
        letters = roles if isinstance(roles, str) else roles.letters([part for dim in dims["q"] for part in dim])
        if isinstance(letters, str):
            return letters
        terms = {n: "".join(letters[d[0]] if d else "1" for d in of_one) for n, of_one in dims.items()}
        attributes: dict[str, Any] = {
            "equation": f"{','.join(terms[name] for name in operands)}->{terms['y']}",
            "scale": _scale(match),
            "kinds": tuple(KINDS[name] for name in masks),
            "is_causal": len(masks) == 1 and _is_causal(match[masks[0]], KINDS[masks[0]], terms[masks[0]]),
        }
        return attributes | ({"fill": number_of(match, "fill")} if {"keep", "drop"} & set(masks) else {})

    return describe


def _roles(match: Match, alignment: Alignment, parts: dict[str, _Parts]) -> _Roles | str:
    """Sorts the parts by who has them, and checks that the products and the softmax treat them accordingly."""
    q, k, v, y = (parts[name] for name in "qkvy")
    roles = _Roles(batch=q & k & v, queries=q - k - v, keys=(k & v) - q, depth=(q & k) - v, values=v - q - k)
    if (q & v) - k or k - q - v or len(roles.keys) != 1:
        return "its operands do not share dimensions as queries, keys and values do"
    if _softmax_parts(match, alignment) != roles.keys:
        return "its softmax is not over the keys"
    if _contracted(match["product"], alignment) != roles.depth or _contracted(match.root, alignment) != roles.keys:
        return "its products are over other dimensions"
    if y != roles.batch | roles.queries | roles.values:
        return "its result has other dimensions"
    if any(not parts[name] <= roles.batch | roles.queries | roles.keys for name in KINDS if name in parts):
        return "its mask has dimensions that the scores do not have"
    return roles


def _softmax_parts(match: Match, alignment: Alignment) -> _Parts | None:
    if "softmax" in match.bindings:
        node = match["softmax"]
        return _parts([alignment.of(node.outputs[0])[attributes_of(node)["axis"]]])
    first, *others = alignment.reductions
    return frozenset(first) if all(other == first for other in others) else None


def _contracted(node: Node, alignment: Alignment) -> _Parts:
    (axes, _), _ = node.params["dimension_numbers"]
    dims = alignment.of(node.inputs[0])
    return _parts([dims[axis] for axis in axes])


def _parts(dims: Sequence[tuple[Part | None, ...]]) -> _Parts:
    return frozenset(part for dim in dims for part in dim)


def _scale(match: Match) -> float:
    scale = 1.0
    for name in match.bindings:
        if name.endswith("_factor"):
            scale *= number_of(match, name)
        elif name.endswith("_divisor"):
            scale /= number_of(match, name)
    return scale


def _is_causal(mask: Value, kind: str, term: str) -> bool:
    """Whether a mask lets every query see just the keys up to its own position."""
    return is_lower_triangle(mask, kind, term.find("q"), term.find("k"))


# -- rules -----------------------------------------------------------------------------------------------------------

_OUTLINE = Composite("xlapass.attention", attention)


def _found(*masks: str) -> Rule:
    describe = _describe(*masks)
    name = "-".join(("attention", *masks))
    return Rule(name, _attention(), outlined(_OUTLINE, ("q", "k", "v", *masks), describe), declines(describe))


def _transposed(count: int) -> Rule:
    """The result in another order of dimensions."""
    names = ("q", "k", "v", "first", "second")[:count]
    inner = composite_of(_OUTLINE.name, *map(var, names), binds="inner")

    def describe(match: Match) -> dict[str, Any]:
        attributes = same_attributes(match)
        terms, result = attributes["equation"].split("->")
        moved = "".join(result[i] for i in match.root.params["permutation"])
        return attributes | {"equation": f"{terms}->{moved}"}

    return Rule(f"attention-transposed-{count}", op.transpose(inner), outlined(_OUTLINE, names, describe))


ATTENTION = dataclasses.replace(
    _OUTLINE,
    rules=(
        *(_found(*masks) for masks in ((), ("bias",), ("keep",), ("drop",), ("bias", "keep"), ("bias", "drop"))),
        *map(_transposed, (3, 4, 5)),
    ),
)
"""``ATTENTION(q, k, v, *masks, equation=..., scale=..., kinds=..., is_causal=...)``."""
