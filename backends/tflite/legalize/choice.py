"""Which form an operation takes on carriers."""

from __future__ import annotations

import numpy as np

from .bitcasts import why_no_bits
from .carriers import kind_of
from .complexes import choose_complex
from .keys import choose_key, counters, threefry
from .real import choose_real
from .retype import Retyping, Site
from .solves import solved_at


def choose(site: Site) -> Retyping | str:
    """The form of an operation that has an operand or a result of a carried type, or why it has none."""
    kinds = {kind_of(getattr(aval, "dtype", None)) for aval in (*site.operands, *site.results)}
    name = site.node.name
    if "key" in kinds or name == "random_seed":
        return choose_key(site)
    if name == "custom_linear_solve":
        return Retyping(solved_at, opens=True)
    if name == "threefry2x32":
        return Retyping(threefry)
    if name == "iota_2x32_shape":
        return Retyping(counters)
    if "complex" in kinds:
        return choose_complex(site)
    if name == "bitcast_convert_type":
        reason = why_no_bits(site.operands[0].dtype, np.dtype(site.dtype))
        if reason is not None:
            return reason
    return choose_real(site)
