"""`Target`: what a program is compiled for. Imports nothing heavy, so that listings stay quick."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Target:
    """What a program is compiled for.

    Attributes:
      name: such as ``cpu`` or ``h100``.
      platform: what the backend compiles to: ``cpu``, ``cuda``, ``onnx``, ``tflite``, ...
      properties: further facts that passes and backends of this platform know how to read.
    """

    name: str
    platform: str
    properties: Mapping[str, Any] = dataclasses.field(default_factory=dict)
