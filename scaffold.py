"""The skeleton of a plugin: a package with one pass and a test that passes."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import secrets
import shutil
import string
from pathlib import Path

from .core.errors import UsageError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "$name"
version = "0.1.0"
description = "A plugin for xlapass."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["xlapass"]

[project.optional-dependencies]
dev = ["pytest"]

[project.entry-points.xlapass]
$name = "$module.plugin"

[tool.setuptools.packages.find]
where = ["src"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["src"]
"""

_README = """\
# $name

A plugin for xlapass. It brings the pass `$name-example`.

    pip install -e '.[dev]'
    pytest
    xlapass list plugins
    xlapass --pipeline="inline,$name-example" model.py

`src/$module/plugin.py` says what there is, `src/$module/passes.py` does it.
"""

_INIT = '"""A plugin for xlapass."""\n'

_PLUGIN = '''\
"""What this plugin brings. Implementations are named as text and imported when first used."""

from collections.abc import Mapping

from xlapass import Entry, hookimpl


@hookimpl
def xlapass_passes() -> Mapping[str, Entry]:
    """Passes, by the name that pipelines use."""
    return {"$name-example": Entry("$module.passes:Example", "remove double negation")}
'''

_PASSES = '''\
"""The passes of this plugin."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from xlapass import RewritePass, Rule
from xlapass.core.patterns import op, var

x = var("x")


@dataclasses.dataclass(frozen=True)
class Example(RewritePass):
    """Removes double negation."""

    name: ClassVar[str] = "$name-example"

    @classmethod
    def own_rules(cls) -> Sequence[Rule]:
        """Each is a name, what to look for, and what to put in its place."""
        return [Rule("double-negation", op.neg(op.neg(x)), x)]
'''

_TEST = '''\
"""What the pass does, on programs small enough to read."""

import jax.numpy as jnp

from xlapass.testing import assert_equal_results, assert_idempotent, assert_rewrites, assert_unchanged

from $module.passes import Example

X = jnp.array([1.0, -2.0, 3.0])


def double_negation(x):
    return -(-x) * 2.0


def test_before_and_after():
    assert_rewrites(
        Example(),
        double_negation,
        X,
        expect="""
            program(a:f32[3]):
              b:f32[3] = mul a 2.0:f32[]
              return b
        """,
    )


def test_results_stay_the_same():
    assert_equal_results(Example(), double_negation, X)


def test_a_second_run_finds_nothing():
    assert_idempotent(Example(), double_negation, X)


def test_one_negation_stays():
    assert_unchanged(Example(), lambda x: -x, X)
'''

_FILES = {
    "pyproject.toml": _PYPROJECT,
    "README.md": _README,
    "src/$module/__init__.py": _INIT,
    "src/$module/plugin.py": _PLUGIN,
    "src/$module/passes.py": _PASSES,
    "tests/test_passes.py": _TEST,
}


def create(name: str, folder: str | os.PathLike[str] = ".") -> Path:
    """Writes the skeleton of a plugin into a new folder.

    Args:
      name: name of the distribution, of its folder and of the plugin: lower case, words joined by ``-``.
      folder: where the new folder is made.

    Returns:
      The new folder. It appears whole or not at all.

    Raises:
      UsageError: the name will not do, or the folder exists already or cannot be made.
    """
    module = _module_name(name)
    target = Path(folder) / name
    if os.path.lexists(target):
        raise UsageError(f"{str(target)!r} exists already", hint="choose another name, or another folder")
    if not Path(folder).is_dir():
        raise UsageError(f"there is no folder {str(folder)!r}", hint="create it first")
    _check_free(module)
    unfinished = target.with_name(f".{name}-{secrets.token_hex(4)}.tmp")
    try:
        for path, template in _FILES.items():
            file = unfinished / _filled(path, name, module)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_filled(template, name, module), encoding="utf-8")
        unfinished.rename(target)
    except OSError as error:
        raise UsageError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # gone already when all went well
    return target


def _filled(template: str, name: str, module: str) -> str:
    return string.Template(template).substitute(name=name, module=module)


def _module_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a plugin",
            hint="use lower-case words joined by '-', such as my-passes",
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module):
        raise UsageError(f"{name!r} cannot be the name of a plugin: it is a keyword of Python")
    return module


def _check_free(module: str) -> None:
    """A package of the same name as another would hide it, or be hidden."""
    if importlib.util.find_spec(module) is not None:
        raise UsageError(f"there is a Python module {module!r} already", hint="choose another name")
