"""Constants in the small type, and which of them do not fit it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ...core.graph import Graph
from ...core.node import Value
from ..fold_constants import aligned_empty, as_constants, is_known

MOST_LOST = 4
"""A constant stays float32 where rounding it moves it, as a vector, by more than so many half units of the last place:
its numbers are so small that the type has few digits or none for them."""


class Constants:
    """The constants of one program in ``dtype``; each array is rounded once.

    Attributes:
      dtype: the small type.
      bytes: how many bytes were rounded.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.bytes = 0
        # With the original, which keeps its address from being used for another array.
        self._rounded: dict[int, tuple[Any, np.ndarray[Any, Any]]] = {}
        self._held: dict[int, Value] = {}

    def put(self, graph: Graph, value: Value) -> Value:
        """The rounded constant, as a value of ``graph``."""
        array = self._round(value)
        aval = value.aval.update(dtype=self.dtype, weak_type=False)
        if not value.shape:
            return graph.constant(array)
        held = self._held.get(id(value.const))
        if held is None:
            self.bytes += 4 * array.size
            held = self._held[id(value.const)] = as_constants(graph, [array], [aval])[0]
        return held if held in graph.constants else graph.constant(held.const)

    def why_not(self, value: Value) -> str | None:
        """Why a constant stays in float32, or None."""
        if not is_known(value):
            return None
        array, rounded = value.numpy(), self._round(value)
        if not np.array_equal(np.isfinite(array), np.isfinite(rounded)):
            return f"a constant of it is beyond the largest {self.dtype}, {float(jnp.finfo(self.dtype).max):.5g}"
        if float(jnp.finfo(self.dtype).tiny) <= float(jnp.finfo(np.float32).tiny):
            return None  # as small as float32 goes, so does the type
        scale = np.abs(array, where=np.isfinite(array), out=np.zeros_like(array)).max(initial=0)
        if scale == 0:
            return None
        with np.errstate(invalid="ignore"):  # infinities, which are the same in both
            ratios, lost = array / scale, (array - rounded.astype(np.float32)) / scale
        finite = np.isfinite(ratios)
        allowed = MOST_LOST * float(jnp.finfo(self.dtype).eps) / 2 * np.linalg.norm(ratios[finite])
        if np.linalg.norm(lost[finite]) > allowed:
            return f"a constant of it is too small for {self.dtype}"
        return None

    def _round(self, value: Value) -> np.ndarray[Any, Any]:
        known = self._rounded.get(id(value.const))
        if known is None:
            array = value.numpy()
            rounded = aligned_empty(array.shape, self.dtype)
            with np.errstate(over="ignore"):
                np.copyto(rounded, array, casting="unsafe")
            known = self._rounded[id(value.const)] = value.const, rounded
        return known[1]
