"""A separate environment into which packages are really installed, by pip and without a network.

It sees what the environment of the tests has, xlapass and its dependencies, and has a `site-packages` of its own.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from xlapass.scaffold import create

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


@dataclasses.dataclass(frozen=True)
class Environment:
    """Where the example plugin and a fresh skeleton are installed.

    Attributes:
      python: the interpreter.
      folder: an empty folder to work in.
      example, skeleton: copies of the packages' sources.
    """

    python: Path
    folder: Path
    example: Path
    skeleton: Path

    def run(self, *arguments, cwd=None):
        """Runs the interpreter; returns the completed process, with its output as text."""
        variables = {**os.environ, "JAX_PLATFORMS": "cpu"}
        command = [self.python, *arguments]
        return subprocess.run(command, cwd=cwd or self.folder, env=variables, capture_output=True, text=True)

    def xlapass(self, *arguments, cwd=None):
        """Runs the command ``xlapass``."""
        return self.run("-m", "xlapass", *arguments, cwd=cwd)


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """An `Environment`, made once."""
    root = tmp_path_factory.mktemp("environment")
    (root / "work").mkdir()
    example = Path(shutil.copytree(EXAMPLE, root / "example", ignore=shutil.ignore_patterns("__pycache__", "build")))
    skeleton = create("fresh-skeleton", root)
    python = _virtual_environment(root / "venv")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    installed = subprocess.run([*pip, *offline, example, skeleton], capture_output=True, text=True)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return Environment(python, root / "work", example, skeleton)


def _virtual_environment(folder):
    """A virtual environment that looks into this one's `site-packages` after its own, editable installs included."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    own = sysconfig.get_path("purelib", "venv", vars={"base": str(folder), "platbase": str(folder)})
    borrowed = sysconfig.get_path("purelib")
    (Path(own) / "borrowed.pth").write_text(f"import site; site.addsitedir({borrowed!r})\n")
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"
