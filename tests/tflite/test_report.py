"""What a file says of itself, and where it would not run."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from jax import lax
from xlapass.backends.tflite import flatbuffer
from xlapass.backends.tflite.places import PLACES
from xlapass.backends.tflite.report import arena_bytes
from xlapass.cli import main

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((3, 3, 3, 8)).astype(np.float32)
DENSE = RNG.standard_normal((8, 5)).astype(np.float32)
IMAGE = RNG.standard_normal((1, 32, 32, 3)).astype(np.float32)


def network(x):
    y = lax.conv_general_dilated(x, KERNEL, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.gelu(y).mean((1, 2)) @ DENSE


def test_operations_work_and_memory(compiled):
    artifact = compiled(network, IMAGE)
    report = artifact.description()
    rows = {row.operation: row for row in report.rows}
    assert list(rows) == ["CONV_2D", "GELU", "MEAN", "FULLY_CONNECTED"]
    assert all(row.kernel == "FLOAT32" and row.count == row.delegated == 1 for row in report.rows)
    assert rows["CONV_2D"].work == 2 * 16 * 16 * 8 * 3 * 3 * 3
    assert rows["GELU"].work == rows["MEAN"].work == 16 * 16 * 8
    assert rows["FULLY_CONNECTED"].work == 2 * 8 * 5
    assert report.file_bytes == len(artifact.model)
    assert KERNEL.nbytes + DENSE.nbytes <= report.constant_bytes < report.file_bytes
    # The convolution's result lives until GELU has read it, and the input as long as the model runs.
    assert report.arena_bytes == IMAGE.nbytes + 2 * 16 * 16 * 8 * 4
    assert json.loads(json.dumps(report.data()))["operation_count"] == 4


def test_memory_of_a_chain_is_that_of_two_tensors(compiled):
    def chain(x):
        for _ in range(6):
            x = jnp.sin(jnp.cos(x))
        return x

    x = np.ones((1024,), np.float32)
    assert arena_bytes(flatbuffer.read(compiled(chain, x).model)) == 3 * x.nbytes  # and the input


def test_what_is_not_delegated_is_seen(compiled):
    report = compiled(lambda x: jnp.cumsum(jnp.tanh(x), 1), np.ones((2, 3), np.float32)).description()
    rows = {row.operation: row.delegated for row in report.rows}
    assert rows["CUMSUM"] == 0


def test_kernels_are_named_by_their_data(compiled):
    kernel = np.ones((3, 3, 3, 4), np.float32)
    report = compiled(lambda x: jnp.split(lax.conv_transpose(x, kernel, (2, 2), "VALID"), 2, -1), IMAGE).description()
    rows = {row.operation: row.kernel for row in report.rows}
    assert rows.get("TRANSPOSE_CONV") == rows.get("SPLIT", "FLOAT32") == "FLOAT32"


@pytest.mark.parametrize("place", PLACES)
def test_a_float_network_in_small_places(place, compiled):
    found = compiled(network, IMAGE).check_for(place)
    reasons = {finding.operation: finding.reason for finding in found.findings}
    assert not found.runs
    assert "no such operation" in reasons["GELU"]
    assert ("CONV_2D" in reasons) == (place == "edgetpu")
    assert found.data()["place"] == place


def test_what_runs_on_microcontrollers(compiled):
    assert compiled(lambda x: jax.nn.relu(x @ DENSE), np.ones((1, 8), np.float32)).check_for("micro").runs
    dynamic = xlapass.trace(lambda x: jax.nn.relu(x @ DENSE), np.ones((2, 8), np.float32), dynamic="b, ...")
    (finding,) = compiled(dynamic).check_for("micro").findings
    assert "dynamic" in finding.reason


def test_the_command_shows_and_writes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(
        "import jax, jax.numpy as jnp\n\n\ndef model(x):\n    return jax.nn.gelu(x) + 1\n\n\n"
        "example_inputs = (jnp.ones((2, 3)),)\n"
    )
    command = ["--pipeline=tflite", "--no-run", "--check-for=micro", "-o", "model.tflite", "model.py"]
    assert main(["--report=json:report.json", *command]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["operation"] for row in report["artifact"]["rows"]} == {"GELU", "ADD"}
    assert [finding["operation"] for finding in report["check_for_micro"]["findings"]] == ["GELU"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "XNNPACK" in printed and "would not run on TFLite Micro" in printed
    assert main(["--no-verify", "--report=none", *command]) == 0
    assert main(["--check-for=toaster", *command]) == 2
    assert "known: edgetpu, micro" in capsys.readouterr().err
