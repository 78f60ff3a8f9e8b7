"""`mixed-precision`: products in a smaller float, everything that needs the digits in float32."""

from __future__ import annotations

from .pass_ import MixedPrecision as MixedPrecision
