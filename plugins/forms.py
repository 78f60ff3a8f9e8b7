"""The in-tree plugin of lowering forms: what XLA:CPU runs faster when it is said differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.plugins import Entry, PhasePasses, hookimpl


@hookimpl
def xlapass_passes() -> Mapping[str, Entry]:
    """The passes that put other operations in the place of slow ones, and the one that measures them."""
    return {
        "tune": Entry("xlapass.passes.tune:Tune", "measure forms on this machine, for select-forms"),
        "partial-sort": Entry(
            "xlapass.passes.partial_sort:PartialSort", "sorts of which little is read find just that"
        ),
        "banded-products": Entry(
            "xlapass.passes.banded_products:BandedProducts",
            "products with mostly empty matrices, without the zeros",
        ),
        "select-forms": Entry("xlapass.passes.select_forms:SelectForms", "say slow operations in a faster way"),
    }


@hookimpl
def xlapass_forms() -> Mapping[str, Entry]:
    """The families of forms of the package `xlapass.passes.forms`."""
    return {
        "convolution": Entry("xlapass.passes.forms.convolution:FORMS", "convolutions and their gradients"),
        "pooling": Entry("xlapass.passes.forms.pooling:FORMS", "windowed reductions"),
        "pooling-gradient": Entry("xlapass.passes.forms.pooling_gradient:FORMS", "derivatives of max pooling"),
        "dots": Entry("xlapass.passes.forms.dots:FORMS", "matrix products"),
        "top-k": Entry("xlapass.passes.forms.top_k:FORMS", "the largest few of short rows"),
        "sorting": Entry("xlapass.passes.forms.sorting:FORMS", "sorts of floats"),
        "extrema": Entry("xlapass.passes.forms.extrema:FORMS", "argmax and argmin"),
        "cumulative": Entry("xlapass.passes.forms.cumulative:FORMS", "cumulative sums, products and extremes"),
    }


@hookimpl
def xlapass_phases() -> Sequence[PhasePasses]:
    """Forms by the cost model; `tune` replaces its estimates by measurements."""
    return [PhasePasses("legalize", "partial-sort,banded-products,select-forms", pipelines=("cpu",))]
