"""The pass manager: order of events, fixpoints, levels, and passes that fail."""

import dataclasses
import sys
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from xlapass.core.errors import PassError, UnsupportedError, UsageError, VerificationError
from xlapass.core.instruments.report import Report
from xlapass.core.instruments.selection import PermittedNumerics, SkipSettled
from xlapass.core.instruments.structure import StructuralVerifier
from xlapass.core.manager import Instrument, PassManager
from xlapass.core.pass_ import GraphPass, Pass, PassResult, RewritePass, StableHLOPass
from xlapass.core.patterns import op, var
from xlapass.core.plugins import Entry, NamedPipeline, PhasePasses, hookimpl, load_registry
from xlapass.core.program import Program
from xlapass.core.rewrite import Rule
from xlapass.core.text import program_text
from xlapass.core.tracing import trace

X = np.asarray([1.0, -2.0], np.float32)
x = var("x")


@dataclasses.dataclass(frozen=True)
class Nothing(Pass):
    """Changes nothing."""

    name = "nothing"

    def run(self, program, context):
        return PassResult(program, False)


@dataclasses.dataclass(frozen=True)
class Peel(RewritePass):
    """Removes one sine of a chain in each run."""

    name = "peel"

    @classmethod
    def own_rules(cls):
        def is_last(match):
            return None if match.root.outputs[0].users == [match.graph.terminator] else "it is not the last"

        return [Rule("peel", op.sin(op.sin(x)), lambda x: jnp.sin(x) + 0, check=is_last)]


@dataclasses.dataclass(frozen=True)
class Count(GraphPass):
    """Adds one to the result, up to a limit."""

    name = "count"
    limit: int = 3
    numerics = "lossy"

    def apply(self, graph, context):
        if len(graph.nodes()) >= self.limit:
            return False
        (new,) = graph.splice(lambda v: v + 1, graph.outputs[0], before=graph.terminator)
        graph.set_operand(graph.terminator, 0, new)
        return True


@dataclasses.dataclass(frozen=True)
class Raise(Pass):
    """Raises what it is told to."""

    name = "raise"
    kind: str = "KeyError"

    def run(self, program, context):
        if self.kind == "SystemExit":
            sys.exit(2)
        if self.kind == "PassError":
            raise PassError("the table is full", where="model.py:3 (f)", hint="empty it")
        if self.kind == "UnsupportedError":
            raise UnsupportedError("no such thing here")
        if self.kind == "KeyboardInterrupt":
            raise KeyboardInterrupt
        raise KeyError("weights")


@dataclasses.dataclass(frozen=True)
class Answer(Pass):
    """Returns nonsense."""

    name = "answer"
    kind: ClassVar[object] = None

    def run(self, program, context):
        return self.kind


@dataclasses.dataclass(frozen=True)
class Stamp(StableHLOPass):
    """Exports anew: another object, the same meaning."""

    name = "stamp"
    change: bool = True

    def apply(self, exported, context):
        return dataclasses.replace(exported) if self.change else exported


class Base:
    @hookimpl
    def xlapass_passes(self):
        return {p.name: Entry(p) for p in (Nothing, Peel, Count, Raise, Stamp)}

    @hookimpl
    def xlapass_pipelines(self):
        return {"named": NamedPipeline("nothing,phase(optimize)", "xla")}

    @hookimpl
    def xlapass_phases(self):
        return [PhasePasses("optimize", "count{limit=1}", pipelines=("named",))]


REGISTRY = load_registry([Base()], discover=False, strict=True)


class Notes(Instrument):
    """Writes down what happens."""

    def __init__(self, name, notes, skip=()):
        self.name, self.notes, self.skip = name, notes, skip

    def begin(self, pipeline, program):
        self.notes.append((self.name, "begin", str(pipeline), program.name))

    def should_run(self, step, program):
        self.notes.append((self.name, "should run", step.pass_.name))
        return step.pass_.name not in self.skip

    def before(self, step, program):
        self.notes.append((self.name, "before", step.pass_.name))

    def after(self, event):
        self.notes.append((self.name, "after", event.step.pass_.name, event.result.changed, event.round))

    def end(self, program):
        self.notes.append((self.name, "end", program.history))


def run(pipeline, program, **keywords):
    return PassManager(pipeline, registry=REGISTRY, **keywords).run(program)


def identity():
    return trace(lambda v: v, X, name="model")


# -- the seam ----------------------------------------------------------------------------------------------------------


def test_instruments_are_asked_in_order():
    notes = []
    watching = [Notes("a", notes), Notes("b", notes, skip=["peel"])]
    run("nothing,peel,count{limit=1}", identity(), instruments=watching)
    assert notes == [
        ("a", "begin", "nothing,peel,count{limit=1}", "model"),
        ("b", "begin", "nothing,peel,count{limit=1}", "model"),
        ("a", "should run", "nothing"),
        ("b", "should run", "nothing"),
        ("a", "before", "nothing"),
        ("b", "before", "nothing"),
        ("a", "after", "nothing", False, 0),
        ("b", "after", "nothing", False, 0),
        ("a", "should run", "peel"),
        ("b", "should run", "peel"),
        ("a", "should run", "count"),
        ("b", "should run", "count"),
        ("a", "before", "count"),
        ("b", "before", "count"),
        ("a", "after", "count", True, 0),
        ("b", "after", "count", True, 0),
        ("a", "end", ("count{limit=1}",)),
        ("b", "end", ("count{limit=1}",)),
    ]


def test_events_hold_what_there_is_to_know():
    events = []

    class Keep(Instrument):
        def after(self, event):
            events.append(event)

    before = identity()
    after = run("named", before, instruments=[Keep()], pipeline_name="named", explain=["peel"])
    nothing, count = events
    assert nothing.before is before and nothing.result.program is before and nothing.step.plugin == "Base"
    assert count.before is before and count.result.program.jaxpr is after.jaxpr and count.step.phase == "optimize"
    assert count.seconds > 0 and count.numerics == "lossy" and nothing.numerics == "exact"
    assert count.context.registry is REGISTRY and count.context.log.explain == {"peel"}


def test_an_instrument_that_raises_stops_the_pipeline():
    class Stop(Instrument):
        def after(self, event):
            raise VerificationError("enough")

    notes = []
    with pytest.raises(VerificationError, match="enough"):
        run("nothing,nothing", identity(), instruments=[Stop(), Notes("a", notes)])
    assert [n[1] for n in notes] == ["begin", "should run", "before"]


def test_default_instruments():
    kinds = [type(i) for i in PassManager("", registry=REGISTRY).instruments]
    assert kinds == [PermittedNumerics, SkipSettled, StructuralVerifier]
    assert PassManager("", registry=REGISTRY, instruments=()).instruments == []


def test_an_idempotent_pass_does_not_see_its_own_result_again():
    runs = []
    calls = [lambda x: jax.jit(jnp.sin)(x), lambda x: x]
    for fn in calls:
        report = Report()
        program = trace(fn, X)
        PassManager("inline,inline,dead-code,inline", instruments=[SkipSettled(), report]).run(program)
        runs.append([r.pass_ for r in report.records])
    assert runs == [["inline", "dead-code"]] * 2


def test_the_installed_plugins_are_the_default():
    program = PassManager("inline").run(trace(jax.jit(jnp.sin), X))
    assert program_text(program) == "program(a:f32[2]):\n  b:f32[2] = sin a\n  return b"
    assert program.history == ("inline",)


# -- running -----------------------------------------------------------------------------------------------------------


def test_the_empty_pipeline():
    program = identity()
    assert run("", program) is program


def test_programs_are_not_changed_in_place():
    before = identity()
    text = program_text(before)
    after = run("count,count", before)
    assert program_text(before) == text and before.history == () and after is not before
    assert after.history == ("count", "count") and after.name == "model"
    assert (np.asarray(after(X)) == X + 2).all() and (np.asarray(before(X)) == X).all()


def test_what_changed_nothing_leaves_no_history():
    assert run("nothing,count{limit=0}", identity()).history == ()


def test_fixpoints_go_round_until_nothing_changes():
    notes = []
    after = run("fixpoint(nothing,count{limit=3})", identity(), instruments=[Notes("a", notes)])
    rounds = [(n[2], n[3], n[4]) for n in notes if n[1] == "after"]
    assert rounds == [
        ("nothing", False, 0),
        ("count", True, 0),
        ("nothing", False, 1),
        ("count", True, 1),
        ("nothing", False, 2),
        ("count", True, 2),
        ("nothing", False, 3),
        ("count", False, 3),
    ]
    assert after.history == ("count",) * 3 and after.jaxpr.jaxpr.eqns[2:]


def test_fixpoints_stop_at_their_limit():
    assert len(run("fixpoint{limit=2}(count{limit=9})", identity()).jaxpr.eqns) == 2
    assert len(run("fixpoint(count{limit=99})", identity()).jaxpr.eqns) == 10
    nested = run("fixpoint(fixpoint{limit=2}(count{limit=5}))", identity())
    assert len(nested.jaxpr.eqns) == 5


def test_numerics_beyond_what_is_permitted_are_left_out():
    assert run("count", identity(), numerics="exact").history == ()
    assert run("count", identity(), numerics="reassociating").history == ()
    assert run("count", identity(), numerics="lossy").history == ("count",)


def test_a_promise_beyond_what_is_permitted_is_an_error():
    @dataclasses.dataclass(frozen=True)
    class Shrink(Pass):
        name = "shrink"
        numerics = "lossy"
        promises = "shrinking"

        def run(self, program, context):
            return PassResult(program, False)

    for numerics in ("exact", "reassociating"):
        with pytest.raises(UsageError, match=rf"^shrinking is not allowed under numerics '{numerics}': pass 'shrink'"):
            run([Shrink()], identity(), numerics=numerics)
    assert run([Shrink()], identity(), numerics="lossy").history == ()


def test_what_is_no_program_and_no_numerics():
    with pytest.raises(
        UsageError, match=r"over something of type function\n  hint: xlapass\.trace\(fn, \*example_args"
    ):
        PassManager("inline").run(lambda v: v)
    with pytest.raises(UsageError, match=r"numerics cannot be 'exat'\n  hint: did you mean 'exact'\?"):
        PassManager("inline", numerics="exat")


def test_rules_beyond_what_is_permitted_are_left_out():
    class Rules(RewritePass):
        name = "rules"
        numerics = "exact"

        @classmethod
        def own_rules(cls):
            return [
                Rule("exact", op.neg(op.neg(x)), x),
                Rule("rounding", op.sin(x), lambda x: jnp.cos(x), numerics="reassociating"),
            ]

    program = trace(lambda v: jnp.sin(jax.lax.neg(jax.lax.neg(v))), X)
    assert [e.primitive.name for e in run([Rules()], program, numerics="exact").jaxpr.eqns] == ["sin"]
    assert [e.primitive.name for e in run([Rules()], program).jaxpr.eqns] == ["cos"]


def test_the_numerics_of_a_run_are_those_of_the_rules_that_applied():
    seen = []

    class Keep(Instrument):
        def after(self, event):
            seen.append(event.numerics)

    class Rules(RewritePass):
        name = "rules"
        numerics = "reassociating"

        @classmethod
        def own_rules(cls):
            return [
                Rule("exact", op.neg(op.neg(x)), x),
                Rule("rounding", op.sin(x), lambda x: jnp.cos(x), numerics="reassociating"),
            ]

    for fn in (jnp.cos, lambda v: jax.lax.neg(jax.lax.neg(v)), jnp.sin):
        run([Rules()], trace(fn, X), instruments=[Keep()])
    assert seen == ["exact", "exact", "reassociating"]


def test_passes_run_in_the_width_of_the_program():
    with jax.enable_x64(True):
        program = trace(lambda v: v * 1, np.asarray([1.0]))
    after = run("count{limit=2}", program)
    assert after.out_avals[0].dtype == np.float64 and after.x64
    assert np.asarray(after(np.asarray([1e-12])))[0] == 1 + 1e-12


def test_lowering_when_a_pass_needs_it():
    program = identity()
    lowered = run("count,stamp,stamp{change=false}", program)
    assert lowered.level == "stablehlo" and lowered.history == ("count", "stamp")
    assert (np.asarray(lowered(X)) == X + 1).all()
    assert run("stamp{change=false}", program).level == "stablehlo"


# -- passes that fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["KeyError", "SystemExit"])
def test_a_pass_that_raises_is_named_with_its_plugin(kind):
    with pytest.raises(PassError, match=rf"pass 'raise' \(plugin 'Base'\) raised {kind}: ") as failure:
        run(f"raise{{kind={kind}}}", identity())
    assert type(failure.value.__cause__).__name__ == kind and failure.value.exit_status == 1


def test_errors_on_purpose_keep_their_kind_and_place():
    with pytest.raises(PassError) as failure:
        run("raise{kind=PassError}", identity())
    assert str(failure.value) == (
        "pass 'raise' (plugin 'Base'): the table is full\n  at model.py:3 (f)\n  hint: empty it"
    )
    with pytest.raises(UnsupportedError, match="no such thing here"):
        run("raise{kind=UnsupportedError}", identity())


def test_interrupts_pass_through():
    with pytest.raises(KeyboardInterrupt):
        run("raise{kind=KeyboardInterrupt}", identity())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "returned NoneType, not a PassResult"),
        ("a program", "returned str, not a PassResult"),
        (identity(), "returned Program, not a PassResult"),
        (PassResult(None, True), "not a PassResult with a Program"),
        (PassResult(identity(), None), "says neither that it changed something nor that it did not"),
        (PassResult(identity(), True, numerics="roughly"), "declares the numerics 'roughly'"),
        (PassResult(Program(3, None, None, (), (), ()), True), "returned a program whose jaxpr is a int"),
    ],
    ids=["None", "text", "a program", "no program", "no claim", "numerics", "no jaxpr"],
)
def test_a_pass_that_returns_nonsense(answer, message):
    class Nonsense(Answer):
        kind = answer

    with pytest.raises(PassError, match=message) as failure:
        run([Nonsense()], identity())
    assert "pass 'answer' (plugin 'given')" in failure.value.message


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"name": "another"}, "calls itself 'another'"),
        ({"numerics": "roughly"}, "declares the numerics 'roughly'"),
        ({"level": "llvm"}, "declares the level 'llvm'"),
        ({"requires": "inline"}, "declares the requirements 'inline'"),
        ({"run": Pass.run}, "abstract"),
    ],
)
def test_a_pass_class_that_is_nonsense(attributes, message):
    kind = type("Odd", (Nothing,), {"name": "odd", **attributes})

    class Brings:
        @hookimpl
        def xlapass_passes(self):
            return {"odd": Entry(kind)}

    registry = load_registry([Brings()], discover=False, strict=True)
    with pytest.raises(UsageError, match=message) as failure:
        PassManager("odd", registry=registry)
    assert "pass 'odd'" in failure.value.message


def test_passes_compute_while_jax_traces():
    class Compute(Pass):
        name: ClassVar[str] = "compute"

        def run(self, program, context):
            value = float(jax.jit(jnp.cos)(np.float32(0)))
            return PassResult(program, changed=False, details={"value": value})

    report = Report()

    def traced(x):
        PassManager([Compute()], registry=REGISTRY, instruments=[report]).run(trace(jnp.sin, X))
        return x

    jax.jit(traced)(X)
    assert report.records[0].details == {"value": 1.0}
