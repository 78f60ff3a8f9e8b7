"""Ctrl-C that works while XLA compiles.

Python sees a signal only between two of its own instructions, and a compilation is one call into C++ that may take
minutes. The interpreter's wake-up descriptor is written to at once, though; a thread that waits there ends the process
when the main thread has not reacted after a while. Files are not at risk: they are written by Python code, which does
react, and take their names in one step.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

GRACE_S = 2.0
"""Time for the main thread to notice by itself, so that what it holds is released in good order."""


@contextlib.contextmanager
def prompt_interrupts(leave: Callable[[], None], status: int, grace_s: float = GRACE_S) -> Iterator[None]:
    """While the body runs, SIGINT ends the process after ``grace_s`` seconds even inside one long call.

    Args:
      leave: called by the waiting thread just before it ends the process.
      status: the exit status then.
      grace_s: seconds to wait for the main thread.
    """
    if not _can_listen():
        yield
        return
    noticed = threading.Event()

    def handler(signum: int, frame: Any) -> None:
        noticed.set()
        raise KeyboardInterrupt

    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    thread = threading.Thread(
        target=_wait_and_end, args=(read_end, noticed, leave, status, grace_s), name="interrupts", daemon=True
    )
    previous_handler = signal.signal(signal.SIGINT, handler)
    previous_descriptor = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous_descriptor)
        signal.signal(signal.SIGINT, previous_handler)
        os.close(write_end)  # ends the thread
        thread.join()
        os.close(read_end)


def _can_listen() -> bool:
    """Only the main thread takes signals; and whoever started the process may have it ignore them."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return os.name == "posix" and in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _wait_and_end(
    descriptor: int, noticed: threading.Event, leave: Callable[[], None], status: int, grace_s: float
) -> None:
    while signals := os.read(descriptor, 64):
        if signal.SIGINT in signals and not noticed.wait(grace_s):
            leave()
            os._exit(status)
