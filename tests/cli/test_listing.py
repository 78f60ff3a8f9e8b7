"""``xlapass list``, ``help``, ``plugins``, ``new-plugin`` and the help texts."""

import subprocess
import sys

import pytest
from xlapass.cli.describing import attribute_docs, type_text

LIGHT = """
import sys
from xlapass.cli import main
for kind in ("passes", "pipelines", "backends", "targets", "composites", "forms", "plugins"):
    assert main(["list", kind]) == 0
assert main(["plugins"]) == 0 and main(["--version"]) == 0 and main(["--help"]) == 0 and main(["help", "bench"]) == 0
heavy = {"jax", "jaxlib", "numpy", "flax", "onnx", "tensorflow"} & set(sys.modules)
assert not heavy, heavy
"""


def test_listing_imports_nothing_heavy():
    result = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_lists(command):
    lines = command("list", "passes").out.splitlines()
    assert lines[0].split() == ["pass", "plugin", "about"]
    assert any(line.startswith("inline ") and "xlapass-passes" in line for line in lines)
    assert "h100" in command("list", "targets").out
    assert "embed" not in command("list", "backends").out and "xla" in command("list", "backends").out
    row = next(line for line in command("list", "pipelines").out.splitlines() if line.startswith("cpu "))
    assert row.split()[1:4] == ["xlapass-xla", "xla", "cpu"]
    row = next(line for line in command("list", "plugins").out.splitlines() if line.startswith("xlapass-xla "))
    assert "3 compile options; 1 backend" in row


def test_what_is_missing_says_how_to_install_it(command, write):
    write(
        "needy.py",
        """
        from xlapass.core.plugins import Entry, hookimpl

        @hookimpl
        def xlapass_passes():
            return {
                "extra": Entry("needy:X", "with an extra", extra="tflite", needs=("no_such_module",)),
                "other": Entry("needy:X", "without one", needs=("no_such_module",)),
            }
        """,
    )
    shown = command("list", "passes", "-p", "needy").out
    assert "with an extra (needs: pip install xlapass[tflite])" in shown
    assert "without one (needs: the module no_such_module)" in shown
    assert command("list", "passes", "-p", "no:xlapass-passes").out.splitlines()[0].startswith("pass")


OPTIONS = """
    import dataclasses
    from typing import ClassVar, Literal
    from xlapass import Entry, Pass, PassResult, hookimpl

    @dataclasses.dataclass(frozen=True)
    class Tile(Pass):
        '''Splits large products into tiles.

        Tiles fit the cache.

        Attributes:
          size: rows and columns of a tile,
            in elements.
          order, layout: how tiles follow each other.
        '''

        name: ClassVar[str] = "tile"
        numerics: ClassVar[str] = "reassociating"
        requires: ClassVar[tuple[str, ...]] = ("inline",)

        size: int
        order: Literal["rows", "columns"] = "rows"
        layout: str | None = None
        only: tuple[str, ...] = ()
        fast_math: bool = True

        def run(self, program, context):
            return PassResult(program, False)

    @hookimpl
    def xlapass_passes():
        return {"tile": Entry(Tile, "splits products")}
"""


def test_a_pass_is_explained_from_its_class(command, write):
    write("tiles.py", OPTIONS)
    expected = [
        "pass tile (plugin tiles)",
        "  Splits large products into tiles.",
        "",
        "  Tiles fit the cache.",
        "  works on jaxpr, numerics: reassociating; needs inline before it",
        "",
        "  options, as in tile{size=...}:",
        "    size=INTEGER  (required)",
        "        rows and columns of a tile, in elements.",
        "    order=rows|columns  (default: rows)",
        "        how tiles follow each other.",
        "    layout=TEXT|none  (default: none)",
        "        how tiles follow each other.",
        "    only=TEXT+TEXT+...  (default: none)",
        "    fast-math=true|false  (default: true)",
    ]
    assert command("list", "passes", "tile", "-p", "tiles").out.splitlines() == expected
    assert command("help", "tile", "-p", "tiles").out.splitlines() == expected


def test_everything_of_a_name_is_explained(command):
    shown = command("help", "cpu").out
    assert "pipeline cpu (plugin xlapass-xla)" in shown and "target cpu (plugin xlapass-xla)" in shown
    assert "embed-constants=auto|always|never  (default: auto)" in command("help", "xla").out
    assert "platform: cuda" in command("help", "h100").out
    assert "plugin xlapass-xla (xlapass" in command("help", "xlapass-xla").out
    assert "options, as in inline" not in command("help", "inline").out
    assert command("help", "list").out.startswith("usage: xlapass list")
    result = command("help", "h1000")
    assert result.status == 2 and "did you mean 'h100'?" in result.err


RULES = """
    import dataclasses
    from xlapass import Entry, RewritePass, Rule, hookimpl
    from xlapass.core.patterns import op, var

    @dataclasses.dataclass(frozen=True)
    class Rules(RewritePass):
        name = "rules"
        @classmethod
        def own_rules(cls):
            return [Rule("sin-to-cos", op.sin(var("x")), lambda x: x, numerics="lossy")]

    @hookimpl
    def xlapass_passes():
        return {"rules": Entry(Rules), "broken": Entry("no_such_module:X")}

    @hookimpl
    def xlapass_rules():
        return {"rules": Entry([Rule("tan-away", op.tan(var("x")), lambda x: x)])}
"""


def test_rules_are_listed_and_explained(command, write):
    write("rules.py", RULES)
    result = command("list", "rules", "-p", "rules")
    rows = [line.split() for line in result.out.splitlines()]
    assert ["sin-to-cos", "rules", "lossy", "sin"] in rows and ["tan-away", "rules", "exact", "tan"] in rows
    assert "warning: the rules of broken are left out" in result.err
    shown = command("help", "tan-away", "-p", "rules").out
    assert "rule tan-away of rules (" in shown and "rules.py:18" in shown and "looks at tan; numerics: exact" in shown
    assert command("list", "rules", "sin-to-cos", "-p", "rules").status == 0
    assert command("list", "rules", "sin-to-sin", "-p", "rules").status == 2


def test_a_plugin_is_explained(command, write):
    write("tiles.py", OPTIONS)
    shown = command("list", "plugins", "tiles", "-p", "tiles").out
    assert shown.splitlines() == ["plugin tiles (given): active", "  pass: tile"]
    result = command("list", "plugins", "tilse", "-p", "tiles")
    assert result.status == 2 and "did you mean 'tiles'?" in result.err


@pytest.mark.parametrize("name", ["compile", "bench", "list", "help", "plugins", "new-plugin"])
def test_every_command_has_help(command, name):
    result = command(name, "--help")
    assert result.status == 0 and result.out.startswith("usage: xlapass") and result.err == ""
    assert max(map(len, result.out.splitlines())) <= 120


def test_the_help_teaches(command):
    shown = command("--help").out
    for part in ("example_inputs", "examples:", "commands:", "[tool.xlapass]", "exit status:"):
        assert part in shown


def test_a_new_plugin(command, tmp_path):
    result = command("new-plugin", "my-passes")
    assert result.status == 0 and result.out == "my-passes\n" and "pip install" in result.err
    assert (tmp_path / "my-passes" / "pyproject.toml").is_file()
    result = command("new-plugin", "my-passes")
    assert result.status == 2 and "exists already" in result.err


def test_types_are_written_as_options_are():
    assert type_text(int | None) == "INTEGER|none"
    assert type_text(tuple[int, ...]) == "INTEGER+INTEGER+..."
    assert type_text(float) == "NUMBER"


def test_attributes_are_read_from_all_bases():
    class Base:
        """Base.

        Attributes:
          a: of the base.
          b: of the base.
        """

    class Derived(Base):
        """Derived.

        Attributes:
          b: of the derived,
            on two lines.

        More text: not an attribute.
        """

    assert attribute_docs(Derived) == {"a": "of the base.", "b": "of the derived, on two lines."}
