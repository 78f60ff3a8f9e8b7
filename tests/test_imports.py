"""Imports run one way, and JAX's private modules are imported in one place."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "core": {"core"},
    "passes": {"core", "passes"},
    "backends": {"core", "backends"},
    "plugins": {"core", "passes", "backends", "plugins"},
    "cli": {"core", "cli", "scaffold"},
}
FILES = sorted(path for room in ALLOWED for path in (ROOT / room).rglob("*.py"))


def imported(path):
    """Dotted names of what a file imports; relative ones from the root of the package."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ("xlapass", *base) if node.level else ()
            names = [alias.name for alias in node.names] if not node.module else [node.module]
            yield from (".".join((*prefix, name)) for name in names)


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_run_one_way(room):
    for path in FILES:
        if path.relative_to(ROOT).parts[0] == room:
            rooms = {name.split(".")[1] for name in imported(path) if name.startswith("xlapass.")}
            assert rooms & {*ALLOWED, "testing", "scaffold"} <= ALLOWED[room], path


def test_private_modules_of_jax_are_imported_in_one_file():
    using = {path for path in FILES if any(name.startswith("jax._src") for name in imported(path))}
    assert using == {ROOT / "core" / "_compat.py"}
