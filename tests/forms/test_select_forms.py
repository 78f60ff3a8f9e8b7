"""`select-forms`: what it replaces, where, and what it makes of bad forms and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from xlapass.core.errors import UsageError
from xlapass.core.forms import Form, FormTable, FormWarning, Measured, Signature
from xlapass.core.graph import Graph
from xlapass.core.manager import PassManager
from xlapass.core.plugins import Entry, hookimpl, load_registry
from xlapass.core.program import Program
from xlapass.core.timings import Timings
from xlapass.core.tracing import trace
from xlapass.passes.forms.convolution import FORMS as CONVOLUTIONS
from xlapass.passes.forms.known import split

KERNEL = np.linspace(-1, 1, 9 * 16, dtype=np.float32).reshape(3, 3, 1, 16)


def depthwise(x: Any, kernel: Any = KERNEL) -> Any:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=16
    )


def selected(fn: Any, *args: Any, pipeline: str = "select-forms", **options: Any) -> tuple[Program, Program]:
    program = trace(fn, *args)
    return program, PassManager(pipeline, **options).run(program)


def names(program: Program) -> list[str]:
    """Primitives of the program, those in regions included."""
    return [node.name for region in Graph(program.jaxpr).walk() for node in region.nodes()]


IMAGE = jnp.asarray(np.random.default_rng(0).standard_normal((1, 32, 32, 16)), jnp.float32)


def test_a_slow_operation_is_replaced() -> None:
    before, after = selected(depthwise, IMAGE)
    assert names(before) == ["conv_general_dilated"]
    assert "conv_general_dilated" not in names(after)
    np.testing.assert_allclose(after(IMAGE), before(IMAGE), rtol=1e-5, atol=1e-5)


def test_what_depends_on_weights_is_computed_once() -> None:
    kernel = jnp.ones((3, 3, 128, 128))
    before, after = selected(
        lambda x: lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        jnp.ones((1, 14, 14, 128)),
        pipeline='select-forms{only="conv_general_dilated/winograd-2"}',
    )
    assert names(before) == ["conv_general_dilated"]
    assert (16, 128, 128) in [const.shape for const in after.consts]
    assert "dot_general" in names(after)
    x = jnp.ones((1, 14, 14, 128))
    np.testing.assert_allclose(after(x), before(x), rtol=1e-5)


def test_bodies_of_loops_are_entered() -> None:
    def model(x: Any) -> Any:
        return lax.scan(lambda carry, _: (depthwise(carry), None), x, None, length=2)[0]

    before, after = selected(model, IMAGE)
    assert "conv_general_dilated" in names(before)
    assert "conv_general_dilated" not in names(after)
    np.testing.assert_allclose(after(IMAGE), before(IMAGE), rtol=1e-4, atol=1e-4)


def test_new_nodes_know_their_form_and_source() -> None:
    _, after = selected(depthwise, IMAGE)
    graph = Graph(after.jaxpr, provenance=after.provenance)
    assert set(graph.made_by.values()) == {"form conv_general_dilated/tap-sum"}
    assert all("test_select_forms.py" in (node.where or "") for node in graph.nodes())


def test_only_what_is_permitted_is_used() -> None:
    def model(x: Any) -> Any:
        return depthwise(x).sum() + lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME").sum()

    _, after = selected(model, IMAGE, numerics="exact")
    assert "conv_general_dilated" in names(after)
    assert "reduce_window_max" not in names(after)


@pytest.mark.parametrize("option", ['skip="conv_general_dilated/tap-sum"', 'only="cumsum/prefix"', "least-gain=1e9"])
def test_options_leave_forms_out(option: str) -> None:
    _, after = selected(depthwise, IMAGE, pipeline=f"select-forms{{{option}}}")
    assert "conv_general_dilated" in names(after)


def test_an_unknown_form_is_an_error() -> None:
    with pytest.raises(UsageError, match="there is no form 'conv_general_dilated/tap-sun'"):
        selected(depthwise, IMAGE, pipeline='select-forms{skip="conv_general_dilated/tap-sun"}')


def test_symbolic_sizes_and_empty_arrays_are_left_alone() -> None:
    program = trace(depthwise, IMAGE, dynamic=("b, ...",))
    assert not PassManager("select-forms").run(program).history
    _, after = selected(depthwise, jnp.zeros((0, 32, 32, 16)))
    assert "conv_general_dilated" in names(after)


class Plugin:
    """Brings one form of `sin`."""

    def __init__(self, **changes: Any) -> None:
        options = {"fn": lambda x, accuracy: jnp.cos(x - jnp.pi / 2), "applies": lambda s: None, "cost": lambda s: 0.0}
        self.form = Form("shifted-cosine", "sin", **(options | changes))

    @hookimpl
    def xlapass_forms(self) -> dict[str, Entry]:
        return {"trigonometry": Entry([self.form])}


def raises(*args: Any, **params: Any) -> Any:
    raise RuntimeError("broken")


def test_a_plugin_brings_a_form() -> None:
    _, after = selected(jnp.sin, IMAGE, registry=load_registry([Plugin()]))
    assert "cos" in names(after)


@pytest.mark.parametrize(
    "broken", [{"fn": raises}, {"applies": raises}, {"cost": raises}, {"fn": lambda x, accuracy: x.sum()}]
)
def test_a_broken_form_is_a_warning_and_is_not_used(broken: dict[str, Any]) -> None:
    with pytest.warns(FormWarning, match="sin/shifted-cosine"):
        _, after = selected(jnp.sin, IMAGE, registry=load_registry([Plugin(**broken)]))
    assert names(after) == ["sin"]


def sine_signature() -> Signature:
    return Signature.of_node(Graph(jax.make_jaxpr(jnp.sin)(IMAGE)).nodes()[0])


def test_measured_times_decide(tmp_path: Path) -> None:
    file, registry = tmp_path / "times.json", load_registry([Plugin()])
    pipeline = f'select-forms{{timings="{file}"}}'
    for direct, cosine in ((1e-3, 2e-3), (2e-3, 1e-3)):
        timings = Timings()
        timings.record(sine_signature().key, "direct", Measured(direct))
        timings.record(sine_signature().key, "shifted-cosine", Measured(cosine, direct / cosine, direct / cosine))
        timings.write(file)
        _, after = selected(jnp.sin, IMAGE, registry=registry, pipeline=pipeline)
        assert names(after) == ["sin"] if direct < cosine else "cos" in names(after)


def test_times_of_another_machine_do_not_decide(tmp_path: Path) -> None:
    elsewhere = Timings("some other machine")
    elsewhere.record(sine_signature().key, "direct", Measured(1e-6))
    elsewhere.write(tmp_path / "times.json")
    assert Timings.read(tmp_path / "times.json").of(sine_signature().key) is None


def test_files_are_merged(tmp_path: Path) -> None:
    here, there = Timings("here"), Timings("there")
    here.record(sine_signature().key, "direct", Measured(1.0))
    there.record(sine_signature().key, "direct", Measured(2.0))
    here.write(tmp_path / "times.json")
    there.write(tmp_path / "times.json")
    assert Timings.read(tmp_path / "times.json", "here").of(sine_signature().key) == {"direct": Measured(1.0)}


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", '{"format": "other"}', "\0", '{"format": "xlapass timings 2"}'),
        '{"format": "xlapass timings 2", "measured": {"a": {"b": {"c": "fast"}}}}',
        '{"format": "xlapass timings 2", "measured": {"a": {"b": {"c": {"seconds": -1, "gain": [1, 1]}}}}}',
        '{"format": "xlapass timings 2", "measured": {"a": {"b": {"c": {"seconds": NaN, "gain": [1, 1]}}}}}',
        '{"format": "xlapass timings 2", "measured": {"a": {"b": {"c": {"seconds": 1, "gain": 1}}}}}',
    ],
)
def test_a_corrupt_or_foreign_file_is_a_warning(tmp_path: Path, content: str) -> None:
    file = tmp_path / "times.json"
    file.write_text(content)
    with pytest.warns(FormWarning, match="cannot be used"):
        _, after = selected(depthwise, IMAGE, pipeline=f'select-forms{{timings="{file}"}}')
    assert "conv_general_dilated" not in names(after)
    assert file.read_text() == content


def test_signature_keys_are_plain_text() -> None:
    node = Graph(jax.make_jaxpr(depthwise)(IMAGE)).nodes()[0]
    key = Signature.of_node(node).key
    assert key.startswith("conv_general_dilated(float32[1,32,32,16], float32[3,3,1,16] const) {batch_group_count=1,")
    assert "0x" not in key
    assert json.loads(json.dumps(key)) == key


def test_two_forms_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two forms are named sin/shifted-cosine"):
        FormTable([Plugin().form, Plugin().form])


def test_split_keeps_operands_that_are_read_as_they_are() -> None:
    body = jax.make_jaxpr(lambda x, w: x * w + (w * 2).sum())(jnp.ones(3), jnp.ones(3))
    parts = split(body, [1])
    assert parts.sources == [1, None]
    (total,) = parts.prepare([jnp.ones(3)])
    assert total == 6


@pytest.mark.parametrize("name", ["tap-sum", "winograd-2", "winograd-4", "patch-product", "shifted-product"])
@pytest.mark.parametrize("order", ["HWIO", "OIHW"])
def test_numpy_makes_of_kernels_what_xla_makes_of_them(name: str, order: str) -> None:
    group_features = 1 if name == "tap-sum" else 4
    sizes = {"H": 3, "W": 3, "I": group_features, "O": 4}
    kernel = np.random.default_rng(0).standard_normal([sizes[axis] for axis in order]).astype(np.float32)
    image = jnp.ones((1, 6, 6, 4))
    (eqn,) = jax.make_jaxpr(
        lambda x, w: lax.conv_general_dilated(
            x,
            w,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", order, "NHWC"),
            feature_group_count=4 // group_features,
        )
    )(image, kernel).eqns
    (form,) = (form for form in CONVOLUTIONS if form.name == name)
    parts = split(jax.make_jaxpr(lambda x, w: form.fn(x, w, **eqn.params))(image, kernel), [1])
    made = parts.prepare([kernel])
    assert made and all(type(array) is np.ndarray and array.flags.c_contiguous for array in made)
    for got, want in zip(made, parts._compute(kernel), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
