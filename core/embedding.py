"""Which constants of a program XLA should see: as literals of the executable, or as arguments that stay on the device.

A literal can be folded, laid out and packed at compile time, but compile time and memory grow with it, and the layout
XLA then picks is not always the better one. ``benchmarks/embed_constants.py`` measures where a literal pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.extend import core as jex_core

from .primitives import CALLS

# An argument costs about a third of a microsecond a call; a literal of this size costs nothing that can be measured.
SMALL_BYTES = 4096

# Of convolution kernels in all. Each byte adds about three to the peak memory of compilation, and 20 ns to its time.
KERNEL_BYTES = 128 << 20

# What may stand between a constant and its convolution: XLA folds these when the constant is a literal.
_FOLDED = frozenset({"transpose", "reshape", "rev", "convert_element_type", "copy", "squeeze", "expand_dims"})


def constants_to_embed(program: jex_core.ClosedJaxpr) -> tuple[bool, ...]:
    """Returns, for each of the program's ``consts``, whether it should be a literal.

    These are arrays of up to ``SMALL_BYTES`` and, unless they have more than ``KERNEL_BYTES`` in all, the kernels of
    convolutions and what loops join, such as the weights of the gates of an LSTM. Other weights of matrix products are
    arguments.
    """
    sizes = [int(const.nbytes) for const in program.consts]
    positions = {var: position for position, var in enumerate(program.jaxpr.constvars)}
    kernels = _convolution_kernels(program.jaxpr, positions) | _joined_in_loops(program.jaxpr, positions)
    if sum(sizes[position] for position in kernels) > KERNEL_BYTES:
        kernels = set()
    return tuple(size <= SMALL_BYTES or position in kernels for position, size in enumerate(sizes))


def _convolution_kernels(jaxpr: jex_core.Jaxpr, positions: Mapping[Any, int]) -> set[int]:
    """The positions of those variables in ``positions`` that reach the second operand of a convolution."""
    known = dict(positions)
    found: set[int] = set()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        sources = [None if isinstance(v, jex_core.Literal) else known.get(v) for v in equation.invars]
        if name == "conv_general_dilated" and sources[1] is not None:
            found.add(sources[1])
        elif name in _FOLDED and sources[0] is not None:
            known[equation.outvars[0]] = sources[0]
        elif name in CALLS:
            for body in jex_core.jaxprs_in_params(equation.params):
                inner = zip(body.invars, sources, strict=True)
                found |= _convolution_kernels(body, {var: source for var, source in inner if source is not None})
    return found


def _joined_in_loops(jaxpr: jex_core.Jaxpr, positions: Mapping[Any, int]) -> set[int]:
    """The positions of those variables in ``positions`` that the body of a loop concatenates.

    XLA moves that out of the loop, but only of literals does it do it once and not at each call.
    """
    found: set[int] = set()
    for equation in jaxpr.eqns:
        sources = [None if isinstance(v, jex_core.Literal) else positions.get(v) for v in equation.invars]
        name = equation.primitive.name
        if name not in ("scan", "while") and name not in CALLS:
            continue
        for body, first in _bodies(equation):
            inner = zip(body.invars, sources[first:], strict=False)
            known = {var: source for var, source in inner if source is not None}
            found |= _joined_in_loops(body, known)
            if name not in CALLS:
                joined = [var for part in body.eqns if part.primitive.name == "concatenate" for var in part.invars]
                found |= {known[var] for var in joined if not isinstance(var, jex_core.Literal) and var in known}
    return found


def _bodies(equation: jex_core.JaxprEqn) -> list[tuple[jex_core.Jaxpr, int]]:
    """The body of a call, of a scan or of a while loop, and which operand its first input is."""
    if equation.primitive.name == "while":
        return [(equation.params["body_jaxpr"].jaxpr, equation.params["cond_nconsts"])]
    return [(body, 0) for body in jex_core.jaxprs_in_params(equation.params)]
