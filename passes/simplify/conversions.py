"""Conversions between dtypes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ...core.node import Node
from ...core.patterns import op, var
from ...core.rewrite import Build, Match, Rule
from .checks import same_type

x = var("x")


def is_lossless(source: Any, target: Any) -> bool:
    """Whether every value of dtype ``source`` has a value of its own in ``target``. NaN counts as one value."""
    source, target = jnp.dtype(source), jnp.dtype(target)
    if source == target or source == np.bool_:
        return not jnp.issubdtype(target, jnp.complexfloating)
    if jnp.issubdtype(source, jnp.integer) and jnp.issubdtype(target, jnp.integer):
        return bool(jnp.iinfo(target).min <= jnp.iinfo(source).min and jnp.iinfo(source).max <= jnp.iinfo(target).max)
    if not jnp.issubdtype(target, jnp.floating):
        return False
    if jnp.issubdtype(source, jnp.integer):
        bound = jnp.finfo(target)
        return bool(
            int(jnp.iinfo(source).max) <= 2 ** (bound.nmant + 1) and float(jnp.iinfo(source).max) <= float(bound.max)
        )
    if jnp.issubdtype(source, jnp.floating):
        inner, outer = jnp.finfo(source), jnp.finfo(target)
        return bool(
            inner.nmant <= outer.nmant
            and float(inner.max) <= float(outer.max)
            and float(inner.smallest_subnormal) >= float(outer.smallest_subnormal)
        )
    return False


def _says_nothing(match: Match) -> str | None:
    return None if match["x"].aval == match.root.outputs[0].aval else "it changes the type"


def why_not_once(source: Any, middle: Any, target: Any) -> str | None:
    """Why converting from ``source`` to ``target`` is not the same as by way of ``middle``; None where it is."""
    if not (isinstance(source, np.dtype) and isinstance(target, np.dtype)) or not is_lossless(source, middle):
        return "the first conversion loses information"
    through_float = jnp.issubdtype(middle, jnp.floating) and not jnp.issubdtype(source, jnp.floating)
    if through_float and target not in (np.float32, np.float64) and not is_lossless(source, target):
        return "a float saturates where an integer wraps around, and may be rounded twice"
    return None


def _inner_is_lossless(match: Match) -> str | None:
    return why_not_once(match["x"].dtype, match["inner"].outputs[0].dtype, match.root.outputs[0].dtype)


def _convert_once(match: Match) -> Any:
    inner: Node = match["inner"]
    return match.like(match.root, inner.inputs[0])


_twice = op.convert_element_type(op.convert_element_type(x, name="inner"))

RULES = [
    Rule("convert-nothing", op.convert_element_type(x), x, _says_nothing),
    Rule("convert-back", _twice, x, lambda match: same_type("x")(match) or _inner_is_lossless(match)),
    Rule("convert-twice", _twice, Build(_convert_once), _inner_is_lossless),
    Rule("copy", op.copy(x) | op.copy_p(x), x),
]
