"""Static int8 on every runtime: little accuracy is lost, and all of them compute what the simulation says."""

import numpy as np
import pytest
import xlapass

SIMULATED = "inline,simplify,fold-constants,fuse,quantize{target=simulated},lower-composites"


@pytest.fixture(params=["cnn", "transformer"])
def network(request):
    return request.getfixturevalue(request.param)


def test_the_networks_are_worth_the_test(network):
    assert network.accuracy(network.model(network.images)) > 97


@pytest.mark.parametrize("pipeline", ["onnx-int8", "mobile", "cpu-int8", SIMULATED])
def test_static(network, pipeline):
    exact = network.accuracy(network.model(network.images))
    artifact = xlapass.compile(network.model, network.images, pipeline=pipeline, calibration_data=network.calibration)
    logits = np.asarray(artifact.executable()(network.images))
    assert network.accuracy(logits) >= exact - 0.5
    want = np.asarray(artifact.program(network.images))
    step = np.ptp(want) / 255
    assert (np.abs(logits - want) <= step).mean() >= 0.99


@pytest.mark.parametrize("pipeline", ["onnx-dynamic", "edge"])
def test_dynamic(network, pipeline):
    exact = network.accuracy(network.model(network.images))
    artifact = xlapass.compile(network.model, network.images, pipeline=pipeline)
    assert network.accuracy(np.asarray(artifact.executable()(network.images))) >= exact - 0.5


def test_runtimes_agree_with_one_another(network):
    """ONNX Runtime's and XLA's quantizers stand in the same places, with the same ranges."""
    results = []
    for pipeline in ("onnx-int8", SIMULATED):
        artifact = xlapass.compile(
            network.model, network.images, pipeline=pipeline, calibration_data=network.calibration
        )
        results.append(np.asarray(artifact.executable()(network.images)))
    assert (np.abs(results[0] - results[1]) <= np.ptp(results[1]) / 255).mean() >= 0.99
