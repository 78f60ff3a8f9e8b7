"""`xlapass.scaffold.create`: a package that works, or a clear no."""

import os

import pytest
from xlapass.core.errors import UsageError
from xlapass.core.plugins import load_registry
from xlapass.scaffold import create


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_is_written(tmp_path):
    folder = create("my-passes", tmp_path)
    assert folder == tmp_path / "my-passes"
    assert files(folder) == [
        "README.md",
        "pyproject.toml",
        "src/my_passes/__init__.py",
        "src/my_passes/passes.py",
        "src/my_passes/plugin.py",
        "tests/test_passes.py",
    ]
    assert not any("$" in path.read_text() for path in folder.rglob("*.*") if path.is_file())


def test_the_plugin_is_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(create("quite-new", tmp_path) / "src")
    registry = load_registry(["quite_new.plugin"], discover=False, strict=True)
    assert registry.names("pass") == ["quite-new-example"]
    assert registry.load("pass", "quite-new-example").name == "quite-new-example"


@pytest.mark.parametrize("name", ["", "My-Passes", "my_passes", "-x", "x-", "a--b", "../up", "a b", "3d", "a/b", "é"])
def test_names_that_will_not_do(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be the name of a plugin"):
        create(name, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["class", "json", "jax", "xlapass"])
def test_names_that_are_taken(tmp_path, name):
    with pytest.raises(UsageError, match=r"keyword|already"):
        create(name, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_nothing_is_overwritten(tmp_path, kind):
    there = tmp_path / "mine"
    if kind == "folder":
        there.mkdir()
        (there / "notes").write_text("mine")
    elif kind == "file":
        there.write_text("mine")
    else:
        there.symlink_to(tmp_path / "nowhere")
    before = files(tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        create("mine", tmp_path)
    assert files(tmp_path) == before


def test_no_such_folder(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        create("mine", tmp_path / "missing")


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("pathlib.Path.rename", fail)
    with pytest.raises(UsageError, match="No space left"):
        create("mine", tmp_path)
    assert files(tmp_path) == []
