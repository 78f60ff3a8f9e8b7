"""Pipelines: text to passes and back, named ones, fixpoints, phases, and what cannot be."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xlapass.core.errors import UsageError
from xlapass.core.pass_ import Pass, PassResult
from xlapass.core.pipeline import FIXPOINT_LIMIT, Fixpoint, Pipeline, Step, resolve
from xlapass.core.plugins import Entry, NamedPipeline, PhasePasses, hookimpl, load_registry


@dataclasses.dataclass(frozen=True)
class Nothing(Pass):
    """Does nothing."""

    name = "nothing"
    flag: bool = False
    limit: int = 3
    label: str = ""

    def run(self, program, context):
        return PassResult(program, False)


@dataclasses.dataclass(frozen=True)
class Other(Nothing):
    """Does nothing either."""

    name = "other"


@dataclasses.dataclass(frozen=True)
class Needy(Nothing):
    """Wants another pass before it."""

    name = "needy"
    requires = ("other",)


@dataclasses.dataclass(frozen=True)
class Lowered(Nothing):
    """Works on StableHLO."""

    name = "lowered"
    level = "stablehlo"


class Base:
    @hookimpl
    def xlapass_passes(self):
        passes = (Nothing, Other, Needy, Lowered)
        return {p.name: Entry(p) for p in passes} | {"no-pass": Entry(dict), "bad-name": Entry("nowhere:Nothing")}

    @hookimpl
    def xlapass_pipelines(self):
        return {
            "short": NamedPipeline("nothing,other", "xla"),
            "long": NamedPipeline("short,phase(optimize),fixpoint(nothing{flag=true},short)", "xla"),
            "loop": NamedPipeline("nothing,back", "xla"),
            "back": NamedPipeline("group(loop)", "xla"),
        }


class Inserting:
    """Puts passes into phases."""

    @hookimpl
    def xlapass_phases(self):
        return [
            PhasePasses("optimize", "other{limit=7},fixpoint(other{limit=8})"),
            PhasePasses("optimize", "nothing{limit=9}", pipelines=("long",)),
            PhasePasses("endless", "phase(endless)"),
            PhasePasses("misspelt", "nothin"),
        ]


REGISTRY = load_registry([Base(), Inserting()], discover=False, strict=True)


def text_of(text, **keywords):
    return str(resolve(text, REGISTRY, **keywords))


# -- text and back -----------------------------------------------------------------------------------------------------

PASSES = st.builds(
    lambda cls, flag, limit, label: cls(flag, limit, label),
    st.sampled_from([Nothing, Other]),
    st.booleans(),
    st.integers(-10, 10),
    st.text(max_size=6),
)
ITEMS = st.recursive(
    st.builds(Step, PASSES, st.just("Base")),
    lambda inner: st.builds(Fixpoint, st.lists(inner, min_size=1, max_size=3).map(tuple), st.integers(1, 20)),
    max_leaves=8,
)


@settings(max_examples=200)
@given(st.lists(ITEMS, max_size=4))
def test_text_and_back(items):
    pipeline = Pipeline(tuple(items))
    assert resolve(str(pipeline), REGISTRY) == pipeline
    assert list(pipeline.steps()) == list(resolve(str(pipeline), REGISTRY).steps())


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("", ""),
        (" nothing , other ", "nothing,other"),
        ("nothing,,other,", "nothing,other"),
        ("nothing{limit=3}", "nothing"),
        ("nothing{limit=4, flag}", "nothing{flag=true,limit=4}"),
        ("group(nothing,other),nothing", "nothing,other,nothing"),
        ("group()", ""),
        ("fixpoint(nothing)", "fixpoint(nothing)"),
        ("fixpoint{limit=10}(nothing)", "fixpoint(nothing)"),
        ("fixpoint{limit=2}( nothing{limit=1} , fixpoint{limit=3}(other) )",
         "fixpoint{limit=2}(nothing{limit=1},fixpoint{limit=3}(other))"),
        ('nothing{label="a,b}"},other', 'nothing{label="a,b}"},other'),
        ("short,other", "nothing,other,other"),
        ("fixpoint(short)", "fixpoint(nothing,other)"),
        ("phase(unknown)", ""),
        ("phase( optimize )", "other{limit=7},fixpoint(other{limit=8})"),
        ("long", "nothing,other,other{limit=7},fixpoint(other{limit=8}),nothing{limit=9},"
                 "fixpoint(nothing{flag=true},nothing,other)"),
    ],
)  # fmt: skip
def test_what_text_means(text, resolved):
    assert text_of(text) == resolved
    assert text_of(resolved) == resolved


def test_passes_in_place_of_text():
    one = Nothing(flag=True)
    assert resolve(one, REGISTRY).items == (Step(one),)
    assert str(resolve([one, Other()], REGISTRY)) == "nothing{flag=true},other"
    pipeline = resolve("nothing", REGISTRY)
    assert resolve(pipeline, REGISTRY) == pipeline
    assert str(resolve([], REGISTRY)) == ""


@pytest.mark.parametrize("wrong", [[Nothing(), "other"], [Nothing], Nothing, 7, None, {"nothing": 1}])
def test_what_is_no_pipeline(wrong):
    with pytest.raises(UsageError, match="a pipeline is made of passes, and"):
        resolve(wrong, REGISTRY)


# -- origins -----------------------------------------------------------------------------------------------------------


def test_steps_know_their_plugin_and_phase():
    steps = [(s.pass_.name, s.plugin, s.phase) for s in resolve("long", REGISTRY).steps()]
    assert steps[:5] == [
        ("nothing", "Base", ""),
        ("other", "Base", ""),
        ("other", "Inserting", "optimize"),
        ("other", "Inserting", "optimize"),
        ("nothing", "Inserting", "optimize"),
    ]
    assert resolve(Nothing(), REGISTRY).items[0].plugin == "given"


def test_phases_for_certain_pipelines_only():
    inserted = "other{limit=7},fixpoint(other{limit=8})"
    assert text_of("phase(optimize)") == inserted
    assert text_of("phase(optimize)", name="long") == inserted + ",nothing{limit=9}"
    assert text_of("phase(optimize)", name="short") == inserted


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothin", "there is no pass or pipeline 'nothin'\n  hint: did you mean 'nothing'?"),
        ("shorts", "there is no pass or pipeline 'shorts'\n  hint: did you mean 'short'?"),
        ("zzz", "there is no pass or pipeline 'zzz'\n  hint: known: back, bad-name, long, loop, lowered, "),
        ("nothing{flags}", "pass 'nothing' has no option 'flags'\n  hint: did you mean 'flag'?"),
        ("nothing{limit=x}", "option 'limit' of pass 'nothing' must be an integer, and is 'x'"),
        ("short{flag}", "the pipeline 'short' has no options; its passes have"),
        ("nothing(other)", "'nothing' takes no passes in parentheses"),
        ("short(other)", "'short' takes no passes in parentheses"),
        ("fixpoint", "there is no pass or pipeline 'fixpoint'"),
        ("fixpoint{limit=x}(nothing)", "option 'limit' of fixpoint must be an integer"),
        ("fixpoint{limits=2}(nothing)", "fixpoint has no option 'limits'\n  hint: did you mean 'limit'?"),
        ("fixpoint{limit=0}(nothing)", "fixpoint: the limit must be at least 1, and is 0"),
        ("group{limit=2}(nothing)", "group has no options"),
        ("phase{limit=2}(optimize)", "phase has no options"),
        ("fixpoint(nothing", "a bracket that is not closed"),
        ("nothing)", "too many"),
        ("nothing other", "cannot read 'nothing other' in a pipeline"),
        ("-nothing", "cannot read '-nothing' in a pipeline"),
        ("loop", "the pipeline 'loop' contains itself: loop -> back -> loop"),
        ("phase(endless)", "contains itself: phase(endless) -> phase(endless)"),
        (
            "phase(misspelt)",
            "puts 'nothin' into the phase 'misspelt': there is no pass or pipeline 'nothin'\n"
            "  hint: leave it out with -p no:Inserting, and tell its author",
        ),
        ("no-pass", "pass 'no-pass' of plugin 'Base' is <class 'dict'>, which is not a subclass of xlapass.Pass"),
        ("bad-name", "pass 'bad-name' could not be loaded from nowhere:Nothing: ModuleNotFoundError"),
        ("needy", "pass 'needy' needs 'other' before it\n  hint: write other,needy"),
        ("needy,other", "pass 'needy' needs 'other' before it"),
        ("lowered,nothing", "pass 'nothing' works on jaxprs and cannot come after 'lowered', which works on StableHLO"),
        ("fixpoint(nothing,lowered)", "pass 'nothing' works on jaxprs and cannot come after 'lowered'"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(UsageError) as failure:
        resolve(text, REGISTRY)
    assert message in str(failure.value)
    assert failure.value.exit_status == 2


@pytest.mark.parametrize(
    "text", ["other,needy", "other,nothing,needy,needy", "nothing,lowered,lowered", "fixpoint(other,needy)"]
)
def test_orders_that_are_fine(text):
    assert text_of(text) == text


def test_given_passes_are_checked_for_order_too():
    with pytest.raises(UsageError, match="needs 'other' before it"):
        resolve([Needy(), Other()], REGISTRY)
    with pytest.raises(UsageError, match="cannot come after"):
        resolve([Lowered(), Other()], REGISTRY)


# -- parts of pipelines ------------------------------------------------------------------------------------------------


def test_leaving_passes_out():
    pipeline = resolve("nothing,fixpoint(other,fixpoint(other)),other,nothing{flag=true}", REGISTRY)
    assert str(pipeline.without(["other"])) == "nothing,nothing{flag=true}"
    assert str(pipeline.without(["nothing"])) == "fixpoint(other,fixpoint(other)),other"
    assert str(pipeline.without(["nothing", "other"])) == ""
    assert pipeline.without([]) == pipeline
    with pytest.raises(UsageError, match=r"the pipeline has no pass 'nothin'\n  hint: did you mean 'nothing'\?"):
        pipeline.without(["nothin"])


def test_stopping_after_a_pass():
    pipeline = resolve("nothing,fixpoint(other,nothing{limit=1}),needy", REGISTRY)
    assert str(pipeline.until("nothing")) == "nothing"
    assert str(pipeline.until("other")) == "nothing,fixpoint(other,nothing{limit=1})"
    assert pipeline.until("needy") == pipeline
    with pytest.raises(UsageError, match="the pipeline has no pass 'lowered'"):
        pipeline.until("lowered")


def test_the_default_limit_is_not_written():
    (fixpoint,) = resolve("fixpoint(nothing)", REGISTRY).items
    assert fixpoint.limit == FIXPOINT_LIMIT
