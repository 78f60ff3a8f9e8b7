"""``[tool.xlapass]`` in pyproject.toml."""

import re
from typing import get_args

import pytest
from xlapass.cli.settings import NUMERICS, VERIFY
from xlapass.core.driver import Verify
from xlapass.core.pass_ import NUMERICS_ORDER
from xlapass.core.rewrite import Numerics

MINE = """
    [tool.xlapass]
    pipeline = "inline,dead-code"
    numerics = "exact"
    verify = "numerics"
    plugins = ["mine"]
"""
PLUGIN = """
    import dataclasses
    from xlapass import Entry, Pass, PassResult, hookimpl

    @dataclasses.dataclass(frozen=True)
    class Lossy(Pass):
        name = "lossy"
        numerics = "lossy"
        def run(self, program, context):
            return PassResult(program, False)

    @hookimpl
    def xlapass_passes():
        return {"lossy": Entry(Lossy)}
"""


def test_the_choices_are_those_of_the_driver():
    assert NUMERICS == NUMERICS_ORDER == get_args(Numerics)
    assert get_args(Verify) == VERIFY


@pytest.fixture
def project(write):
    write("pyproject.toml", MINE)
    write("mine.py", PLUGIN)
    write("models/small.py", "def model(x):\n    return x\nexample_inputs = (1.0,)\n")
    write("models/pyproject.toml", "[project]\nname = 'no-settings-of-ours'\n")
    return "models/small.py"


def test_settings_are_found_from_the_models_folder(command, project, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shown = command("--dry-run", f"../{project}").out
    assert [line.split()[0] for line in shown.splitlines()[1:3]] == ["inline", "dead-code"]


def test_flags_win(command, project):
    assert "left out: it is lossy" in command("--dry-run", "--pipeline=lossy", project).out
    assert "left out" not in command("--dry-run", "--pipeline=lossy", "--numerics=lossy", project).out
    result = command("--pipeline=lossy", "-p", "no:mine", project)
    assert result.status == 2 and "there is no pass or pipeline 'lossy'" in result.err


def test_blocked_plugins(command, project, write):
    write("pyproject.toml", '[tool.xlapass]\nplugins = ["mine"]\nblock = ["mine"]\n')
    assert re.search("^mine +blocked", command("plugins").out, re.MULTILINE)
    assert re.search("^mine +active", command("plugins", "-p", "mine").out, re.MULTILINE)


@pytest.mark.parametrize(
    "text, message, hint",
    [
        ("pipline = 'cpu'", "has an unknown key 'pipline'", "did you mean 'pipeline'?"),
        ("plugins = 'mine'", "plugins of [tool.xlapass] in", 'write plugins = ["name"]'),
        ("plugins = [1]", "must be a list of names", ""),
        ("pipeline = 3", "must be text", ""),
        ("numerics = 'fast'", "cannot be 'fast'", "exact"),
        ("verify =", "is not valid TOML", ""),
        ("plugins = ['no_such_plugin']", "there is no plugin or module 'no_such_plugin'", ""),
    ],
)
def test_bad_settings(command, project, write, text, message, hint):
    write("pyproject.toml", f"[tool.xlapass]\n{text}\n")
    result = command("--dry-run", project)
    assert (result.status, result.out) == (2, "")
    assert message in result.err and hint in result.err and "Traceback" not in result.err


def test_settings_that_are_no_table(command, project, write):
    write("pyproject.toml", "[tool]\nxlapass = 3\n")
    assert "must be a table" in command("--dry-run", project).err
