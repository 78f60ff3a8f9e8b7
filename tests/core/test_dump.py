"""Programs as text, and differences between them."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xlapass.core.instruments import dump
from xlapass.core.instruments.dump import Dump, Names, changed_lines, program_lines
from xlapass.core.manager import PassManager
from xlapass.core.tracing import trace


def shown(pipeline, fn, *args, when="changed", only=None):
    texts = []
    PassManager(pipeline, instruments=[Dump(when, texts.append, only)]).run(trace(fn, *args))
    return "".join(texts)


def without_places(text):
    return "\n".join(line.partition("  # ")[0] for line in text.splitlines())


def test_a_change_shows_what_went_and_where_it_stood():
    def model(x, y):
        dead = jnp.sin(x)
        del dead
        a = x + y
        b = a * y
        c = b - x
        return c / y

    x = jnp.ones(3)
    assert without_places(shown("dead-code", model, x, x)) == (
        "=== changed by dead-code\n"
        "  inputs a:f32[3] b:f32[3]\n"
        "- c:f32[3] = sin a\n"
        "  d:f32[3] = add a b\n"
        "  e:f32[3] = mul d b\n"
        "  ..."
    )
    assert f"# {__file__}" in shown("dead-code", model, x, x)


def test_nothing_is_shown_where_nothing_changed():
    assert shown("dead-code", lambda x: x + 1, 1.0) == ""


def test_bodies_are_indented_and_constants_named():
    table = jnp.arange(1000.0)

    def model(x):
        return jax.lax.scan(lambda carry, row: (carry + row, carry), x, table)

    text = without_places("\n".join(program_lines(trace(model, 1.0), Names())))
    assert "constants a:f32[1000]\ninputs b:f32[]\n" in text
    assert "scan[" in text and "jaxpr:" not in text.splitlines()[0]
    assert "\n  jaxpr:\n    inputs " in text and "\n    return " in text and text.splitlines()[-2] == "}"


def test_every_branch_has_its_number():
    text = "\n".join(program_lines(trace(lambda i, x: jax.lax.switch(i, [jnp.sin, jnp.cos], x), 0, 1.0), Names()))
    assert "branches[0]:" in text and "branches[1]:" in text


def test_names_stay_the_same_from_pass_to_pass():
    def model(x):
        dead = x * 2
        del dead
        return jnp.sin(x) + jnp.cos(x)

    text = without_places(shown("inline,dead-code", model, jnp.ones(3), when="after"))
    first, second = text.split("=== after dead-code\n")
    assert "c:f32[3] = sin a" in first and "c:f32[3] = sin a" in second and "b:f32[3]" not in second


def test_one_pass_can_be_chosen():
    assert shown("inline,dead-code", lambda x: x + 1, 1.0, when="before", only="dead-code").count("===") == 1


@pytest.mark.parametrize("number, name", [(0, "a"), (25, "z"), (26, "ba"), (26 * 26, "baa")])
def test_letters(number, name):
    assert dump._letters(number) == name


lines = st.lists(st.sampled_from(["a", "b", "c", "d", "}", *map(str, range(20))]), max_size=30)


@given(lines, lines)
def test_a_difference_holds_both_sides(old, new):
    script = list(dump._edit_script(old, new))
    assert [line for sign, line in script if sign != "+"] == old
    assert [line for sign, line in script if sign != "-"] == new


@given(lines, lines)
def test_only_changes_and_their_surroundings_are_shown(old, new):
    shown_lines = changed_lines(old, new)
    script = [f"{sign} {line}" for sign, line in dump._edit_script(old, new)]
    changes = [line for line in script if line[0] != " "]
    assert [line for line in shown_lines if line[0] != " "] == changes
    assert shown_lines == ["  ..."] * bool(old) or changes


def test_a_large_difference_is_quick():
    """A hundred thousand lines, every tenth of them gone: the quadratic algorithm would not end."""
    old = [f"v{i} = add v{i - 1} 1" for i in range(100_000)]
    new = [line for i, line in enumerate(old) if i % 10]
    assert sum(line.startswith("-") for line in changed_lines(old, new)) == 10_000
