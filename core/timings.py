"""Measured times of forms, kept in a JSON file that a team can share.

A time belongs to a signature, a form, a device and a version of JAX. A file that cannot be read, or that holds
something else, is left alone: a warning, and the static cost model decides.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from .errors import XlapassError
from .files import write_atomically
from .forms import FormWarning, Signature

FORMAT = "xlapass timings 1"
"""First entry of a file; another number would mean another layout."""


def this_environment() -> str:
    """What measured times depend on besides the operation: device, number of cores, version of JAX."""
    device = jax.devices()[0]
    return f"{device.platform} {device.device_kind} x{os.cpu_count()} jax-{jax.__version__}"


def timings_path(name: str) -> Path:
    """The file that an option names: a path, or ``cache`` for the user's own file."""
    if name != "cache":
        return Path(name)
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "xlapass" / "timings.json"


class Timings:
    """Seconds by signature and form, measured in one environment.

    Args:
      environment: where they were measured; by default here.

    Attributes:
      from_foreign_file: whether a file was read that holds something else, and must not be written over.
    """

    def __init__(self, environment: str | None = None) -> None:
        self.environment = environment if environment is not None else this_environment()
        self.from_foreign_file = False
        self._all: dict[str, dict[str, dict[str, float]]] = {}

    def of(self, signature: Signature) -> Mapping[str, float] | None:
        """Seconds by form name, or None where the signature was not measured here."""
        return self._all.get(self.environment, {}).get(signature.key)

    def record(self, signature: Signature, form: str, seconds: float) -> None:
        """Adds one measured time."""
        self._all.setdefault(self.environment, {}).setdefault(signature.key, {})[form] = seconds

    def __len__(self) -> int:
        """Number of signatures measured in this environment."""
        return len(self._all.get(self.environment, {}))

    @classmethod
    def read(cls, path: str | os.PathLike[str], environment: str | None = None) -> Timings:
        """The times in a file; none, with a warning unless the file is just missing, where it cannot be used."""
        timings = cls(environment)
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            timings._all = _checked(content)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            timings.from_foreign_file = True
            warnings.warn(f"the measured times in {os.fspath(path)} cannot be used: {error}", FormWarning, stacklevel=2)
        return timings

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes all times, those of other environments included; what others added meanwhile is kept.

        Raises:
          UsageError: the file cannot be written there.
          XlapassError: something that is no file of measured times is there.
        """
        if os.path.exists(path):
            with warnings.catch_warnings():
                warnings.simplefilter("error", FormWarning)
                try:
                    earlier = Timings.read(path, self.environment)._all
                except FormWarning as error:
                    raise XlapassError(str(error), hint="choose another file, or remove this one") from None
            for environment, signatures in earlier.items():
                mine = self._all.setdefault(environment, {})
                for key, forms in signatures.items():
                    mine[key] = forms | mine.get(key, {})
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "seconds": self._all}, indent=1, sort_keys=True)
        write_atomically(path, (text + "\n").encode())


def _checked(content: Any) -> dict[str, dict[str, dict[str, float]]]:
    """The times of a parsed file; raises `ValueError` where it is of another kind."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it is not in the format {FORMAT!r}")
    seconds = content.get("seconds")
    if not isinstance(seconds, dict):
        raise ValueError("it holds no times")
    for signatures in seconds.values():
        for forms in _mapping(signatures).values():
            for time in _mapping(forms).values():
                if not isinstance(time, int | float) or isinstance(time, bool) or not time > 0:
                    raise ValueError(f"{time!r} is not a time")
    return seconds


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not an object")
    return value
