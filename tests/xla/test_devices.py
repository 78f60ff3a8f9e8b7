"""The named GPUs and their descriptions for XLA."""

import re

import pytest
from xlapass.backends.xla.devices import DEVICES, find_device, target_config
from xlapass.core.errors import UsageError


@pytest.mark.parametrize("text", ["h100", "H100", " h100 "])
def test_find(text):
    assert find_device(text).description == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize("text", ["a100-80gb", "A100_80GB", "A100 80GB"])
def test_separators_are_forgiven(text):
    assert find_device(text).name == "a100-80gb"


def test_unknown_name_suggests_and_lists():
    with pytest.raises(UsageError) as caught:
        find_device("h1000")
    assert "no GPU device 'h1000'" in str(caught.value)
    assert "did you mean h100" in str(caught.value)
    assert all(name in str(caught.value) for name in DEVICES)


def test_unknown_name_without_a_near_one_only_lists():
    with pytest.raises(UsageError) as caught:
        find_device("abacus")
    assert "did you mean" not in str(caught.value)


def test_names_are_keys_and_unique():
    assert all(name == device.name for name, device in DEVICES.items())
    assert len({device.description for device in DEVICES.values()}) == len(DEVICES)


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_figures_are_plausible(device):
    architecture = device.architecture
    assert 0 < architecture.shared_memory_per_block <= architecture.shared_memory_per_core
    assert 0.5 < device.clock_ghz < 4
    assert 30 <= device.core_count <= 256
    # float32 throughput (two operations a clock and unit) lies between a T4's and a B200's or RTX 5090's
    teraflops = 2 * device.core_count * architecture.fpus_per_core * device.clock_ghz / 1e3
    assert 8 < teraflops < 120


def test_target_config_text():
    text = target_config(find_device("h100"))
    assert re.search(r"\bcore_count: 132\b", text)
    assert re.search(r"\bmemory_bandwidth: 3352000000000\b", text)
    assert re.search(r"major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES", text)
    assert text.count("{") == text.count("}")


def test_target_config_whole_numbers():
    for device in DEVICES.values():
        for field in ("l2_cache_size", "device_memory_size", "memory_bandwidth", "shared_memory_per_core"):
            assert re.search(rf"\b{field}: [1-9]\d*\n", target_config(device)), field
