"""What the plugin brings. Implementations are named as text and imported when first used."""

from collections.abc import Mapping, Sequence

from xlapass import Entry, NamedPipeline, PhasePasses, Target, hookimpl


@hookimpl
def xlapass_passes() -> Mapping[str, Entry]:
    """Two passes."""
    return {
        "round-weights": Entry("xlapass_example.passes:RoundWeights", "round weights to a few bits of mantissa"),
        "count-weights": Entry("xlapass_example.passes:CountWeights", "report how many weights there are, by type"),
    }


@hookimpl
def xlapass_rules() -> Mapping[str, Entry]:
    """Rules for a pass that somebody else wrote."""
    return {"simplify": Entry("xlapass_example.rules:SIMPLIFY", "reciprocal roots, squares of absolute values")}


@hookimpl
def xlapass_composites() -> Mapping[str, Entry]:
    """An operation, and a replacement for it on one platform."""
    return {
        "example.squared_relu": Entry("xlapass_example.composites:SQUARED_RELU", "max(x, 0) ** 2"),
        "example.squared_relu/cpu": Entry("xlapass_example.composites:SQUARED_RELU_ON_CPU", "the maximum last"),
    }


@hookimpl
def xlapass_backends() -> Mapping[str, Entry]:
    """A backend."""
    return {"numpy-script": Entry("xlapass_example.backend:NumpyScript", "a Python file that needs only NumPy")}


@hookimpl
def xlapass_targets() -> Mapping[str, Entry]:
    """What the backend compiles for."""
    return {"numpy": Entry(Target("numpy", "numpy"), "any machine with NumPy")}


@hookimpl
def xlapass_pipelines() -> Mapping[str, NamedPipeline]:
    """A pipeline that ends in the backend."""
    passes = [
        "inline",
        "fixpoint(simplify,fold-constants,dead-code)",
        "fuse{only=squared-relu}",
        "lower-composites{keep=example.squared_relu}",
        "phase(legalize)",
        "phase(finish)",
    ]
    return {
        "numpy": NamedPipeline(
            ",".join(passes), backend="numpy-script", target="numpy", summary="Python files that need only NumPy"
        )
    }


@hookimpl
def xlapass_phases() -> Sequence[PhasePasses]:
    """The analysis runs at the end of every pipeline."""
    return [PhasePasses("finish", "count-weights")]
