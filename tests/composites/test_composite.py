"""`Composite`, kernels, and what `lower-composites` and `fuse` make of them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas
from support import operations
from xlapass.core.backend import Legality, LegalityTable
from xlapass.core.composites import Composite, Kernel, attributes_of, composites, find_kernel
from xlapass.core.errors import PassError, UsageError
from xlapass.core.graph import Graph
from xlapass.core.instruments.numerics import NumericalVerifier
from xlapass.core.instruments.report import Report
from xlapass.core.patterns import op, var
from xlapass.core.plugins import Entry
from xlapass.core.rewrite import Rule
from xlapass.core.target import Target
from xlapass.core.tracing import trace
from xlapass.passes.composites.gelu import GELU
from xlapass.passes.composites.silu import SILU
from xlapass.testing import program_text

X = jnp.linspace(-3.0, 3.0, 12).reshape(3, 4)
CPU, GPU = Target("cpu", "cpu"), Target("gpu", "cuda")

x, y = var("x"), var("y")
HYPOT = Composite(
    "stranger.hypot",
    lambda a, b: jnp.sqrt(a * a + b * b),
    rules=(Rule("hypot", op.sqrt(x * x + y * y), lambda x, y, match: HYPOT.outline(match, {"x": x, "y": y})),),
)


def hypot(a, b):
    return 2 * jnp.sqrt(a * a + b * b)


def fast_silu(x):
    return x * (0.5 + 0.5 * jnp.tanh(0.5 * x))


@pytest.mark.parametrize("name", ["gelu", "my.layer-norm", "", ".a", "a."])
def test_names_are_those_of_stablehlo(name):
    with pytest.raises(ValueError, match=r"namespace\.operation"):
        Composite(name, abs)


def test_attributes_come_back():
    scale = Composite("test.scale", lambda x, *, by, axes, table, unset: x * by)
    given = {"by": 2.0, "axes": (0, 1), "table": np.arange(3), "unset": None}
    node = Graph(trace(lambda x: scale(x, **given), X).jaxpr).nodes()[0]
    have = attributes_of(node)
    np.testing.assert_array_equal(have.pop("table"), given.pop("table"))
    assert have == given


class TestFuse:
    def test_a_strangers_composite(self, run):
        program = run("fuse{only=hypot}", trace(hypot, X, X), {"stranger.hypot": Entry(HYPOT)})
        assert operations(program)[0] == "composite" and program.jaxpr.eqns[0].params["name"] == "stranger.hypot"
        np.testing.assert_array_equal(program(X, X + 1), trace(hypot, X, X)(X, X + 1))

    def test_an_operand_used_twice_is_one_operand_per_variable(self, run):
        program = run("fuse", trace(lambda a: hypot(a, a), X), {"stranger.hypot": Entry(HYPOT)})
        assert len(program.jaxpr.eqns[0].invars) == 2
        np.testing.assert_array_equal(program(X), hypot(X, X))

    def test_no_kernel_on_the_target_no_search(self, run):
        program = run("inline", trace(jax.nn.silu, X))
        entries = {"xlapass.silu/cuda": Entry(Kernel(fast_silu))}
        assert run("fuse{with-kernel=true}", program, entries, target=CPU).jaxpr is program.jaxpr
        assert run("fuse{with-kernel=true}", program, entries).jaxpr is program.jaxpr
        assert operations(run("fuse{with-kernel=true}", program, entries, target=GPU))[0] == "composite"

    def test_a_pattern_that_leaves_out_an_operand_is_an_error_of_its_author(self, run):
        forgetful = Composite(
            "stranger.sum",
            jnp.add,
            rules=(Rule("sum", op.add(x, y), lambda x, match: forgetful.outline(match, {"x": x})),),
        )
        with pytest.raises(PassError, match="not among the operands"):
            run("fuse", trace(jnp.add, X, X), {"stranger.sum": Entry(forgetful)})

    def test_calls_inside_a_match_are_refused(self, run):
        greedy = Composite(
            "stranger.call",
            jnp.abs,
            rules=(Rule("call", op.neg(op.jit(x)), lambda x, match: greedy.outline(match, {"x": x})),),
        )
        with pytest.raises(PassError, match="has a body of its own"):
            run("fuse", trace(lambda a: -jax.jit(jnp.sin)(a), X), {"stranger.call": Entry(greedy)})


class TestLowering:
    def test_without_a_kernel_it_is_opened(self, run):
        program = run("lower-composites", trace(lambda a: SILU(a) + 1, X), target=CPU)
        assert operations(program) == ["logistic", "mul", "add"]

    def test_with_a_kernel_it_is_replaced(self, run):
        report = Report()
        entries = {"xlapass.silu/cpu": Entry(Kernel(fast_silu))}
        watching = [report, NumericalVerifier()]
        program = run("lower-composites", trace(SILU, X), entries, target=CPU, instruments=watching)
        assert operations(program) == ["mul", "tanh", "mul", "add", "mul"]
        assert report.records[0].details["kernel of stranger"] == {"xlapass.silu": 1}
        assert json.loads(report.to_json())["passes"][0]["details"] == report.records[0].details
        assert set(program.provenance.values()) == {"xlapass.silu/cpu"}

    def test_a_pallas_kernel(self, run):
        def body(x_ref, out_ref):
            out_ref[...] = x_ref[...] / (1 + jnp.exp(-x_ref[...]))

        def kernel(x):
            return pallas.pallas_call(body, jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)

        program = trace(lambda a: jax.nn.silu(a) + 1, X)
        entries = {"xlapass.silu/cpu": Entry(Kernel(kernel))}
        lowered = run("inline,fuse{with-kernel=true},lower-composites,inline", program, entries, target=CPU)
        assert [eqn.primitive.name for eqn in lowered.jaxpr.eqns] == ["pallas_call", "add"]
        np.testing.assert_allclose(lowered(X), program(X), rtol=1e-6)

    @pytest.mark.parametrize("target", [GPU, None])
    def test_kernels_of_other_platforms_do_not_matter(self, run, target):
        entries = {"xlapass.silu/cpu": Entry(Kernel(fast_silu))}
        program = run("lower-composites", trace(SILU, X), entries, target=target)
        assert operations(program) == ["logistic", "mul"]

    def test_a_kernel_may_decline(self, run):
        report = Report()
        kernel = Kernel(fast_silu, check=lambda node, target: f"not {node.inputs[0].dtype} on {target.name}")
        entries = {"xlapass.silu/cpu": Entry(kernel)}
        program = run("lower-composites", trace(SILU, X), entries, target=CPU, instruments=[report])
        assert operations(program) == ["logistic", "mul"]
        assert report.records[0].details["declined"] == {"xlapass.silu": {"not float32 on cpu": 1}}

    def test_a_kernel_needs_permission_for_its_numerics(self, run):
        entries = {"xlapass.silu/cpu": Entry(Kernel(fast_silu, numerics="lossy"))}
        program = run("lower-composites", trace(SILU, X), entries, target=CPU, numerics="reassociating")
        assert operations(program) == ["logistic", "mul"]

    def test_attributes_reach_the_kernel(self, run):
        seen = []

        def kernel(x, *, approximate):
            seen.append(approximate)
            return x

        entries = {"xlapass.gelu/cuda": Entry(Kernel(kernel))}
        run(
            "lower-composites",
            trace(lambda a: GELU(GELU(a, approximate=True), approximate=False), X),
            entries,
            target=GPU,
        )
        assert sorted(seen) == [False, True]

    def test_kept_whole(self, run):
        program = run("lower-composites{keep=xlapass.silu}", trace(lambda a: SILU(GELU(a, approximate=False)), X))
        names = [eqn.params["name"] for eqn in program.jaxpr.eqns if eqn.primitive.name == "composite"]
        assert names == ["xlapass.silu"]

    def test_everywhere_and_however_deep(self, run):
        inner = Composite("test.inner", lambda a: a + SILU(a))

        def model(a):
            return lax.scan(lambda c, _: (lax.cond(c[0, 0] > 0, inner, SILU, c), None), a, length=3)[0]

        program = run("lower-composites", trace(model, X))
        assert "composite" not in operations(program)
        np.testing.assert_array_equal(program(X), trace(model, X)(X))

    def test_a_kernel_made_of_its_own_composite_ends(self, run):
        entries = {"xlapass.silu/cpu": Entry(Kernel(lambda a: SILU(a) * 1.0))}
        program = run("lower-composites", trace(SILU, X), entries, target=CPU)
        assert operations(program) == ["logistic", "mul", "mul"]

    def test_idempotent(self, run):
        program = run("lower-composites", trace(SILU, X))
        assert run("lower-composites", program).jaxpr is program.jaxpr

    def test_composites_nobody_registered_are_opened(self, run):
        unknown = Composite("test.unknown", jnp.sin)
        assert operations(run("lower-composites", trace(unknown, X), target=CPU)) == ["sin"]

    def test_effects_stay_hidden(self, run):
        def noisy(a):
            jax.debug.print("{}", a[0, 0])
            return a + 1

        program = trace(Composite("test.noisy", noisy), X)
        assert run("lower-composites", program).jaxpr is program.jaxpr

    def test_symbolic_sizes(self, run):
        program = trace(lambda a: SILU(a), X, dynamic="batch, ...")
        entries = {"xlapass.silu/cpu": Entry(Kernel(fast_silu))}
        lowered = run("lower-composites", program, entries, target=CPU)
        np.testing.assert_allclose(lowered(X[:2]), program(X[:2]), rtol=1e-6)


class TestMisbehaviour:
    @pytest.mark.parametrize(
        "kernel, message",
        [
            (lambda a: a[0], r"type float32\[4\] where float32\[3,4\] was"),
            (lambda a: (a, a), "returned 2 results"),
            (lambda a: 1 / 0, "ZeroDivisionError"),
            (lambda a, b: a, "TypeError"),
        ],
    )
    def test_a_wrong_kernel_is_named_with_its_plugin(self, run, kernel, message):
        entries = {"xlapass.silu/cpu": Entry(Kernel(kernel))}
        with pytest.raises(PassError, match=message) as caught:
            run("lower-composites", trace(lambda a: SILU(a), X), entries, target=CPU)
        assert "'xlapass.silu/cpu' (plugin 'stranger')" in str(caught.value)
        assert "test_composite.py" in caught.value.where

    @pytest.mark.parametrize(
        "key, value, message",
        [
            ("test.one", SILU, "'stranger' registers the composite 'xlapass.silu' under the name 'test.one'"),
            ("test.one", Kernel(abs), "is not a Composite"),
            ("test.one", "json:no_such_thing", "could not be loaded"),
        ],
    )
    def test_nonsense_in_the_registry(self, registry_with, key, value, message):
        with pytest.raises(UsageError, match=message):
            composites(registry_with({key: Entry(value)}))

    def test_nonsense_in_place_of_a_kernel(self, registry_with):
        with pytest.raises(UsageError, match="is not a Kernel"):
            find_kernel(registry_with({"xlapass.silu/cpu": Entry(fast_silu)}), "xlapass.silu", "cpu")


class TestLegality:
    def test_a_row_takes_a_composite_whole(self):
        program = trace(lambda a: SILU(a), X)
        assert LegalityTable([Legality("composite:xlapass.silu")]).problems(program) == []

    def test_opened_composites_are_looked_into(self):
        program = trace(lambda a: SILU(a), X)
        (problem,) = LegalityTable([Legality("mul")], opened=["composite"]).problems(program)
        assert problem.operation == "logistic"

    def test_without_either_it_is_a_problem(self):
        problems = LegalityTable([Legality("mul"), Legality("logistic")]).problems(trace(SILU, X))
        assert [problem.operation for problem in problems] == ["composite:xlapass.silu"]


def test_the_source_line_inside_stays_the_users(run):
    program = run("fuse,lower-composites", trace(lambda a: a * lax.logistic(a), X))
    wheres = {node.where for node in Graph(program.jaxpr).nodes()}
    assert all(where is not None and "test_composite.py" in where for where in wheres)


def test_name_stacks_are_not_doubled(run):
    def model(a):
        with jax.named_scope("layer"):
            return a * lax.logistic(a)

    program = run("fuse", trace(model, X))
    lowered = run("lower-composites", program)
    assert {str(eqn.source_info.name_stack) for eqn in lowered.jaxpr.eqns} == {"layer"}
    assert program_text(lowered) == program_text(trace(model, X))
