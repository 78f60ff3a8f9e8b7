"""``calibration_data`` in the model file, ``--calibrate`` and ``--accuracy-target``."""

import json

import numpy as np
import pytest
from xlapass.cli import main

MODEL = """
import numpy as np
WEIGHTS = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
def model(x):
    return x @ WEIGHTS
example_inputs = (np.ones((2, 8), np.float32),)
"""
DATA = "calibration_data = [(np.random.default_rng(k).standard_normal((2, 8)).astype(np.float32),) for k in range(3)]\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "with_data.py").write_text(MODEL + DATA)
    (tmp_path / "without.py").write_text(MODEL)
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(1).standard_normal((20, 8)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    status = main([*arguments])
    streams = capsys.readouterr()
    return status, streams.out, streams.err


def test_data_in_the_model_file(folder, capsys):
    status, out, err = run(capsys, "--pipeline=onnx-int8", "-o", "model.onnx", "--report=json", "with_data.py")
    assert status == 0, err
    products = json.loads(out)["description"]["products"] if "description" in json.loads(out) else out
    assert "MatMulIntegerToFloat" in str(products)
    assert (folder / "model.onnx").exists()


def test_data_on_the_command_line(folder, capsys):
    assert run(capsys, "--pipeline=onnx-int8", "--calibrate", "data.npz", "without.py")[0] == 0


def test_no_data(folder, capsys):
    status, _, err = run(capsys, "--pipeline=onnx-int8", "without.py")
    assert status == 2 and "typical inputs" in err and "--calibrate" in err


def test_data_that_are_not_there(folder, capsys):
    status, _, err = run(capsys, "--pipeline=onnx-int8", "--calibrate", "nowhere.npz", "without.py")
    assert status == 2 and "nowhere.npz" in err


def test_accuracy_target(folder, capsys):
    arguments = ("--pipeline=onnx-int8", "--accuracy-target=sqnr>200", "--no-run", "with_data.py")
    status, out, err = run(capsys, *arguments)
    assert status == 0, err
    assert "trade-off for sqnr>200" in out and "sensitivity" in out
    assert run(capsys, "--pipeline=cpu", "--accuracy-target=sqnr>20", "with_data.py")[0] == 2
