"""The command as a process of its own: entry points, pipes, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import pytest

MODULE = [sys.executable, "-m", "xlapass"]
SHORT = "--pipeline=inline,dead-code"

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and pipes as on POSIX")


def test_the_module_and_the_script_are_the_command():
    script = os.path.join(os.path.dirname(sys.executable), "xlapass")
    shown = {
        subprocess.run([*start, "--version"], capture_output=True, text=True, check=True).stdout
        for start in (MODULE, [script])
    }
    assert len(shown) == 1 and shown.pop().startswith("xlapass 0.")


def test_exit_status_and_streams(write, tmp_path):
    write("raises.py", "raise ValueError('no weights')\n")
    result = subprocess.run([*MODULE, SHORT, "raises.py"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr == (
        "Traceback (most recent call last):\n"
        '  File "raises.py", line 1, in <module>\n'
        "    raise ValueError('no weights')\n"
        "ValueError: no weights\n"
        "error: raises.py could not be run\n"
    )


@posix_only
def test_a_reader_that_goes_away():
    with subprocess.Popen([*MODULE, "list", "targets"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@posix_only
def test_a_reader_of_errors_that_goes_away():
    with subprocess.Popen([*MODULE, "list", "nothing"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        process.stderr.close()
    assert process.returncode == 141


def interrupt(arguments, folder, sign):
    """Starts the command, sends Ctrl-C once a file named ``sign`` is there, and returns how it ended."""
    process = subprocess.Popen(
        [*MODULE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / sign).exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, out, err


@posix_only
def test_ctrl_c_in_the_users_code(write, tmp_path):
    write("slow.py", "import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(60)\n")
    write("out", "old")
    assert interrupt([SHORT, "-o", "out", "slow.py"], tmp_path, "started") == (130, "", "error: interrupted\n")
    assert (tmp_path / "out").read_text() == "old"


@posix_only
def test_ctrl_c_while_the_program_runs(write, tmp_path):
    """Also while XLA holds the process: the run takes minutes, and must end at once."""
    write(
        "long.py",
        """
        import pathlib
        import jax
        import jax.numpy as jnp

        def model(x):
            pathlib.Path("started").touch()
            return jax.lax.fori_loop(0, 10**9, lambda i, y: jnp.sin(y @ y), x)

        example_inputs = (jnp.ones((200, 200)),)
        """,
    )
    assert interrupt([SHORT, "--report=json:out", "long.py"], tmp_path, "started") == (130, "", "error: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.py", "started"]
