"""Options as text: ``build(parse(to_text(p))) == p``, and messages for those who mistype."""

import dataclasses
from typing import ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xlapass.core import options
from xlapass.core.errors import UsageError
from xlapass.core.pipeline import parse_item


@dataclasses.dataclass(frozen=True)
class Many:
    """One field of every kind."""

    flag: bool = False
    max_bytes: int = 1024
    ratio: float = 0.5
    label: str = "plain"
    mode: Literal["fast", "slow", "very slow"] = "fast"
    level: Literal[1, 2] = 1
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1, 2)
    limit: int | None = None
    note: str | None = None
    kind: ClassVar[str] = "not an option"


@dataclasses.dataclass(frozen=True)
class Needed:
    """An option without a default."""

    path: str
    count: int = 1


def round_trip(instance, name="many"):
    text = options.to_text(name, instance)
    parsed_name, texts = parse_item(text)
    assert parsed_name == name
    return options.build(type(instance), f"pass {name!r}", texts)


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers(-(2**62), 2**62)

INSTANCES = st.builds(
    Many,
    flag=st.booleans(),
    max_bytes=NUMBERS,
    ratio=st.floats(allow_nan=False),
    label=TEXT,
    mode=st.sampled_from(["fast", "slow", "very slow"]),
    level=st.sampled_from([1, 2]),
    names=st.lists(TEXT, max_size=3).map(tuple),
    sizes=st.lists(NUMBERS, max_size=3).map(tuple),
    limit=st.none() | NUMBERS,
    note=st.none() | TEXT,
)


@settings(max_examples=300)
@given(INSTANCES)
def test_text_and_back(instance):
    assert round_trip(instance) == instance


@settings(max_examples=100)
@given(TEXT, st.integers(-5, 5))
def test_text_and_back_with_needed_options(path, count):
    assert round_trip(Needed(path, count)) == Needed(path, count)


def test_the_text_holds_what_differs_from_the_defaults():
    assert options.to_text("many", Many()) == "many"
    assert options.to_text("many", Many(flag=True, max_bytes=2048)) == "many{flag=true,max-bytes=2048}"
    assert options.to_text("many", Many(names=("a", "b c"), sizes=())) == 'many{names=a+"b c",sizes=}'
    assert options.to_text("many", Many(limit=0, note="")) == 'many{limit=0,note=""}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("many", Many()),
        ("many{}", Many()),
        ("many{flag}", Many(flag=True)),
        ("many{flag=yes}", Many(flag=True)),
        ("many{ flag = on , ratio = 1e-3 }", Many(flag=True, ratio=1e-3)),
        ("many{max-bytes=64k}", Many(max_bytes=65536)),
        ("many{max-bytes=1m}", Many(max_bytes=1048576)),
        ("many{max-bytes=1_000}", Many(max_bytes=1000)),
        ("many{max-bytes=0x10}", Many(max_bytes=16)),
        ("many{max-bytes=-3}", Many(max_bytes=-3)),
        ("many{ratio=inf}", Many(ratio=float("inf"))),
        ("many{mode=very slow}", Many(mode="very slow")),
        ('many{mode="very slow"}', Many(mode="very slow")),
        ("many{level=2}", Many(level=2)),
        ("many{names=a+b}", Many(names=("a", "b"))),
        ('many{names="a+b"+c}', Many(names=("a+b", "c"))),
        ("many{sizes=1k+2}", Many(sizes=(1024, 2))),
        ("many{limit=none}", Many()),
        ("many{limit=5}", Many(limit=5)),
        ("many{label=builtin.module(a{b=c},d)}", Many(label="builtin.module(a{b=c},d)")),
    ],
)
def test_spellings(text, expected):
    name, texts = parse_item(text)
    assert name == "many"
    assert options.build(Many, "pass 'many'", texts) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("many{max-byte=3}", "pass 'many' has no option 'max-byte'\n  hint: did you mean 'max-bytes'?"),
        ("many{zzz=3}", "pass 'many' has no option 'zzz'\n  hint: known: flag, "),
        ("many{max-bytes=lots}", "option 'max-bytes' of pass 'many' must be an integer, and is 'lots'"),
        ("many{max-bytes=1.5}", "must be an integer"),
        ("many{max-bytes=k}", "must be an integer"),
        ("many{ratio=half}", "must be a number, and is 'half'"),
        ("many{flag=maybe}", "must be true or false, and is 'maybe'"),
        ("many{mode=fastest}", "cannot be 'fastest'\n  hint: one of: fast, slow, very slow"),
        ("many{sizes=1+x}", "must be an integer, and is 'x'"),
        ("many{flag,flag}", "has the option 'flag' twice"),
        ("many{flag", "a bracket that is not closed"),
        ("many{flag}}", "cannot read"),
        ("many{label=a]}", "cannot read"),
        ("many{label=[a}", "a bracket that is not closed"),
        ('many{label="open}', "a quote that is not closed"),
        ("needed", "pass 'needed' needs the option 'path'\n  hint: write {path=...}"),
        ("{flag}", "cannot read"),
        ("", "cannot read"),
        ("many{flag} again", "cannot read"),
        ("many(inner)", "cannot read"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(UsageError) as failure:
        name, texts = parse_item(text)
        options.build(Needed if name == "needed" else Many, f"pass {name!r}", texts)
    assert message in str(failure.value)
    assert failure.value.exit_status == 2


def test_what_the_class_itself_refuses():
    @dataclasses.dataclass(frozen=True)
    class Positive:
        count: int = 1

        def __post_init__(self):
            if self.count < 1:
                raise ValueError("count must be positive")

    with pytest.raises(UsageError, match="pass 'positive': count must be positive"):
        options.build(Positive, "pass 'positive'", {"count": "0"})


def test_types_and_names_for_help_and_schemas():
    types = options.option_types(Many)
    assert list(types) == ["flag", "max-bytes", "ratio", "label", "mode", "level", "names", "sizes", "limit", "note"]
    assert types["max-bytes"] is int
    fields = options.option_fields(Needed)
    assert not options.has_default(fields["path"]) and options.default_of(fields["path"]) is dataclasses.MISSING
    assert options.has_default(fields["count"]) and options.default_of(fields["count"]) == 1


@settings(max_examples=200)
@given(st.lists(TEXT.map(options.format_value), min_size=1, max_size=4))
def test_splitting_undoes_joining(parts):
    assert options.split_outside_brackets(",".join(parts), ",") == parts


def test_suggestions():
    assert options.suggestion("fold-constant", ["fold-constants", "inline"]) == "did you mean 'fold-constants'?"
    assert options.suggestion("gelu", ["xlapass.gelu", "xlapass.gelu/cpu", "inline"]) == "did you mean 'xlapass.gelu'?"
    assert options.suggestion("xyz", ["b", "a"]) == "known: a, b"
    many = options.suggestion("xyz", [f"n{number:03}" for number in range(60)])
    assert many.startswith("known: n000, n001, ") and many.endswith(", n049, and 10 more")
    assert options.suggestion("xyz", [], "nothing is known") == "nothing is known"
