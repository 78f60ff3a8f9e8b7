"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from .errors import UsageError

Content = bytes | Callable[[BinaryIO], object]


def write_atomically(path: str | os.PathLike[str], content: Content) -> Path:
    """Writes ``content`` to ``path`` so that no reader, and no interruption, ever sees half of it.

    The bytes go to a temporary file in the same folder, are forced to the disk, and take the final name in one step.
    The temporary file is removed on any exception, ``KeyboardInterrupt`` included; an older file at ``path`` is then
    untouched. A symbolic link is followed, the permissions of an existing file are kept, and what is not a regular file
    (``/dev/stdout``, a pipe) is written to directly, since it cannot be replaced.

    Args:
      path: where the file shall be.
      content: the bytes, or a function that writes them to the open binary file it is given.

    Returns:
      ``path`` as a ``Path``.

    Raises:
      UsageError: the file cannot be written there: no such folder, no permission, a full disk, a folder of that name.
    """
    target = Path(os.path.realpath(path))
    mode = _existing_mode(target)
    if mode is not None and stat.S_ISDIR(mode):
        raise UsageError(f"cannot write {os.fspath(path)!r}: it is a folder", hint="name a file inside it")
    if not target.parent.is_dir():
        raise UsageError(
            f"cannot write {os.fspath(path)!r}: there is no folder {os.fspath(target.parent)!r}",
            hint="create the folder first, or choose another path",
        )
    temporary = target.with_name(f".xlapass-{secrets.token_hex(8)}.tmp")
    try:
        if mode is not None and not stat.S_ISREG(mode):
            with open(target, "wb") as file:
                _fill(file, content)
        else:
            _write_and_rename(temporary, target, content, mode)
    except OSError as error:
        if error.filename not in (None, os.fspath(temporary), os.fspath(target)):
            raise  # the content function failed on some other file
        raise UsageError(
            f"cannot write {os.fspath(path)!r}: {error.strerror or error}", hint="choose a path that can be written"
        ) from error
    return Path(path)


def _existing_mode(target: Path) -> int | None:
    try:
        return target.stat().st_mode
    except OSError:
        return None


def _write_and_rename(temporary: Path, target: Path, content: Content, mode: int | None) -> None:
    try:
        # os.open, not tempfile: a new file shall get the permissions that the user's umask gives, not 0600.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with open(descriptor, "wb") as file:
            _fill(file, content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _fill(file: BinaryIO, content: Content) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content)
