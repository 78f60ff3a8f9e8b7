"""Measured times, kept in a JSON file that a team can share.

A file holds, for every environment (device, cores, version of JAX), the candidates that were measured for a subject:
the forms of an operation's signature, or the compile options of a program. ``docs/tuning.md`` describes the format. A
file that cannot be read, or that holds something else, is left alone: a warning, and nothing measured decides.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from .errors import UsageError, XlapassError
from .files import write_atomically
from .forms import FormWarning, Measured

FORMAT = "xlapass timings 2"
"""First entry of a file; another number would mean another layout."""


def this_environment(device: jax.Device | None = None) -> str:
    """What measured times depend on besides the operation: device (JAX's first by default), cores, version of JAX."""
    device = jax.devices()[0] if device is None else device
    kind = _cpu_model() if device.platform == "cpu" else device.device_kind
    return f"{device.platform} {kind} x{_core_count()} jax-{jax.__version__}"


def _cpu_model() -> str:
    """JAX calls every CPU ``cpu``; a file shared by a team must tell them apart."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            found = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
    except OSError:  # there is such a file on Linux only
        found = None
    return " ".join(found[1].split()) if found else platform.processor() or platform.machine()


def _core_count() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class Timings:
    """What was measured, by subject and candidate, in one environment.

    Args:
      environment: where it was measured; by default here.

    Attributes:
      is_writable: whether the file may be written: not where something else stands in it, or writing failed before.
    """

    def __init__(self, environment: str | None = None) -> None:
        self.environment = environment if environment is not None else this_environment()
        self.is_writable = True
        self._all: dict[str, dict[str, dict[str, Measured]]] = {}

    def of(self, subject: str) -> Mapping[str, Measured] | None:
        """The measured candidates by name, or None where the subject was not measured here."""
        return self._all.get(self.environment, {}).get(subject)

    def record(self, subject: str, candidate: str, measured: Measured) -> None:
        """Adds one candidate."""
        self._all.setdefault(self.environment, {}).setdefault(subject, {})[candidate] = measured

    def __len__(self) -> int:
        """Number of subjects measured in this environment."""
        return len(self._all.get(self.environment, {}))

    @classmethod
    def read(cls, path: str | os.PathLike[str], environment: str | None = None) -> Timings:
        """What is in a file; nothing, with a warning unless the file is just missing, where it cannot be used."""
        timings = cls(environment)
        try:
            timings._all = _content(path)
        except XlapassError as error:
            timings.is_writable = False
            warnings.warn(error.message, FormWarning, stacklevel=2)
        return timings

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes everything, other environments included; what others added meanwhile is kept.

        Raises:
          UsageError: the file cannot be written there.
          XlapassError: something that is no file of measured times is there.
        """
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write {os.fspath(path)!r}: {error}", hint="choose another file") from error
        with _one_writer(Path(path).parent):
            for environment, subjects in _content(path).items():
                mine = self._all.setdefault(environment, {})
                for subject, candidates in subjects.items():
                    mine[subject] = candidates | mine.get(subject, {})
            measured = {
                environment: {
                    subject: {name: _as_json(one) for name, one in candidates.items()}
                    for subject, candidates in subjects.items()
                }
                for environment, subjects in self._all.items()
            }
            text = json.dumps({"format": FORMAT, "measured": measured}, indent=1, sort_keys=True)
            write_atomically(path, (text + "\n").encode())

    def try_to_write(self, path: str | os.PathLike[str]) -> None:
        """As `write`; where that fails, a warning, once: what was measured then counts for this process only."""
        if not self.is_writable:
            return
        try:
            self.write(path)
        except XlapassError as error:
            self.is_writable = False
            warnings.warn(f"measured times are not kept: {error.message}", FormWarning, stacklevel=2)


@contextlib.contextmanager
def _one_writer(folder: Path) -> Iterator[None]:
    """Others that would write into ``folder`` wait, where the system has such locks; then nobody's times are lost."""
    try:
        import fcntl
    except ImportError:  # not on every system
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _content(path: str | os.PathLike[str]) -> dict[str, dict[str, dict[str, Measured]]]:
    """What a file holds; nothing where there is none. Raises `XlapassError` where it holds something else."""
    try:
        with open(path, encoding="utf-8") as file:
            return _checked(json.load(file))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise XlapassError(
            f"the measured times in {os.fspath(path)} cannot be used: {error}",
            hint="choose another file, or remove this one",
        ) from None


def _as_json(measured: Measured) -> dict[str, Any]:
    if measured.problem:
        return {"problem": measured.problem}
    return {"seconds": measured.seconds, "gain": [measured.gain, measured.at_most]}


def _checked(content: Any) -> dict[str, dict[str, dict[str, Measured]]]:
    """What a parsed file holds; raises `ValueError` where it is of another kind."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it is not in the format {FORMAT!r}")
    return {
        environment: {
            subject: {name: _measured(one) for name, one in _mapping(candidates).items()}
            for subject, candidates in _mapping(subjects).items()
        }
        for environment, subjects in _mapping(content.get("measured")).items()
    }


def _measured(value: Any) -> Measured:
    entry = _mapping(value)
    problem = entry.get("problem", "")
    if not isinstance(problem, str):
        raise ValueError(f"{problem!r} is not a sentence")
    if problem:
        return Measured(problem=problem)
    gain = entry.get("gain")
    if not isinstance(gain, list) or len(gain) != 2:
        raise ValueError(f"{gain!r} is not the range of a gain")
    low, high = (_number(bound, "a gain") for bound in gain)
    return Measured(_number(entry.get("seconds"), "a time"), low, high)


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{value!r} is not {what}")
    return float(value)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not an object")
    return value
