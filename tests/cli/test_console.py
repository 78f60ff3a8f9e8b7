"""What a terminal is shown that a pipe is not."""

import io
import sys

import pytest

FLAGS = ("--pipeline=inline,dead-code", "--no-run")


class FakeTerminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Both streams on a terminal of 100 columns."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def install(name):
        stream = FakeTerminal()
        monkeypatch.setattr(sys, name, stream)
        return stream

    return install


def test_progress_is_shown_on_a_terminal(command, model, terminal):
    stderr = terminal("stderr")
    assert command(*FLAGS, model).status == 0
    for stage in ("starting JAX", "tracing model", "pass dead-code", "compiling model for cpu"):
        assert stage in stderr.getvalue()


def test_quiet_means_no_progress(command, model, terminal):
    stderr = terminal("stderr")
    assert command("-q", *FLAGS, model).status == 0
    assert stderr.getvalue() == ""


def test_differences_are_coloured_on_a_terminal(command, model, terminal):
    stdout = terminal("stdout")
    assert command("--print-ir=changed", "--report=none", *FLAGS, model).status == 0
    assert "\x1b[31m- c:f32[2,3] = sin b" in stdout.getvalue()


def test_square_brackets_are_not_markup(command, model, terminal):
    stdout, stderr = terminal("stdout"), terminal("stderr")
    assert command("--print-ir=before:inline", "--report=none", *FLAGS, model).status == 0
    assert "f32[2,3]" in stdout.getvalue()
    assert command("--input", "f32[red]x", *FLAGS, model).status == 2
    assert "f32[red]x" in stderr.getvalue()
