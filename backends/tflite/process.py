"""The worker process as its parent sees it: calls that end, whatever the process does."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from ...core.errors import UsageError
from .worker.serve import REPLY, REQUEST

FailureKind = Literal["failed", "crashed", "timeout", "memory"]
"""The job raised; its process died; it was not done in time; it wanted too much memory."""

Result = TypeVar("Result")

_WORKER = Path(__file__).parent / "worker"

# The worker as a package of its own, under a name that nothing else has: importing it through xlapass would import JAX,
# which need not be there, and a folder on the path could hide modules of others.
_BOOT = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location("xlapass_tflite_worker", sys.argv[1] + "/__init__.py")
package = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = package
spec.loader.exec_module(package)
importlib.import_module("xlapass_tflite_worker.serve").main()
"""

_STDERR_LINES = 12

_LACKING_MEMORY = ("bad_alloc", "Memory allocation")
"""What a process says that ends for lack of memory: the C++ library, OpenBLAS."""


class WorkerFailure(Exception):
    """A job was not done.

    Attributes:
      kind: how it went wrong.
      text: what the job raised, or the last words of its process.
    """

    def __init__(self, kind: FailureKind, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text


class Worker:
    """A process that does jobs, one after the other; started when first needed, and anew after it died.

    Args:
      python: the interpreter; by default this one's. A path may start from the current folder, or with ``~``.
      timeout_s: seconds after which a job, and the process with it, is ended.
      memory_bytes: limit of the address space of a job; 0 for none.
    """

    def __init__(self, python: str = "", *, timeout_s: float = 600.0, memory_bytes: int = 0) -> None:
        self.python = _command(python) if python else sys.executable
        self.timeout_s = timeout_s
        self.memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._home: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and removes its files."""
        self._end()
        if self._home is not None:
            self._home.cleanup()
            self._home = None

    def call(
        self,
        request: Mapping[str, Any],
        prepare: Callable[[Path], object],
        collect: Callable[[Path, Mapping[str, Any]], Result],
    ) -> Result:
        """Has a job done.

        Args:
          request: what ``worker.serve`` shall do; JSON-able.
          prepare: puts the files that the job reads into the folder it is given.
          collect: makes the result from the folder and the reply, before the folder is removed.

        Raises:
          WorkerFailure: the job raised, crashed, or was not done in time.
          UsageError: there is no such interpreter.
        """
        process = self._running()
        assert self._home is not None
        with tempfile.TemporaryDirectory(dir=self._home.name, prefix="job-") as name:
            folder = Path(name)
            prepare(folder)
            (folder / REQUEST).write_text(json.dumps({**request, "memory_bytes": self.memory_bytes}))
            try:
                self._await(process, folder)
            except BaseException:  # KeyboardInterrupt, too: the process must not go on writing into the folder
                self._end()
                raise
            reply = json.loads((folder / REPLY).read_text())
            if "error" in reply:
                raise WorkerFailure(reply["kind"], reply["error"])
            return collect(folder, reply)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._home is None:
            self._home = tempfile.TemporaryDirectory(prefix="xlapass-tflite-")
        if self._process is None:
            try:
                self._process = self._started()
            except OSError as error:
                raise UsageError(
                    f"cannot run the interpreter {self.python!r}: {error.strerror}", hint="name one that exists"
                ) from error
        return self._process

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._home is not None
        with open(self._stderr, "wb") as stderr:
            return subprocess.Popen(
                [self.python, "-P", "-c", _BOOT, str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=self._home.name,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the parent, which ends the worker itself
            )

    def _await(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        """Sends the folder and waits for the line that says it is done."""
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{folder}\n".encode())
            process.stdin.flush()
        except BrokenPipeError:
            raise self._death(process) from None
        deadline = time.monotonic() + self.timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise WorkerFailure("timeout", f"it was not done after {self.timeout_s:g} s")
        if not process.stdout.readline():
            raise self._death(process)

    def _death(self, process: subprocess.Popen[bytes]) -> WorkerFailure:
        status = process.wait()
        words = self._last_words()
        lacking = any(text in words for text in _LACKING_MEMORY)
        if status < 0:
            name = signal.Signals(-status).name
            # Whoever finds no memory where none can be lacking aborts; the kernel kills when all is used up.
            starved = lacking or name == "SIGKILL" or (self.memory_bytes > 0 and name == "SIGABRT")
            return WorkerFailure("memory" if starved else "crashed", f"its process was ended by {name}{words}")
        return WorkerFailure("memory" if lacking else "crashed", f"its process ended with status {status}{words}")

    @property
    def _stderr(self) -> Path:
        assert self._home is not None
        return Path(self._home.name) / "stderr.txt"

    def _last_words(self) -> str:
        lines = self._stderr.read_text(errors="replace").splitlines()[-_STDERR_LINES:]
        return "".join(f"\n    {line}" for line in lines)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what was still to be sent has nobody to read it
                    pipe.close()


def _command(python: str) -> str:
    """A path from here, which the worker does not start from; a mere name is looked up as always."""
    path = os.path.expanduser(python)
    return os.path.abspath(path) if os.path.dirname(path) else path  # not resolved: an environment may be a link


def _environment() -> dict[str, str]:
    """The caller's environment; the libraries' chatter is kept down, so that last words are the words that matter."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""}
