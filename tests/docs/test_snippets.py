"""Every snippet in the documentation runs, in order, each document in an empty folder of its own.

``python`` blocks share one namespace. One that begins with ``# NAME.py`` is a file: it is written and imported. A
``text`` block that follows is what the block above it prints. In ``console`` blocks, ``$ xlapass`` is run; what stands
below is what it prints, where ``...`` stands for anything, and ``$ echo $?`` shows its exit status, else it is 0.
"""

import contextlib
import dataclasses
import doctest
import importlib
import io
import re
import shlex
import sys
import types
from pathlib import Path

import pytest
from xlapass.cli import main

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"gpu.md", "onnx.md", "onnx-runtimes.md"}
"""Documents with tests of their own, beside those of the backend."""

DOCUMENTS = [p for p in sorted((ROOT / "docs").glob("*.md")) if p.name not in ELSEWHERE] + [ROOT / "README.md"]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# (\w+)\.py\n")
_LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block with its language and the line on which its text begins."""

    language: str
    text: str
    line: int


def blocks(document):
    text = document.read_text(encoding="utf-8")
    return [Block(m[1], m[2], text[: m.start()].count("\n") + 2) for m in _BLOCK.finditer(text)]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The namespace of a document: a module, so that dataclasses find the types of their fields."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    module = types.ModuleType("snippets")
    sys.modules["snippets"] = module
    yield module
    here = [n for n in set(sys.modules) - before if _lies_below(sys.modules[n], tmp_path)]
    for name in [*here, "snippets"]:
        del sys.modules[name]


def _lies_below(module, folder):
    return str(getattr(module, "__file__", None) or "").startswith(str(folder))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_document(document, module):
    printed = ""
    for block in blocks(document):
        place = f"{document.relative_to(ROOT)}:{block.line}"
        if block.language == "python":
            printed = run_python(block, module, place)
        elif block.language == "console":
            run_console(block, place)
        elif block.language == "text":
            assert_like(printed, block.text, place)


def run_python(block, module, place):
    """Runs a block, or writes the file that it is; returns what it prints."""
    out = io.StringIO()
    if (file := _FILE.match(block.text)) is not None:
        Path(f"{file[1]}.py").write_text(block.text)
        importlib.invalidate_caches()
        with contextlib.redirect_stdout(out):
            importlib.import_module(file[1])
    else:
        code = compile("\n" * (block.line - 1) + block.text, place.rpartition(":")[0], "exec")
        with contextlib.redirect_stdout(out):
            exec(code, vars(module))
    return out.getvalue()


def run_console(block, place):
    """Runs the ``xlapass`` commands of a session."""
    status = None
    for command, shown in sessions(block.text):
        if command == "echo $?":
            assert str(status) == shown.strip(), f"{place}: the exit status is {status}"
            status = None
            continue
        assert status in (None, 0), f"{place}: the exit status is {status}"
        program, *arguments = shlex.split(command, comments=True)
        if program != "xlapass":
            status = None
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            status = main(arguments)
        printed = out.getvalue()
        if shown.strip():
            assert_like(printed, shown, f"{place}: {command}")
        elif status:
            pytest.fail(f"{place}: {command}: exit status {status}\n{printed}")
    assert status in (None, 0), f"{place}: the exit status is {status}"


def sessions(text):
    """``(command, output)`` of a console session."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    for part in parts:
        command, _, shown = part.replace("\\\n", " ").partition("\n")
        yield command.strip(), shown


def assert_like(printed, shown, place):
    if not doctest.OutputChecker().check_output(shown, printed, _LOOSE):
        pytest.fail(f"{place}: printed\n{printed}\nand not\n{shown}")
