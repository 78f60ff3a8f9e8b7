"""Static int8 on every runtime: little accuracy is lost, and all of them compute what the simulation says."""

import numpy as np
import pytest
import xlapass
from xlapass.plugins.quantization import xlapass_pipelines

TABLES = {"onnx-int8": "onnx", "mobile": "tflite", "cpu-int8": "xla"}
"""The pipelines of static int8, and what the quantizers of each are placed for."""


def simulated(table):
    """Quantizers where a runtime wants them, computed in float by XLA."""
    return f"inline,simplify,fold-constants,fuse,quantize{{target={table}}},lower-composites"


@pytest.fixture(params=["cnn", "transformer"])
def network(request):
    return request.getfixturevalue(request.param)


def logits(network, pipeline, **options):
    data = {} if pipeline in ("onnx-dynamic", "edge") else {"calibration_data": network.calibration}
    artifact = xlapass.compile(network.model, network.images, pipeline=pipeline, **data, **options)
    return np.asarray(artifact.executable()(network.images))


def agree(have, want, steps=1.0):
    """The share of numbers that are at most so many steps of eight bits apart."""
    return (np.abs(have - want) <= steps * np.ptp(want) / 255).mean()


def test_the_networks_are_worth_the_test(network):
    assert network.accuracy(network.model(network.images)) > 97
    assert network.seconds < 60


@pytest.mark.parametrize("pipeline", sorted(TABLES))
def test_static(network, pipeline):
    """The runtime loses little, and agrees with its quantizers simulated, to a step of the result."""
    exact = network.accuracy(network.model(network.images))
    found = logits(network, pipeline)
    want = logits(network, simulated(TABLES[pipeline]))
    assert network.accuracy(found) >= exact - 0.5
    assert network.accuracy(want) >= exact - 0.5
    assert agree(found, want) >= 0.99


@pytest.mark.parametrize("pipeline", ["onnx-dynamic", "edge"])
def test_dynamic(network, pipeline):
    exact = network.accuracy(network.model(network.images))
    assert network.accuracy(logits(network, pipeline)) >= exact - 0.5


def test_runtimes_agree_with_one_another(network):
    """With quantizers in the same places, every runtime computes what the one simulation says, to a step.

    These are not the places where each of them has integer kernels, so its backend is not asked for these.
    """
    simulation = logits(network, simulated("simulated"))
    exact = network.accuracy(network.model(network.images))
    for name, pipeline in xlapass_pipelines().items():
        if name in TABLES:
            text = pipeline.text.replace(f"quantize{{target={TABLES[name]}}}", "quantize{target=simulated}")
            assert text != pipeline.text
            found = logits(network, text, backend=pipeline.backend.partition("{")[0], target=pipeline.target)
            assert network.accuracy(found) >= exact - 0.5
            assert agree(found, simulation) >= 0.99
