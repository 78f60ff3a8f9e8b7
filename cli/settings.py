"""``[tool.xlapass]`` of the nearest pyproject.toml: what is used where the command line says nothing."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..core.errors import UsageError
from ..core.options import suggestion

Numerics = Literal["exact", "reassociating", "lossy"]
Verify = Literal["none", "structure", "numerics"]

NUMERICS: tuple[Numerics, ...] = ("exact", "reassociating", "lossy")
VERIFY: tuple[Verify, ...] = ("none", "structure", "numerics")
# The same choices as in core.rewrite and core.driver, which cannot be imported without importing JAX.


@dataclasses.dataclass(frozen=True)
class Settings:
    """The configuration of a project.

    Attributes:
      pipeline: name or text of the pipeline; empty for the usual one.
      numerics: the loosest change to results allowed.
      verify: what is checked after every pass.
      plugins: importable names of further plugins, found from the file's folder too.
      block: names of plugins to leave out.
      folder: where the file stands; empty when there is none.
    """

    pipeline: str = ""
    numerics: Numerics = "lossy"
    verify: Verify = "structure"
    plugins: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    folder: str = ""


_CHOICES: Mapping[str, tuple[str, ...]] = {"numerics": NUMERICS, "verify": VERIFY}
_LISTS = ("plugins", "block")
_KEYS = ("pipeline", "numerics", "verify", "plugins", "block")


def read_settings(start: Path) -> Settings:
    """The settings of the nearest pyproject.toml with a ``[tool.xlapass]``, from the folder ``start`` upwards.

    Raises:
      UsageError: the file cannot be read, or holds an unknown key or a value of the wrong type.
    """
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            table = _table(file)
            if table is not None:
                return _settings(table, file)
    return Settings()


def _table(file: Path) -> Any:
    try:
        with open(file, "rb") as stream:
            data = tomllib.load(stream)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error
    tool = data.get("tool", {})
    return tool.get("xlapass") if isinstance(tool, dict) else None


def _settings(table: Any, file: Path) -> Settings:
    where = f"[tool.xlapass] in {file}"
    if not isinstance(table, dict):
        raise UsageError(f"tool.xlapass in {file} must be a table")
    for key in table:
        if key not in _KEYS:
            raise UsageError(f"{where} has an unknown key {key!r}", hint=suggestion(key, _KEYS))
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key in _LISTS:
            if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
                raise UsageError(f"{key} of {where} must be a list of names", hint=f'write {key} = ["name"]')
            values[key] = tuple(value)
            continue
        if not isinstance(value, str):
            raise UsageError(f"{key} of {where} must be text", hint=f'write {key} = "..."')
        if key in _CHOICES and value not in _CHOICES[key]:
            raise UsageError(f"{key} of {where} cannot be {value!r}", hint=suggestion(value, _CHOICES[key]))
        values[key] = value
    return Settings(**values, folder=str(file.parent))
