"""``write_atomically``: the whole file or the old one, and one clear sentence when neither is possible."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest
from xlapass.core.errors import UsageError
from xlapass.core.files import write_atomically


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_bytes(tmp_path):
    assert write_atomically(tmp_path / "a.bin", b"\x00\x01") == tmp_path / "a.bin"
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\x01"
    assert entries(tmp_path) == ["a.bin"]


def test_writes_with_a_function_and_replaces(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"older and longer")
    write_atomically(str(path), lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


def test_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_atomically("a.bin", b"x") == Path("a.bin")
    assert entries(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("exception", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_interruption_keeps_the_old_file_and_leaves_nothing(tmp_path, exception):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def content(file):
        file.write(b"half")
        raise exception

    with pytest.raises(exception):
        write_atomically(path, content)
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["a.bin"]


def test_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    write_atomically(tmp_path / "fresh", b"")
    assert (tmp_path / "fresh").stat().st_mode == plain.stat().st_mode  # the umask decides, as for any new file
    plain.chmod(0o640)
    write_atomically(plain, b"new")
    assert stat.S_IMODE(plain.stat().st_mode) == 0o640


def test_follows_a_symbolic_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_writes_into_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"through")
    reader.join(timeout=10)
    assert received == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_missing_folder(tmp_path):
    with pytest.raises(UsageError, match="there is no folder") as caught:
        write_atomically(tmp_path / "no" / "a.bin", b"")
    assert caught.value.exit_status == 2


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="there is no folder"):
        write_atomically(tmp_path / "file" / "a.bin", b"")


def test_a_folder_in_the_place_of_the_file(tmp_path):
    with pytest.raises(UsageError, match="it is a folder"):
        write_atomically(tmp_path, b"")


def test_name_too_long(tmp_path):
    with pytest.raises(UsageError, match="File name too long"):
        write_atomically(tmp_path / ("x" * 300), b"")
    assert entries(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders; the next test simulates it")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(UsageError, match="Permission denied"):
            write_atomically(tmp_path / "a.bin", b"")
    finally:
        tmp_path.chmod(0o755)


def test_refused_by_the_system(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError, match=r"cannot write '.*a\.bin': Permission denied"):
        write_atomically(tmp_path / "a.bin", b"")


def test_full_disk(tmp_path):
    def content(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UsageError, match="No space left on device"):
        write_atomically(tmp_path / "a.bin", content)
    assert entries(tmp_path) == []


def test_an_error_on_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        write_atomically(tmp_path / "a.bin", lambda file: file.write((tmp_path / "elsewhere").read_bytes()))
    assert entries(tmp_path) == []
