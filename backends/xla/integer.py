"""Which products of a quantized program XLA multiplies as integers: read back from the HLO that it compiled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.extend import core as jex_core

from ...core.kernel_report import Kernel, KernelReport

_TYPES = re.compile(r"%?([\w.\-]+) = (\w+)\[")
_PRODUCT = re.compile(
    r"%?([\w.\-]+) = \w+\[[^=]* (dot|convolution|custom-call)\(([^)]*)\)(?:.*custom_call_target=\"([^\"]*)\")?"
)
_OPERATION = re.compile(r'op_name="([^"]*)"')
_NAME = re.compile(r"%?([\w.\-]+)$")

_LIBRARY = ("matmul", "conv")
"""What a library call has in its name that multiplies."""


def is_quantized(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a program multiplies int8."""
    return any(
        (eqn.primitive.name in ("dot_general", "conv_general_dilated") and _integers(eqn))
        or any(map(is_quantized, jex_core.jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


def _integers(eqn: Any) -> bool:
    return all(v.aval.dtype == np.int8 for v in eqn.invars)


def kernel_report(hlo: str) -> KernelReport:
    """Every product of an optimized module, with the types that it multiplies."""
    types = {name: dtype for name, dtype in (match.groups() for match in _TYPES.finditer(hlo))}
    return KernelReport("XLA", tuple(_kernels(hlo, types)))


def _kernels(hlo: str, types: dict[str, str]) -> Iterator[Kernel]:
    for line in hlo.splitlines():
        match = _PRODUCT.search(line)
        if match is None:
            continue
        name, operation, operands, library = match.groups()
        if operation == "custom-call" and not any(part in (library or "") for part in _LIBRARY):
            continue
        found = [types.get(_NAME.search(operand.strip())[1], "?") for operand in operands.split(",")[:2]]  # type: ignore[index]
        source = _OPERATION.search(line)
        yield Kernel(
            source[1].partition("/")[2] if source else name,
            f"{library or operation} {' x '.join(found)}",
            found == ["s8", "s8"],
            False,
        )
