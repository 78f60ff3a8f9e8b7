"""All forms of convolution, the primitive itself first."""

from __future__ import annotations

from jax.extend.core import primitives

from ...core.forms import direct_form
from . import canonical, depthwise, grouped, patches, pointwise, rank, transposed, weight_gradient, winograd
from .convolution_costs import direct_seconds

FORMS = (
    direct_form(primitives.conv_general_dilated_p, direct_seconds),
    *depthwise.FORMS,
    *pointwise.FORMS,
    *winograd.FORMS,
    *patches.FORMS,
    *rank.FORMS,
    *grouped.FORMS,
    *transposed.FORMS,
    *weight_gradient.FORMS,
    *canonical.FORMS,
)
