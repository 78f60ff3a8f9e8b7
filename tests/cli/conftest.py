"""The command, run in this process: a subprocess would spend seconds on importing JAX."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xlapass.cli import main

MODEL = """
    import jax
    import jax.numpy as jnp

    W = jnp.arange(12.0).reshape(3, 4)

    def model(x):
        unused = jnp.sin(x)
        return {"y": jax.nn.relu(x @ W), "sum": x.sum()}

    example_inputs = (jnp.arange(6.0).reshape(2, 3),)
"""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run of the command left behind."""

    status: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a file into the test's folder, from indented text."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
        return path

    return write_file


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs ``xlapass ARGS`` in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*args: str) -> Result:
        capsys.readouterr()
        status = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Result(status, out, err)

    yield run
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def model(write: Callable[[str, str], Path]) -> str:
    """An ordinary model.py."""
    write("model.py", MODEL)
    return "model.py"
