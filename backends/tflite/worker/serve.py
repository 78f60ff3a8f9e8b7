"""The worker's loop: folders in, files out.

Each line on standard input names a folder. It holds ``request.json``, whose ``job`` says what to do, and the files
that the job reads; the job leaves files of its own there. Then the worker writes ``reply.json``, with ``error`` when it
could not do the job, and a line to standard output. It ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

Job = Callable[[Path, Mapping[str, Any]], Mapping[str, Any]]
"""Works in a folder as a request says; returns what shall stand in the reply."""

REQUEST = "request.json"
REPLY = "reply.json"
_STARVED = (os.strerror(errno.ENOMEM), "failed to map segment", "bad_alloc", "bad allocation")
"""What errors say when memory was lacking, to load a library for example."""

MODULE = "module.mlirbc"
MODEL = "model.tflite"
SIGNATURE = "serving_default"
"""Name of the only signature of a converted model, by TensorFlow's convention."""


def main() -> None:
    """Serves until standard input ends."""
    answers = _private_stdout()
    for line in sys.stdin:
        folder = Path(line.rstrip("\n"))
        reply = _do(folder)
        (folder / REPLY).write_text(json.dumps(reply))
        answers.write(b"done\n")
        answers.flush()


def _do(folder: Path) -> Mapping[str, Any]:
    request = json.loads((folder / REQUEST).read_text())
    try:
        with _limited_memory(request.get("memory_bytes", 0)):
            return _job(request["job"])(folder, request)
    except MemoryError:
        return {"error": "out of memory", "kind": "memory"}
    except Exception as error:  # converters raise what they like; the parent says what it means
        starved = any(words in str(error) for words in _STARVED)
        return {"error": f"{type(error).__name__}: {error}", "kind": "memory" if starved else "failed"}


def _job(name: str) -> Job:
    """The job of that name; converters are imported when first wanted, for they may not be installed."""
    module = importlib.import_module(f".{name}", __package__)
    job: Job = module.run
    return job


def _private_stdout() -> BinaryIO:
    """Standard output for the answers alone: whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _limited_memory(count: int) -> contextlib.AbstractContextManager[None]:
    """Limits the address space while a job runs; 0 does not."""
    return _memory_limit(count) if count else contextlib.nullcontext()


@contextlib.contextmanager
def _memory_limit(count: int) -> Any:
    import resource  # not on every system

    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
