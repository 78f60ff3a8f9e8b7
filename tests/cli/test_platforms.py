"""JAX is not sent to look for a GPU on a machine that has no driver for one."""

import os

import pytest
from xlapass.cli import platforms


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A function that makes a machine: which plugins JAX has there, whether there is a driver, what the user set."""

    def make(plugins, driver, chosen=None):
        for name in plugins:
            (tmp_path / "jax_plugins" / name).mkdir(parents=True)
            (tmp_path / "jax_plugins" / name / "__init__.py").touch()
        monkeypatch.setattr("sys.path", [str(tmp_path)])
        monkeypatch.delitem(__import__("sys").modules, "jax_plugins", raising=False)
        monkeypatch.setattr(platforms, "CUDA_DRIVER", "libm.so.6" if driver else "libnosuchdriver.so.1")
        monkeypatch.setenv("JAX_PLATFORMS", chosen or "")
        if chosen is None:
            monkeypatch.delenv("JAX_PLATFORMS")
        platforms.leave_out_missing_gpu()
        return os.environ.get("JAX_PLATFORMS")

    return make


def test_a_plugin_without_a_driver_is_left_out(machine):
    assert machine(["xla_cuda12"], driver=False) == "cpu"


def test_a_gpu_is_looked_for_where_there_is_a_driver(machine):
    assert machine(["xla_cuda12"], driver=True) is None


@pytest.mark.parametrize("plugins", [[], ["xla_cuda12", "xla_rocm7"]])
def test_other_machines_are_left_as_they_are(machine, plugins):
    assert machine(plugins, driver=False) is None


def test_what_the_user_chose_stays(machine):
    assert machine(["xla_cuda12"], driver=False, chosen="cuda,cpu") == "cuda,cpu"
