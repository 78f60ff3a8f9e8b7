"""What is built: every package is listed, and a wheel of it works in an empty environment."""

import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("backends", "cli", "core", "passes", "plugins")


def test_every_package_is_listed():
    found = {"xlapass"}
    for room in ROOMS:
        folders = [p.parent for p in (ROOT / room).rglob("__init__.py")]
        found |= {".".join(("xlapass", *folder.relative_to(ROOT).parts)) for folder in folders}
    assert sorted(found) == PROJECT["tool"]["setuptools"]["packages"]


def test_versions_agree():
    import xlapass

    assert xlapass.__version__ == PROJECT["project"]["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(out), str(ROOT)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"xlapass/__init__.py", "xlapass/py.typed", "xlapass/testing.py", "xlapass/scaffold.py"} <= set(names)
    assert not [n for n in names if n.startswith(("xlapass/tests", "xlapass/examples", "xlapass/benchmarks", "tests"))]


def test_the_wheel_works_by_itself(wheel, tmp_path):
    """In an environment that has this one's libraries and not its editable install."""
    home = tmp_path / "env"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    packages = next((home / "lib").glob("python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(packages)
    here = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    # Not a .pth line, which would run the editable install's hook as well.
    code = f"""
import sys
sys.path.append({str(here)!r})
import xlapass, jax.numpy as jnp
assert {str(packages)!r} in xlapass.__file__, xlapass.__file__
print(xlapass.compile(lambda x: jnp.sin(x) * 1.0, jnp.ones(3), pipeline="cpu").executable()(jnp.ones(3))[0])
from xlapass.cli import main
sys.exit(main(["list", "passes"]))
"""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.84") and "fold-constants" in done.stdout
