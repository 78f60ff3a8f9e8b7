"""Files that must not or cannot be written: said before the long work, and nothing is harmed."""

import os

import pytest

SHORT = "--pipeline=inline,dead-code"


@pytest.mark.parametrize(
    "flags",
    [
        ["-o", "model.py", "model.py"],
        ["-o", "./model.py", "model.py:model"],
        ["--emit=jaxpr", "-o", "link.py", "model.py"],
        ["--report=json:model.py", "model.py"],
        ["bench", "--report=json:model.py", "model.py"],
        ["tune", "--report=json:model.py", "model.py"],
    ],
)
def test_the_model_is_not_overwritten(command, model, tmp_path, flags):
    (tmp_path / "link.py").symlink_to(tmp_path / model)
    before = (tmp_path / model).read_text()
    result = command(*flags)
    assert result.status == 2 and "would overwrite the model" in result.err
    assert (tmp_path / model).read_text() == before


def test_the_report_does_not_overwrite_the_artifact(command, model):
    result = command(SHORT, "-o", "out", "--report=json:./out", model)
    assert result.status == 2 and "the report would overwrite 'out'" in result.err and not os.path.exists("out")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full, where every write fails, is Linux's")
def test_a_full_disk(command, model):
    result = command(SHORT, "-o", "/dev/full", model)
    assert result.status == 2 and "cannot write '/dev/full': No space left on device" in result.err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_is_read_only(command, model, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    result = command(SHORT, "-o", "closed/out", model)
    assert result.status == 2 and "permission denied" in result.err


def test_a_path_that_may_not_be_written(command, model, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    result = command(SHORT, "-o", "out", model)
    assert result.status == 2 and "cannot write 'out': permission denied" in result.err
