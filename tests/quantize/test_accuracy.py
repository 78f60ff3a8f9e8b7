"""Static int8 on every runtime: little accuracy is lost, and all of them compute what the simulation says."""

import numpy as np
import pytest
import xlapass


@pytest.fixture(params=["cnn", "transformer"])
def network(request):
    return request.getfixturevalue(request.param)


def test_the_network_is_worth_the_test(network):
    assert network.accuracy(network.model(network.images)) > 97


@pytest.mark.parametrize("pipeline", ["onnx-int8", "mobile"])
def test_static(network, pipeline):
    exact = network.accuracy(network.model(network.images))
    artifact = xlapass.compile(network.model, network.images, pipeline=pipeline, calibration_data=network.calibration)
    logits = np.asarray(artifact.executable()(network.images))
    assert network.accuracy(logits) >= exact - 0.5
    want = np.asarray(artifact.program(network.images))
    step = np.ptp(want) / 255
    assert (np.abs(logits - want) <= step).mean() >= 0.99
