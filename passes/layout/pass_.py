"""The pass `layout`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from ...core.graph import Graph
from ...core.pass_ import GraphPass, PassContext, PassResult
from ...core.program import Program
from ...core.rewrite import Numerics
from .control_flow import move_through_bodies
from .convolution import convert_convolution, is_convolution
from .interface import convert_interface
from .sinking import sink_transposes

ROUNDS = 8
"""Transposes cross one level of control flow per round."""


@dataclasses.dataclass(frozen=True)
class Layout(GraphPass):
    """Converts images to channels-last (``nhwc``) or channels-first (``nchw``), 1-D and 3-D ones likewise.

    Every convolution gets transposes around it; these sink through everything that does not mind, cancel where they
    meet, and become part of constant weights. At most those at inputs and outputs remain.

    Attributes:
      to: the layout.
      io: who owns the transposes at inputs and outputs: with ``keep`` the program takes and gives what it did before;
        with ``convert`` its inputs and outputs change to the new layout, and the caller transposes.
    """

    name: ClassVar[str] = "layout"
    numerics: ClassVar[Numerics] = "reassociating"

    to: Literal["nhwc", "nchw"] = "nhwc"
    io: Literal["keep", "convert"] = "keep"

    def run(self, program: Program, context: PassContext) -> PassResult:
        """As any graph pass, and converts the program's interface when asked."""
        result = super().run(program, context)
        return convert_interface(result) if self.io == "convert" and result.changed else result

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Converts the convolutions of every region, then moves transposes until none moves."""
        converted = 0
        for region in graph.walk():
            for node in region.nodes():
                if is_convolution(node):
                    converted += convert_convolution(region, node, self.to)
        if not converted:
            return False
        for _ in range(ROUNDS):
            moved = False
            for region in graph.walk():
                moved |= sink_transposes(region)
            for region in list(graph.walk()):
                moved |= move_through_bodies(region)
            if not moved:
                break
        context.details["convolutions"] = converted
        return True
