"""The in-tree plugin of passes: simplification that every backend wants."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.plugins import Entry, hookimpl


@hookimpl
def xlapass_passes() -> Mapping[str, Entry]:
    """The passes of the package `xlapass.passes` that know no backend."""
    return {
        "inline": Entry("xlapass.passes.inline:Inline", "open calls: jit, custom derivatives, closed calls"),
        "dead-code": Entry("xlapass.passes.dead_code:DeadCode", "remove what no output or effect needs"),
        "common-subexpressions": Entry(
            "xlapass.passes.common_subexpressions:CommonSubexpressions", "compute equal things once"
        ),
        "fold-constants": Entry("xlapass.passes.fold_constants:FoldConstants", "compute what is known now"),
        "simplify": Entry("xlapass.passes.simplify:Simplify", "algebraic identities and operations that do nothing"),
        "fold-batch-norm": Entry(
            "xlapass.passes.fold_batch_norm:FoldBatchNorm", "scale and shift into the weights before them"
        ),
        "loop-fission": Entry(
            "xlapass.passes.loop_fission:LoopFission",
            "products that no step of a scan waits for, for all steps at once",
        ),
        "merge-scales": Entry(
            "xlapass.passes.merge_scales:MergeScales", "constant scales and shifts together, and into the weights after"
        ),
        "layout": Entry("xlapass.passes.layout:Layout", "channels-last or channels-first, for the whole program"),
        "mlir": Entry("xlapass.passes.mlir:Mlir", "MLIR passes at the StableHLO level"),
    }
